package dockerfile

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each line of CONFORMANCE.md names tests, and they are there.
func TestConformanceNamesTests(t *testing.T) {
	b, err := os.ReadFile("CONFORMANCE.md")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, pattern := range []string{"*_test.go", "files/*_test.go", "../../cmd/lumina/*_test.go"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(names), err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			source.Write(text)
		}
	}
	test, rows := regexp.MustCompile("`(Test[A-Za-z0-9_]+)`"), 0
	for line := range strings.Lines(string(b)) {
		named := test.FindAllStringSubmatch(line, -1)
		for _, n := range named {
			if !strings.Contains(source.String(), "func "+n[1]+"(t *testing.T)") {
				t.Errorf("there is no %s: %s", n[1], line)
			}
		}
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| instruction") || strings.HasPrefix(line, "| ---") {
			continue
		}
		rows++
		if len(named) == 0 {
			t.Errorf("no test is named: %s", line)
		}
	}
	if rows < 40 {
		t.Errorf("%d lines were found", rows)
	}
}
