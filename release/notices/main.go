// Notices prints THIRD_PARTY_NOTICES.md: what else than Lumina is in its program,
// with the licences of all of it. Go modules come from "go list", for every
// platform that releases are made for, and their licences from the module cache;
// those of the app's page from the folder that make app fills; the kernel from its version file.
//
//	go run ./release/notices > release/licences/out/THIRD_PARTY_NOTICES.md
package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// platforms are those that releases are made for. The macOS driver needs cgo.
var platforms = []struct{ programs, environment []string }{
	{[]string{"./cmd/lumina", "./initramfs/cmd/init"}, []string{"GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0"}},
	{[]string{"./cmd/lumina", "./initramfs/cmd/init"}, []string{"GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0"}},
	{[]string{"./cmd/lumina"}, []string{"GOOS=darwin", "GOARCH=arm64", "CGO_ENABLED=1"}},
}

// part is one piece of other people's work.
type part struct {
	name, version string
	licences      []licence
}

// licence is one file of a part.
type licence struct{ name, text string }

func main() {
	if err := run(".", os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "notices: %v\n", err)
		os.Exit(1)
	}
}

// run writes the notices of the module in dir.
func run(dir string, w io.Writer) error {
	modules, err := modules(dir)
	if err != nil {
		return err
	}
	kernel, err := kernel(filepath.Join(dir, "kernel-config/version"))
	if err != nil {
		return err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `# Third-party notices

Lumina is under the MIT licence, see LICENSE. Its program also has what is listed
here, under the licences below. Made by `+"`make notices`"+`; do not edit.

## The Linux kernel

%s
## Software in the program

| what | version | licence files |
| --- | --- | --- |
`, kernel)
	app, err := app(filepath.Join(dir, "runtime/app/page"))
	if err != nil {
		return err
	}
	parts := append(modules, app...)
	for _, p := range parts {
		names := make([]string, len(p.licences))
		for i, l := range p.licences {
			names[i] = l.name
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", p.name, p.version, strings.Join(names, ", "))
	}
	fmt.Fprint(&b, "\n## Licences\n")
	for _, group := range byText(parts) {
		fmt.Fprintf(&b, "\n### %s\n\n```text\n%s\n```\n", strings.Join(group.of, ", "), group.text)
	}
	_, err = w.Write(b.Bytes())
	return err
}

// group is one licence text and the parts that have it.
type group struct {
	text string
	of   []string
}

// byText lists each text once.
func byText(parts []part) []group {
	var groups []group
	for _, p := range parts {
		for _, l := range p.licences {
			i := slices.IndexFunc(groups, func(g group) bool { return sameWords(g.text, l.text) })
			if i < 0 {
				i = len(groups)
				groups = append(groups, group{text: l.text})
			}
			if label := p.name + " (" + l.name + ")"; !slices.Contains(groups[i].of, label) {
				groups[i].of = append(groups[i].of, label)
			}
		}
	}
	return groups
}

// sameWords compares two texts but for the breaks of their lines.
func sameWords(a, b string) bool {
	return a == b || slices.Equal(strings.Fields(a), strings.Fields(b))
}

// modules are the Go modules that programs are linked with.
func modules(dir string) ([]part, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("finding Go: %w", err)
	}
	parts := []part{{name: "The Go standard library", version: "as of go.mod", licences: nil}}
	if parts[0].licences, err = licences(strings.TrimSpace(string(root))); err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	for _, platform := range platforms {
		cmd := exec.Command("go", append([]string{"list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}\t{{.Version}}\t{{.Dir}}{{end}}{{end}}"}, platform.programs...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), platform.environment...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("listing modules for %s: %w", strings.Join(platform.environment, " "), err)
		}
		for line := range strings.Lines(string(out)) {
			fields := strings.Split(strings.TrimSpace(line), "\t")
			if len(fields) != 3 || seen[fields[0]] {
				continue
			}
			seen[fields[0]] = true
			p := part{name: fields[0], version: fields[1]}
			if p.licences, err = licences(fields[2]); err != nil {
				return nil, err
			}
			parts = append(parts, p)
		}
	}
	slices.SortFunc(parts[1:], func(a, b part) int { return cmp.Compare(a.name, b.name) })
	return parts, nil
}

