package protocol

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// PROTOCOL.md lists the kernel's parameters, and no other file spells one.
func TestParameters(t *testing.T) {
	document, err := os.ReadFile("../PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(document), "\n## Kernel parameters\n")
	section, _, _ = strings.Cut(section, "\n## ")
	if !ok {
		t.Fatal("PROTOCOL.md has no section on them")
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(lumina\\.[a-z]+)").FindAllStringSubmatch(section, -1) {
		documented = append(documented, m[1])
	}
	constants := map[string]bool{}
	file, err := parser.ParseFile(token.NewFileSet(), "parameters.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && strings.HasPrefix(lit.Value, `"lumina.`) {
			constants[strings.Trim(lit.Value, `"`)] = true
		}
		return true
	})
	slices.Sort(documented)
	if want := slices.Sorted(maps.Keys(constants)); len(want) == 0 || !slices.Equal(documented, want) {
		t.Errorf("PROTOCOL.md has %q, the constants are %q", documented, want)
	}
	spelled := regexp.MustCompile(`lumina\.(` + strings.ReplaceAll(strings.Join(documented, "|"), "lumina.", "") + `)=`)
	err = filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "out") {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		b, err := os.ReadFile(path)
		if m := spelled.Find(b); m != nil {
			t.Errorf("%s spells %s itself", path, m)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
