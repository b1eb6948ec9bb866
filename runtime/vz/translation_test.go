package vz

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// translation are the files that call the framework, parsed.
func translation(t *testing.T) (*token.FileSet, []*ast.File) {
	t.Helper()
	names, err := filepath.Glob("*_darwin*.go")
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	var files []*ast.File
	for _, name := range names {
		f, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return set, files
}

// Every disk has the host's cache and a mode of synchronization that this driver chose:
// with those that the framework chooses by itself, guests' file systems broke
// (lima-vm/lima#1957, utmapp/UTM#4840). Only attach makes an attachment, and every
// device has one of attach's.
func TestEveryDiskIsCached(t *testing.T) {
	set, files := translation(t)
	text := func(n ast.Node) string {
		var b strings.Builder
		if err := printer.Fprint(&b, set, n); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	var attachments, devices, body []string
	for _, f := range files {
		for _, d := range f.Decls {
			function, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if function.Name.Name == "attach" {
				body = append(body, text(function.Body))
			}
			from := map[string]string{} // where a variable of the function comes from
			ast.Inspect(function, func(n ast.Node) bool {
				if a, ok := n.(*ast.AssignStmt); ok && len(a.Rhs) == 1 {
					if call, ok := a.Rhs[0].(*ast.CallExpr); ok {
						from[text(a.Lhs[0])] = text(call.Fun)
					}
				}
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				name := text(call.Fun)
				switch {
				case strings.HasSuffix(name, "StorageDeviceAttachment") || strings.HasSuffix(name, "StorageDeviceAttachmentWithCacheAndSync"):
					attachments = append(attachments, function.Name.Name+": "+text(call))
				case slices.Contains([]string{"apple.NewVirtioBlockDeviceConfiguration", "apple.NewNVMExpressControllerDeviceConfiguration", "apple.NewUSBMassStorageDeviceConfiguration"}, name):
					devices = append(devices, fmt.Sprintf("%s of %s", name, from[text(call.Args[0])]))
				}
				return true
			})
		}
	}
	if want := []string{"attach: apple.NewDiskImageStorageDeviceAttachmentWithCacheAndSync(d.path, d.readOnly, apple.DiskImageCachingModeCached, mode)"}; !slices.Equal(attachments, want) {
		t.Errorf("attachments are made by %q, want %q", attachments, want)
	}
	if len(devices) != 4 {
		t.Errorf("%d devices: %q", len(devices), devices)
	}
	for _, d := range devices {
		if !strings.HasSuffix(d, " of attach") {
			t.Errorf("a device without an attachment of attach: %s", d)
		}
	}
	const want = `mode := apple.DiskImageSynchronizationModeNone
	if d.sync {
		mode = apple.DiskImageSynchronizationModeFsync
	}`
	if len(body) != 1 || !strings.Contains(body[0], want) || strings.Count(body[0], "mode") != 3 {
		t.Errorf("attach chooses the mode in another way: %q", body)
	}
}

// The translation only translates: it starts nothing of its own but what passes states
// on, waits for nothing, and knows no spec. Installing macOS, which has a form of its
// own, is excepted.
func TestTranslationDecidesNothing(t *testing.T) {
	set, files := translation(t)
	for _, f := range files {
		name := set.Position(f.Pos()).Filename
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				return n.Name.Name != "states" && n.Name.Name != "InstallMacOS" && n.Name.Name != "end"
			case *ast.GoStmt, *ast.SelectStmt:
				t.Errorf("%s waits", set.Position(n.Pos()))
			case *ast.SelectorExpr:
				if n.Sel.Name == "Spec" || n.Sel.Name == "DesktopSpec" {
					t.Errorf("%s knows a spec", set.Position(n.Pos()))
				}
			}
			return true
		})
		if strings.HasSuffix(name, "_test.go") {
			t.Errorf("%s is no translation", name)
		}
	}
}
