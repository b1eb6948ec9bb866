package main

import (
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What a log says of a desktop whose screen did not become what a test waited for:
// who reads it has neither the machine nor the picture.

// desktopStates is that of the desktops of a state directory; each of more adds what it
// knows of a QEMU.
func desktopStates(t testing.TB, home string, more ...func(pid string) string) string {
	t.Helper()
	cmd := exec.Command(program, "desktop", "ls", "--json")
	cmd.Env = append(os.Environ(), "LUMINA_HOME="+home)
	var rows []desktopRow
	if r := finish(t, cmd); json.Unmarshal([]byte(r.stdout), &rows) != nil {
		return fmt.Sprintf("desktop ls: %d %s%s", r.code, r.stdout, r.stderr)
	}
	var b strings.Builder
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Fprintf(&b, "the host's load: %s\n", strings.TrimSpace(string(load)))
	for _, row := range rows {
		fmt.Fprintf(&b, "%s: %d CPUs, running: %t, silent: %t, up %d s, %.1f s of CPU time, %d MB of memory\n",
			row.Name, row.CPUs, row.Running, row.Silent, row.Uptime, row.CPUSeconds, row.MemoryUsed>>20)
		boot, _ := os.ReadFile(filepath.Join(row.Path, "boot.json"))
		fmt.Fprintf(&b, "its boot: %s\nits serial port's end:\n%s\n", boot, lastLines(filepath.Join(row.Path, "serial.log"), 12))
		for _, pid := range qemuOf(row.ID) {
			b.WriteString(threadsOf(pid))
			for _, say := range more {
				b.WriteString(say(pid))
			}
		}
	}
	return b.String()
}

// lastLines are those of a guest's output, with nothing that a terminal would obey.
func lastLines(file string, n int) string {
	said, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.FieldsFunc(string(said), func(r rune) bool { return r == '\n' || r == '\r' })
	var b strings.Builder
	for _, line := range lines[max(0, len(lines)-n):] {
		fmt.Fprintf(&b, "\t%.200q\n", line)
	}
	return b.String()
}

// qemuOf are the processes that run a desktop's machine.
func qemuOf(id string) (pids []string) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range lines {
		line, _ := os.ReadFile(file)
		if first, _, _ := strings.Cut(string(line), "\x00"); strings.Contains(first, "qemu-system-") && strings.Contains(string(line), id) {
			pids = append(pids, filepath.Base(filepath.Dir(file)))
		}
	}
	return pids
}

// threadsOf says what QEMU's threads did for a second: one that goes round in a
// circle has used it, one that waits has not.
func threadsOf(pid string) string {
	type thread struct {
		state string
		ticks int
	}
	look := func() map[string]thread {
		all := map[string]thread{}
		files, _ := filepath.Glob("/proc/" + pid + "/task/*/stat")
		for _, file := range files {
			stat, _ := os.ReadFile(file)
			_, rest, _ := strings.Cut(string(stat), ") ")
			if f := strings.Fields(rest); len(f) > 12 {
				var user, system int
				_, _ = fmt.Sscan(f[11], &user)
				_, _ = fmt.Sscan(f[12], &system)
				all[filepath.Base(filepath.Dir(file))] = thread{f[0], user + system}
			}
		}
		return all
	}
	before := look()
	time.Sleep(time.Second) // what is told is the CPU time of a second
	var b strings.Builder
	for id, now := range look() {
		fmt.Fprintf(&b, "QEMU's thread %s: state %s, %d0 ms of CPU time in all, %d0 ms in the last second\n", id, now.state, now.ticks, now.ticks-before[id].ticks)
	}
	return b.String()
}

// stacksOf says where QEMU's threads are, where there is gdb.
func stacksOf(pid string) string {
	gdb, err := exec.LookPath("gdb")
	if err != nil {
		return ""
	}
	out, _ := exec.Command("timeout", "60", gdb, "-p", pid, "-batch", "-ex", "thread apply all bt 8").Output()
	_, stacks, _ := strings.Cut(string(out), "\nThread ")
	return fmt.Sprintf("%.8000s\n", stacks)
}

// sketch draws what differs from a picture's most frequent colour, in 100 by 25 characters.
func sketch(img *image.RGBA) string {
	count := map[color.RGBA]int{}
	size := img.Rect.Size()
	for y := range size.Y {
		for x := range size.X {
			count[img.RGBAAt(x, y)]++
		}
	}
	var most color.RGBA
	for c, n := range count {
		if n > count[most] {
			most = c
		}
	}
	const columns, rows = 100, 25
	var b strings.Builder
	fmt.Fprintf(&b, "%dx%d, %d colours, most of it %v:\n", size.X, size.Y, len(count), most)
	for row := range rows {
		line := make([]byte, columns)
		for column := range columns {
			line[column] = ' '
			for y := row * size.Y / rows; y < (row+1)*size.Y/rows; y++ {
				for x := column * size.X / columns; x < (column+1)*size.X/columns; x++ {
					if img.RGBAAt(x, y) != most {
						line[column] = '#'
					}
				}
			}
		}
		fmt.Fprintf(&b, "|%s\n", strings.TrimRight(string(line), " "))
	}
	return b.String()
}
