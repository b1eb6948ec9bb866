package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A history grows by a line a run; what got 20 % slower than the last ten is told,
// and what did not is not.
func TestBenchHistory(t *testing.T) {
	dir := t.TempDir()
	file, page := filepath.Join(dir, "history.jsonl"), filepath.Join(dir, "page.html")
	add := func(report string) (int, string) {
		t.Helper()
		files := map[string]*os.File{}
		for _, name := range []string{"stdin", "stdout", "stderr"} {
			write(t, filepath.Join(dir, name), report)
			f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
			if err == nil && name != "stdin" {
				err = f.Truncate(0)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			files[name] = f
		}
		env := &environment{args: []string{"bench", "history", file, "--html", page}, stdin: files["stdin"], stdout: files["stdout"], stderr: files["stderr"], getenv: os.Getenv}
		code := execute(t.Context(), env)
		b, err := os.ReadFile(files["stderr"].Name())
		if err != nil {
			t.Fatal(err)
		}
		return code, string(b)
	}
	report := func(boot, exec float64) string {
		return fmt.Sprintf(`{"boots":[{"name":"boot <b>","count":20,"p50_ms":%g,"p95_ms":%g}]}`+"\n"+`{"execs":[{"name":"exec","count":9,"p50_ms":%g}]}`, boot, boot*1.1, exec)
	}
	for i, boot := range []float64{100, 100, 900, 105, 95, 118} {
		if code, warned := add(report(boot, 10)); code != 0 || warned != "" && boot != 900 {
			t.Errorf("run %d: exit code %d, %s", i, code, warned)
		}
	}
	code, warned := add(report(130, 11))
	if code != 0 || strings.Count(warned, "\n") != 1 || !strings.Contains(warned, "::warning title=slower::boot <b>: the median is 130.00 ms (n = 20), 24 % above that of the last 6 runs, 105.00 ms") {
		t.Errorf("exit code %d, %q", code, warned)
	}
	b, err := os.ReadFile(file)
	if err != nil || bytes.Count(b, []byte("\n")) != 7 {
		t.Errorf("the history: %v, %s", err, b)
	}
	if b, err = os.ReadFile(page); err != nil || !strings.Contains(string(b), "boot &lt;b&gt;") || strings.Contains(string(b), "<b>") || strings.Count(string(b), "<polyline") != 4 {
		t.Errorf("the page: %v, %s", err, b)
	}
	for _, bad := range []string{"", "{}", "x", `[{"name":1}]`} {
		if code, told := add(bad); code != 2 || !strings.Contains(told, "standard input: ") {
			t.Errorf("%q: exit code %d, %s", bad, code, told)
		}
	}
}