// isLicence matches the files that must be passed on. Lists of authors need not be;
// a licence of the documentation is not one of the program.
var isLicence = regexp.MustCompile(`(?i)^(licen[cs]e|unlicen[cs]e|copying|notice|patents)([.-].*)?$`)

// licences reads the licence files of a folder; none at all is an error.
func licences(dir string) ([]licence, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading licences: %w", err)
	}
	var found []licence
	for _, e := range entries {
		if !e.Type().IsRegular() || !isLicence.MatchString(e.Name()) || slices.Contains([]string{".go", ".docs"}, filepath.Ext(e.Name())) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("reading licences: %w", err)
		}
		found = append(found, licence{e.Name(), clean(b)})
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%q has no licence file: it cannot be passed on", dir)
	}
	return found, nil
}

// clean drops what differs between copies of one text and is not text.
func clean(b []byte) string {
	text := strings.TrimPrefix(string(b), "\ufeff")
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " \t\f")
	}
	return strings.Trim(strings.Join(lines, "\n"), "\n")
}

// app are the packages of npm that the app's page is bundled of.
func app(dir string) (parts []part, err error) {
	lock, err := os.ReadFile(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"@novnc/novnc", "@xterm/addon-fit", "@xterm/addon-web-links", "@xterm/xterm"} {
		version := regexp.MustCompile(`"node_modules/` + name + `": \{\s*"version": "([^"]+)"`).FindSubmatch(lock)
		if version == nil {
			return nil, fmt.Errorf("package-lock.json does not pin %s", name)
		}
		p, below := part{name: name, version: string(version[1])}, []string{"."}
		kept := filepath.Join(dir, "out/licences", name)
		if name == "@novnc/novnc" {
			p.name, below = "@novnc/novnc, and pako in it", []string{".", "vendor/pako"}
		}
		for _, sub := range below {
			found, err := licences(filepath.Join(kept, sub))
			if err != nil {
				return nil, fmt.Errorf("%s, which make app fetches: %w", name, err)
			}
			for _, l := range found {
				l.name = filepath.Join(sub, l.name)
				p.licences = append(p.licences, l)
			}
		}
		// noVNC's licence names this file for the holders of the copyright.
		if authors, err := os.ReadFile(filepath.Join(kept, "AUTHORS")); err == nil {
			p.licences = append(p.licences, licence{"AUTHORS", clean(authors)})
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// kernel is the offer that goes with the kernel's licence.
func kernel(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	values := make(map[string]string)
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[name] = value
		}
	}
	for _, name := range []string{"version", "package", "sha256"} {
		if values[name] == "" {
			return "", fmt.Errorf("%s names no %s", file, name)
		}
	}
	return fmt.Sprintf(`Lumina's program and its images contain Linux %s, a program of its own that runs
in the guest, under the GNU General Public License, version 2 only, with the
syscall note of its authors. Its complete source is:

- Debian's package `+"`%s`"+`, whose archive has the SHA-256
  `+"`%s`"+`;
- the patches, configuration and build script in `+"`kernel-config/`"+` of Lumina's
  source, at the version that `+"`lumina version`"+` prints.

Together they build the same bytes. Who received a kernel with Lumina and cannot
get that source gets it, for at least three years from then, from Lumina's authors
for no more than the cost of sending it: ask by an issue in Lumina's repository.

Images also hold the software of the system that they were made from. Its licences
are in the image, in a Debian at `+"`/usr/share/doc/*/copyright`"+`, and its sources at
the distribution's servers; a release lists every package in its SBOM.
`, values["version"], values["package"], values["sha256"]), nil
}
