// Package typecheck checks the types of Go packages for another system, files
// that use cgo among them, without a compiler for it: what C says is taken on
// trust.
package typecheck

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// listed is what go list says of a package.
type listed struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	CgoFiles   []string
	ImportMap  map[string]string
}

// Checker checks packages of one system.
type Checker struct {
	packages map[string]*listed
	checked  map[string]*types.Package
	files    *token.FileSet
	arch     string
	// Overlay replaces the content of files, by their full names.
	Overlay map[string]string
	// Own says of which packages errors count: the bodies of the functions of
	// others are not looked at.
	Own    func(importPath string) bool
	errors []error
}

// Load asks go list for packages and all that they import, from dir.
func Load(dir, goos, goarch string, patterns ...string) (*Checker, error) {
	cmd := exec.Command("go", append([]string{"list", "-deps", "-json=ImportPath,Dir,GoFiles,CgoFiles,ImportMap"}, patterns...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing packages for %s/%s: %w: %s", goos, goarch, err, strings.TrimSpace(stderr.String()))
	}
	c := &Checker{packages: map[string]*listed{}, checked: map[string]*types.Package{}, files: token.NewFileSet(), arch: goarch}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(listed)
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			return c, nil
		} else if err != nil {
			return nil, err
		}
		c.packages[p.ImportPath] = p
	}
}

// Check checks every loaded package that is Own, and returns what is wrong.
func (c *Checker) Check() error {
	for path := range c.packages {
		if c.Own(path) {
			if _, err := c.load(path); err != nil {
				return err
			}
		}
	}
	return errors.Join(c.errors...)
}

func (c *Checker) load(path string) (*types.Package, error) {
	if path == "unsafe" {
		return types.Unsafe, nil
	}
	if p := c.checked[path]; p != nil {
		return p, nil
	}
	l := c.packages[path]
	if l == nil {
		return nil, fmt.Errorf("package %s is not listed", path)
	}
	own := c.Own(path)
	var files []*ast.File
	for _, name := range append(append([]string{}, l.GoFiles...), l.CgoFiles...) {
		full := filepath.Join(l.Dir, name)
		var source any
		if text, ok := c.Overlay[full]; ok {
			source = text
		}
		f, err := parser.ParseFile(c.files, full, source, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	config := types.Config{
		FakeImportC:      true,
		IgnoreFuncBodies: !own,
		Importer:         importer(func(name string) (*types.Package, error) { return c.load(l.resolve(name)) }),
		Sizes:            types.SizesFor("gc", c.arch),
		Error: func(err error) {
			// A type of C's that another package returns is not known here.
			if own && !strings.Contains(err.Error(), "(value with invalid type)") {
				c.errors = append(c.errors, err)
			}
		},
	}
	p, _ := config.Check(path, c.files, files, nil) // its errors have been told
	c.checked[path] = p
	return p, nil
}

func (l *listed) resolve(name string) string {
	if real, ok := l.ImportMap[name]; ok {
		return real
	}
	return name
}

type importer func(string) (*types.Package, error)

func (i importer) Import(path string) (*types.Package, error) { return i(path) }
