package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
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

// BenchmarkAppFirstPaint measures the time from the command to the page's first paint in a
// browser that is open, with five desktops in the library:
//
//	go test -run '^$' -bench AppFirstPaint -benchtime 20x ./cmd/lumina
func BenchmarkAppFirstPaint(b *testing.B) {
	here := b.TempDir()
	iso := startsISO(b)
	for _, name := range []string{"one", "two", "three", "four", "five"} {
		cmd := exec.Command(program, "desktop", "create", name, "--iso", iso, "--disk-size", "64MB")
		cmd.Env = append(os.Environ(), "LUMINA_HOME="+here)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
	page := newBrowser(b, "about:blank")
	if err := page.call(b, "Page.enable", nil, nil); err != nil {
		b.Fatal(err)
	}
	var served, painted, text []float64
	for b.Loop() {
		start := time.Now()
		since := func(at float64) float64 { return at - float64(start.UnixMicro())/1000 }
		cmd := exec.Command(program, "app", "--no-browser")
		cmd.Env, cmd.Dir = append(os.Environ(), "LUMINA_HOME="+here, "HOME="+here), here
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
		served = append(served, ms(time.Since(start)))
		if err := page.call(b, "Page.navigate", map[string]any{"url": says.URL}, nil); err != nil {
			b.Fatal(err)
		}
		painted = append(painted, since(page.paint(b, "first-paint")))
		text = append(text, since(page.paint(b, "first-contentful-paint")))
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait()
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
