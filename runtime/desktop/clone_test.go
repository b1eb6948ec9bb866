package desktop

import (
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"strings"
	"testing"
)

// A Mac clones with clonefile(2), whatever its tests here cannot try; the clone belongs to
// who makes it.
func TestCloneOfAMac(t *testing.T) {
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, "clone_darwin.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var calls []string
	ast.Inspect(f, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && strings.HasSuffix(sourceOf(t, set, call.Fun), "clonefileat") {
			calls = append(calls, sourceOf(t, set, call))
		}
		return true
	})
	const want = "unix.Fclonefileat(int(from.Fd()), unix.AT_FDCWD, name, unix.CLONE_NOOWNERCOPY)"
	if len(calls) != 1 || calls[0] != want {
		t.Errorf("it calls %q, want %q", calls, want)
	}
}

func sourceOf(t *testing.T, set *token.FileSet, n ast.Node) string {
	t.Helper()
	var b strings.Builder
	if err := printer.Fprint(&b, set, n); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
