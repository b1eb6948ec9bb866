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
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "{}", "x", "null", `[{"name":1}]`, `[{}]`, report(100, 10)[:60], report(100, 10) + "{", `[{"name":"a","count":1}]`,
		`[{"name":"a","count":0,"p50_ms":1}]`, `[{"name":"a","count":1,"p50_ms":-1}]`, `[{"name":"a","count":1,"p50_ms":1e999}]`,
		`[{"name":"a\n::error::b","count":1,"p50_ms":1}]`, `[{"name":"` + strings.Repeat("a", 101) + `","count":1,"p50_ms":1}]`} {
		if code, told := add(bad); code != 2 || !strings.Contains(told, "standard input: ") || strings.Count(told, "\n") != 1 {
			t.Errorf("%q: exit code %d, %s", bad, code, told)
		}
	}
	// What is in the file is told by its line, and left as it is.
	good := `{"time":"2026-01-02T03:04:05Z","version":"v","samples":[{"name":"exec","count":9,"p50_ms":10}]}` + "\n"
	for _, tt := range []struct{ history, want string }{
		{good + good[:50], ":2: unexpected end of JSON input; remove the line"},
		{good + "\n" + "x\n" + good, ":3: invalid character"},
		{good + good[:len(good)-1] + good, ":2: invalid character"},
		{"[]\n", ":1: json: cannot unmarshal"},
		{"{}\n", ":1: it has no sample"},
		{`{"samples":[{"name":"exec","p50_ms":10}]}`, `:1: sample "exec" was measured 0 times`},
		{`{"time":"yesterday","samples":[{"name":"exec","count":9,"p50_ms":10}]}`, ":1: "},
		{`{"samples":[{"name":"exec","count":9,"p50_ms":10,"p99_ms":"` + strings.Repeat("9", 2<<20) + `"}]}`, ":1: json: cannot unmarshal"},
	} {
		write(t, file, tt.history)
		code, told := add(report(100, 10))
		if b, err := os.ReadFile(file); code != 2 || !strings.Contains(told, file+tt.want) || strings.Count(told, "\n") != 1 || len(told) > 1000 || err != nil || string(b) != tt.history {
			t.Errorf("%.200q: exit code %d, %.1000s; %v, the history is changed: %v", tt.history, code, told, err, string(b) != tt.history)
		}
	}
	// Blank lines and a last one without an end are no fault.
	write(t, file, "\n"+good+"\r\n"+strings.TrimSpace(good))
	if code, told := add(report(100, 10)); code != 0 || told != "" {
		t.Errorf("exit code %d, %s", code, told)
	}
	write(t, file, string(kept))
	if code, _ := add(report(100, 10)); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
