package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// firstPaint waits for a page's first paint, and is when that was, in milliseconds since
// the epoch.
const firstPaint = `new Promise((done) => new PerformanceObserver((list, o) => {
	const at = list.getEntriesByName(%q)[0];
	if (at) { o.disconnect(); done(performance.timeOrigin + at.startTime); }
}).observe({type: "paint", buffered: true}))`

// paint is when the page of a tab was painted, by the paint's name.
func (b *browser) paint(t testing.TB, name string) float64 {
	t.Helper()
	var r struct {
		Result struct {
			Value float64 `json:"value"`
		} `json:"result"`
	}
	ask := map[string]any{"expression": fmt.Sprintf(firstPaint, name), "awaitPromise": true, "returnByValue": true}
	if err := b.call(t, "Runtime.evaluate", ask, &r); err != nil {
		t.Fatal(err)
	}
	return r.Result.Value
}

// What the app costs, all of it in three minutes:
//
//	go test -run '^$' -bench '^BenchmarkApp' -benchtime 1x ./cmd/lumina

// fiveDesktops makes a state directory with as many.
func fiveDesktops(b *testing.B) string {
	here := b.TempDir()
	iso := startsISO(b)
	for _, name := range []string{"one", "two", "three", "four", "five"} {
		cmd := exec.Command(program, "desktop", "create", name, "--iso", iso, "--disk-size", "64MB")
		cmd.Env = append(os.Environ(), "LUMINA_HOME="+here)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
	return here
}

// benchApp starts the app of a state directory.
func benchApp(b *testing.B, here string) (url string, cmd *exec.Cmd) {
	b.Helper()
	cmd = exec.Command(program, "app", "--no-browser")
	cmd.Env, cmd.Dir = append(os.Environ(), "LUMINA_HOME="+here, "HOME="+b.TempDir()), b.TempDir()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	var says struct {
		URL string `json:"url"`
	}
	if err := json.NewDecoder(out).Decode(&says); err != nil {
		b.Fatal(err)
	}
	return says.URL, cmd
}

func endApp(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait()
}

// BenchmarkAppFirstPaint measures the time from the command to the page's first paint in a
// browser that is open, with five desktops in the library.
func BenchmarkAppFirstPaint(b *testing.B) {
	here := fiveDesktops(b)
	page := newBrowser(b, "about:blank")
	if err := page.call(b, "Page.enable", nil, nil); err != nil {
		b.Fatal(err)
	}
	const rounds = 15
	var served, painted, text []float64
	for b.Loop() {
		for range rounds {
			start := time.Now()
			since := func(at float64) float64 { return at - float64(start.UnixMicro())/1000 }
			url, cmd := benchApp(b, here)
			served = append(served, ms(time.Since(start)))
			if err := page.call(b, "Page.navigate", map[string]any{"url": url}, nil); err != nil {
				b.Fatal(err)
			}
			painted = append(painted, since(page.paint(b, "first-paint")))
			text = append(text, since(page.paint(b, "first-contentful-paint")))
			endApp(cmd)
		}
	}
	median := func(all []float64) float64 {
		slices.Sort(all)
		return all[len(all)/2]
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(served), "ms-served")
	b.ReportMetric(median(painted), "ms-first-paint")
	b.ReportMetric(median(text), "ms-first-text")
	b.ReportMetric(painted[len(painted)-1], "ms-first-paint-worst")
}

// BenchmarkAppIdle measures what the app takes while its library, of five desktops, is
// open in a browser and nothing happens.
func BenchmarkAppIdle(b *testing.B) {
	const while = time.Minute
	url, cmd := benchApp(b, fiveDesktops(b))
	defer endApp(cmd)
	page := newBrowser(b, "about:blank")
	for method, params := range map[string]map[string]any{"Page.enable": nil, "Page.navigate": {"url": url}} {
		if err := page.call(b, method, params, nil); err != nil {
			b.Fatal(err)
		}
	}
	page.paint(b, "first-contentful-paint")
	time.Sleep(5 * time.Second) // the browser asks for what it shows
	for b.Loop() {
		before := ticks(b, cmd.Process.Pid)
		time.Sleep(while)
		b.ReportMetric(float64(ticks(b, cmd.Process.Pid)-before), "ticks/min")
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(memoryOf(b, cmd.Process.Pid), "MB")
}

// BenchmarkAppMovingScreen measures a screen that scrolls all the time: how many pictures a
// second the page draws, and which part of a CPU each process takes.
func BenchmarkAppMovingScreen(b *testing.B) {
	const name, while = "moving", 20 * time.Second
	disk := filepath.Join(b.TempDir(), "disk.qcow2")
	lumina(b, "images", "export", "debian", "--disk-size", "64MB", "-o", disk).succeeded(b)
	createDesktop(b, name, "--disk", disk, "--memory", "512MB", "--cpus", "1", "--network", "none")
	lumina(b, "desktop", "boot", name, "--headless", "--detach").succeeded(b)
	execReady(b, name, "true").succeeded(b)
	url, cmd := benchApp(b, home)
	defer endApp(cmd)
	page := newBrowser(b, "about:blank")
	for method, params := range map[string]map[string]any{
		"Page.enable": nil,
		// noVNC draws each picture that has come by one call.
		"Page.addScriptToEvaluateOnNewDocument": {"source": `window.pictures = 0; const draw = CanvasRenderingContext2D.prototype.drawImage;
			CanvasRenderingContext2D.prototype.drawImage = function(what, ...at) { if (what instanceof HTMLCanvasElement && this.canvas.closest('#screen')) window.pictures++; return draw.call(this, what, ...at); }`},
	} {
		if err := page.call(b, method, params, nil); err != nil {
			b.Fatal(err)
		}
	}
	if err := page.call(b, "Page.navigate", map[string]any{"url": url + "#/desktop/" + name}, nil); err != nil {
		b.Fatal(err)
	}
	pictures := func() float64 {
		var r struct{ Result struct{ Value float64 } }
		if err := page.call(b, "Runtime.evaluate", map[string]any{"expression": "window.pictures ?? 0"}, &r); err != nil {
			b.Fatal(err)
		}
		return r.Result.Value
	}
	scroll := command("desktop", "exec", name, "while :; do cat /proc/interrupts /proc/meminfo >/dev/tty1; done")
	if err := scroll.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = scroll.Process.Kill()
		_ = scroll.Wait()
	}()
	for deadline := time.Now().Add(2 * time.Minute); pictures() < 50; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatal("the page draws nothing")
		}
	}
	parts := map[string][]int{"app": {cmd.Process.Pid}, "qemu": processesOf(b, home, "qemu-system-"), "supervisor": processesOf(b, home, superviseDesktopCommand), "browser": familyOf(b, page.pid)}
	b.ReportMetric(0, "ns/op")
	for b.Loop() {
		before, start := map[string]int{}, time.Now()
		for part, pids := range parts {
			before[part] = ticks(b, pids...)
		}
		drawn := pictures()
		time.Sleep(while)
		seconds := time.Since(start).Seconds()
		b.ReportMetric((pictures()-drawn)/seconds, "pictures/s")
		for part, pids := range parts {
			b.ReportMetric(float64(ticks(b, pids...)-before[part])/seconds, "%CPU-"+part)
		}
	}
}

// ticks is the CPU time that processes have taken, in hundredths of a second.
func ticks(t testing.TB, pids ...int) (sum int) {
	t.Helper()
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		for _, f := range fields[11:13] { // utime and stime, see proc_pid_stat(5)
			n, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}

// memoryOf is the memory that a process has, in MB.
func memoryOf(t testing.TB, pid int) float64 {
	t.Helper()
	for line := range strings.Lines(string(readFile(t, fmt.Sprintf("/proc/%d/status", pid)))) {
		var kb float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kb); n == 1 {
			return kb / 1024
		}
	}
	t.Fatal("its memory is not known")
	return 0
}

// familyOf is a process and all that come of it.
func familyOf(t testing.TB, pid int) []int {
	t.Helper()
	all := []int{pid}
	children, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, name := range children {
		list, _ := os.ReadFile(name)
		for _, c := range strings.Fields(string(list)) {
			if n, err := strconv.Atoi(c); err == nil {
				all = append(all, familyOf(t, n)...)
			}
		}
	}
	return all
}
