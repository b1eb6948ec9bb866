package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// xServer starts an X server with a screen of its own and returns its DISPLAY.
func xServer(t *testing.T) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	x := exec.Command("Xvfb", "-displayfd", "3", "-screen", "0", "1280x1024x24", "-nolisten", "tcp")
	x.ExtraFiles = []*os.File{w}
	err = x.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = x.Process.Kill()
		_ = x.Wait()
	})
	number, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("Xvfb: %v", err)
	}
	return ":" + strings.TrimSpace(number)
}

// Where there is a screen, a desktop has a window on it, and ends with it.
func TestDesktopWindow(t *testing.T) {
	const name = "window"
	newDesktop(t, name, startsISO(t), "--memory", "256MB")
	display := "DISPLAY=" + xServer(t)
	cmd := with(command("desktop", "boot", name, "--iso", "none"), display, "WAYLAND_DISPLAY=")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	xdotool := func(args ...string) string {
		t.Helper()
		out, err := with(exec.Command("xdotool", args...), display).CombinedOutput()
		if err != nil {
			t.Fatalf("xdotool %q: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	window := xdotool("search", "--sync", "--onlyvisible", "--name", "QEMU .*"+name)
	xdotool("windowfocus", "--sync", window, "key", "ctrl+alt+q") // as its menu does
	if code := waitCode(t, cmd); code != 0 || stderr.Len() > 0 {
		t.Errorf("exit code %d, %s", code, stderr.String())
	}
}
