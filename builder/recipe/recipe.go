// Package recipe reads descriptions of images: recipes/*.yaml. recipes/schema.json
// is the same in JSON Schema.
package recipe

import (
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"github.com/abdul-abdi/lumina/builder/reference"
	"github.com/abdul-abdi/lumina/builder/strictyaml"
	kernelconfig "github.com/abdul-abdi/lumina/kernel-config"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// Recipe describes an image.
type Recipe struct {
	Name        string   `yaml:"-"` // how errors call it
	Description string   `yaml:"description"`
	Tags        []string `yaml:"tags"`
	// Base is what images create --from takes. In its place there may be a
	// Dockerfile, which says itself what it is made from.
	Base       string      `yaml:"base"`
	Dockerfile *Dockerfile `yaml:"dockerfile"`
	// Packages are the base's distribution's.
	Packages []string          `yaml:"packages"`
	Files    []File            `yaml:"files"`
	Copy     []Copy            `yaml:"copy"`
	Env      map[string]string `yaml:"env"`
	User     string            `yaml:"user"`
	Workdir  string            `yaml:"workdir"`
	Cmd      []string          `yaml:"cmd"`
	Kernel   Kernel            `yaml:"kernel"`
	// Init is who is PID 1: "lumina" or "systemd", the image's own; the base's
	// when empty.
	Init string `yaml:"init"`
	// Run are commands for the image's shell, each a step.
	Run []string `yaml:"run"`
	// DiskSize is the default of a VM's own disk, such as 16GB.
	DiskSize string `yaml:"disk_size"`
	// Tests are run in one VM of the finished image, in order, before it is
	// installed.
	Tests []Test `yaml:"tests"`

	source []byte `yaml:"-"` // what it was read from
}

// Dockerfile is a Dockerfile whose result the rest of a recipe goes on from. Its
// paths are relative to the recipe.
type Dockerfile struct {
	File    string            `yaml:"file"`
	Context string            `yaml:"context"` // a directory; the recipe's own when empty
	Target  string            `yaml:"target"`
	Args    map[string]string `yaml:"args"`
}

// Copy is a file or a directory of the host's that the image gets.
type Copy struct {
	From string `yaml:"from"` // relative to the recipe
	// To is an absolute path. With a slash at its end it is a directory that a file
	// goes into. What is in a directory goes into the directory To.
	To     string   `yaml:"to"`
	Ignore []string `yaml:"ignore"` // as in .dockerignore
	Mode   string   `yaml:"mode"`   // octal, or u+x as for chmod(1); what they have when empty
	UID    int      `yaml:"uid"`
	GID    int      `yaml:"gid"`
}

// Kernel says what is different about the image's kernel.
type Kernel struct {
	// Fragment are options in the form of the kernel's .config. They win over
	// Lumina's; the kernel is built with them on this host.
	Fragment string `yaml:"fragment"`
	// Full asks for the kernel of kernel-config/full.config, which has every driver,
	// KVM and tracing, in place of the fast one.
	Full bool `yaml:"full"`
}

// File is a file of the image: it has Content, or is a symbolic link to Link.
type File struct {
	Path    string `yaml:"path"`
	Content string `yaml:"content"`
	Link    string `yaml:"link"`
	Mode    string `yaml:"mode"` // octal; 0644 when empty
	UID     int    `yaml:"uid"`
	GID     int    `yaml:"gid"`
}

// Test is a command with what it should do.
type Test struct {
	Command string `yaml:"command"`
	Exit    int    `yaml:"exit"`
	// Stdout is a regular expression that the output must match; "" for any.
	Stdout string `yaml:"stdout"`
	User   string `yaml:"user"`
}

// MaxSize bounds a recipe, in bytes.
const MaxSize = 1 << 20

// Parse reads a recipe; name is how errors call it.
func Parse(r io.Reader, name string) (*Recipe, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading recipe %s: %w", name, err)
	}
	if len(b) > MaxSize {
		return nil, fmt.Errorf("recipe %s: it is longer than %d bytes", name, MaxSize)
	}
	recipe := &Recipe{Name: name, source: b}
	var at *strictyaml.Error
	if err := strictyaml.Read(b, recipe); errors.As(err, &at) {
		return nil, fmt.Errorf("%s:%d: %s; see recipes/schema.json", name, at.Line, at.Message)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := recipe.check(); err != nil {
		var at *fieldError
		if errors.As(err, &at) {
			return nil, fmt.Errorf("%s:%d: %w", name, lineOf(b, at.path), err)
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return recipe, nil
}

// fieldError is what is wrong with a field.
type fieldError struct {
	path []any // keys and indices
	what string
}

func (e *fieldError) Error() string {
	var b strings.Builder
	for _, p := range e.path {
		if n, ok := p.(int); ok {
			fmt.Fprintf(&b, "[%d]", n)
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		fmt.Fprint(&b, p)
	}
	return b.String() + ": " + e.what
}

// At says what is wrong with a field, which is named by keys and indices, and on
// which line that is.
func (r *Recipe) At(err error, field ...any) error {
	at := &fieldError{field, err.Error()}
	return fmt.Errorf("%s:%d: %w", r.Name, lineOf(r.source, field), at)
}

// lineOf is the line of a field, or of the nearest thing around it.
func lineOf(b []byte, at []any) int {
	var doc yaml.Node
	if yaml.Unmarshal(b, &doc) != nil || len(doc.Content) == 0 {
		return 1
	}
	node := doc.Content[0]
	line := node.Line
	for _, p := range at {
		var next *yaml.Node
		switch p := p.(type) {
		case string:
			for i := 0; i+1 < len(node.Content); i += 2 {
				if node.Content[i].Value == p {
					next = node.Content[i+1]
					line = node.Content[i].Line
				}
			}
		case int:
			if node.Kind == yaml.ScalarNode && node.Style == yaml.LiteralStyle {
				return line + 1 + p // of a text, whose lines begin below its key
			}
			if p < len(node.Content) {
				next = node.Content[p]
				line = next.Line
			}
		}
		if next == nil {
			break
		}
		node = next
	}
	return line
}

var packageName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9.+:~=_-]*$`) })

func (r *Recipe) check() error {
	switch d := r.Dockerfile; {
	case r.Base == "" && d == nil:
		return &fieldError{[]any{"base"}, "it is missing: what is the image made from?"}
	case d == nil:
	case r.Base != "":
		return &fieldError{[]any{"base"}, "it and dockerfile exclude each other: a Dockerfile says FROM"}
	case d.File == "":
		return &fieldError{[]any{"dockerfile", "file"}, "it is missing"}
	}
	for i, c := range r.Copy {
		if c.From == "" {
			return &fieldError{[]any{"copy", i, "from"}, "it is missing"}
		}
		if !path.IsAbs(c.To) || c.To != "/" && path.Clean(c.To) != strings.TrimSuffix(c.To, "/") {
			return &fieldError{[]any{"copy", i, "to"}, fmt.Sprintf("%q is not an absolute, clean path", c.To)}
		}
		if !isID(c.UID) || !isID(c.GID) {
			return &fieldError{[]any{"copy", i}, "uid and gid are 0 to 4294967294"}
		}
	}
	if _, err := reference.Parse(r.Base); err != nil && r.Dockerfile == nil && image.CheckName(r.Base) != nil {
		return &fieldError{[]any{"base"}, err.Error()}
	}
	for i, p := range r.Packages {
		if !packageName().MatchString(p) {
			return &fieldError{[]any{"packages", i}, fmt.Sprintf("%q is not a package's name", p)}
		}
	}
	for i, f := range r.Files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" {
			return &fieldError{[]any{"files", i, "path"}, fmt.Sprintf("%q is not an absolute, clean path", f.Path)}
		}
		if f.Link != "" && (f.Content != "" || f.Mode != "") {
			return &fieldError{[]any{"files", i}, "a link has neither content nor mode"}
		}
		if _, err := f.Permissions(); err != nil {
			return &fieldError{[]any{"files", i, "mode"}, err.Error()}
		}
		if !isID(f.UID) || !isID(f.GID) {
			return &fieldError{[]any{"files", i}, "uid and gid are 0 to 4294967294"}
		}
	}
	for name := range r.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return &fieldError{[]any{"env"}, fmt.Sprintf("%q is not a variable's name", name)}
		}
	}
	for i, s := range r.Run {
		if strings.TrimSpace(s) == "" {
			return &fieldError{[]any{"run", i}, "it is empty"}
		}
	}
	var option *kernelconfig.FragmentError
	if errors.As(kernelconfig.CheckFragment(r.Kernel.Fragment), &option) {
		return &fieldError{[]any{"kernel", "fragment", option.Line}, option.Error()}
	}
	if err := image.CheckInit(r.Init); err != nil {
		return &fieldError{[]any{"init"}, err.Error()}
	}
	for i, t := range r.Tests {
		if t.Command == "" {
			return &fieldError{[]any{"tests", i}, "it has no command"}
		}
		if t.Exit < 0 || t.Exit > 255 {
			return &fieldError{[]any{"tests", i, "exit"}, fmt.Sprintf("%d: an exit code is 0 to 255", t.Exit)}
		}
		if _, err := regexp.Compile(t.Stdout); err != nil {
			return &fieldError{[]any{"tests", i, "stdout"}, err.Error()}
		}
	}
	return nil
}

// isID says whether a number can be that of a user or a group; 4294967295 means none.
func isID(n int) bool { return n >= 0 && int64(n) < 1<<32-1 }

// Permissions are a file's mode bits.
func (f File) Permissions() (int64, error) {
	if f.Mode == "" {
		return 0o644, nil
	}
	mode, err := strconv.ParseUint(strings.TrimPrefix(f.Mode, "0o"), 8, 12)
	if err != nil {
		return 0, fmt.Errorf("%q is not a mode such as \"0755\"", f.Mode)
	}
	return int64(mode), nil
}
