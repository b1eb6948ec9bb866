// Package reference tells the kinds of references to an image apart: a registry's, an
// OCI layout, an archive, packages. It looks only at the form. A path or a URL is refused,
// with the form to write instead, and never looked up as the name of a registry.
package reference

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	registry "github.com/google/go-containerregistry/pkg/name"
)

// Kind is where an image comes from.
type Kind string

// The kinds.
const (
	Registry      Kind = "docker"         // HOST/NAME:TAG, docker://…
	Layout        Kind = "oci"            // oci:DIR[:TAG]
	LayoutArchive Kind = "oci-archive"    // oci-archive:FILE[:TAG]
	DockerArchive Kind = "docker-archive" // docker-archive:FILE[:TAG]
	Packages      Kind = "mmdebstrap"     // mmdebstrap:SUITE[,VARIANT]
)

// Reference is what an image is made from.
type Reference struct {
	Kind Kind
	// Rest is what follows the kind: of a registry the whole name, with host, and
	// tag or digest; else as it was written.
	Rest string
}

// ErrInvalid is wrapped when a reference is of no kind that is known.
var ErrInvalid = errors.New("not an image reference")

// Forms are the forms of references, for help and errors.
const Forms = "NAME:TAG, HOST/NAME:TAG, NAME@sha256:DIGEST, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:TAG] or mmdebstrap:SUITE[,VARIANT]"

func invalid(s, why string, args ...any) error {
	return fmt.Errorf("%.300q is %w: %s", s, ErrInvalid, fmt.Sprintf(why, args...))
}

// Parse reads a reference.
func Parse(s string) (Reference, error) {
	switch {
	case s == "":
		return Reference{}, invalid(s, "it is empty; write %s", Forms)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return Reference{}, invalid(s, "it has characters that no reference has")
	}
	kind, rest, colon := strings.Cut(s, ":")
	if colon {
		switch k := Kind(kind); k {
		case Layout, LayoutArchive, DockerArchive, Packages:
			if rest == "" || strings.HasPrefix(rest, ":") {
				return Reference{}, invalid(s, "nothing follows %s:", kind)
			}
			if strings.HasPrefix(rest, "//") && !strings.HasPrefix(rest, "///") { // as Helm writes a registry's
				return Reference{}, notAddress(s, kind, rest[2:])
			}
			return Reference{k, rest}, nil
		}
	}
	if scheme, address, ok := strings.Cut(s, "://"); ok && scheme != "docker" {
		return Reference{}, notAddress(s, scheme, address)
	}
	if colon && otherTransports[kind] {
		return Reference{}, invalid(s, "%s: cannot be read; write oci:DIR or docker-archive:FILE (skopeo copy %s oci:DIR makes one)", kind, quote(s))
	}
	name := strings.TrimPrefix(s, "docker://")
	if why := looksLikePath(name); why != "" {
		return Reference{}, invalid(s, "it is %s; write %s", why, formOfPath(name))
	}
	full, err := parseRegistry(name)
	if err != nil {
		return Reference{}, invalid(s, "%v", err)
	}
	return Reference{Registry, full}, nil
}

// otherTransports are those that other container tools write before a colon, and
// that no image of a public registry is called.
var otherTransports = map[string]bool{
	"dir": true, "docker-daemon": true, "containers-storage": true, "ostree": true, "sif": true, "tarball": true, "atomic": true, "file": true,
}

func notAddress(s, scheme, address string) error {
	switch scheme {
	case "http", "https", "oci":
		return invalid(s, "it is an address; write that of an image without %s://, as HOST/NAME:TAG", scheme)
	case "file":
		return invalid(s, "it is an address; write %s", formOfPath(address))
	}
	return invalid(s, "%s:// cannot be read; write %s", scheme, Forms)
}

var (
	drive   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z]:(/|$)`) })
	archive = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?i)\.(tar|tgz|txz|tzst|zip|iso|img|qcow2|raw|vhd|erofs)$|\.tar\.[a-z0-9]+$`)
	})
)

// looksLikePath says as what s is a path; "" when it is none. An archive's name
// could be a registry's, too: with a tag it is.
func looksLikePath(s string) string {
	switch {
	case strings.HasPrefix(s, "/"), strings.HasPrefix(s, "~"), strings.HasPrefix(s, "."),
		strings.HasSuffix(s, "/"), strings.Contains(s, "/../"), strings.Contains(s, "/./"), strings.HasSuffix(s, "/.."), strings.HasSuffix(s, "/."):
		return "a path"
	case strings.Contains(s, `\`), drive().MatchString(s):
		return "a path of Windows"
	case archive().MatchString(s):
		return "the name of a file"
	case strings.HasSuffix(s, ".yaml"), strings.HasSuffix(s, ".yml"):
		return "the name of a file"
	}
	return ""
}

// formOfPath is how what is at a path is written as a reference.
func formOfPath(path string) string {
	dir := strings.TrimRight(path, "/")
	if dir == "" {
		dir = "/"
	}
	info, err := os.Stat(dir)
	switch {
	case strings.HasSuffix(path, ".yaml"), strings.HasSuffix(path, ".yml"):
		return "lumina images create NAME --recipe " + quote(path)
	case err == nil && info.IsDir(), err != nil && !archive().MatchString(path):
		return quote("oci:"+dir) + " for a directory with an OCI layout"
	}
	return quote("docker-archive:"+path) + " for an archive of docker save, " + quote("oci-archive:"+path) + " for one of an OCI layout"
}

// quote writes s for a shell, where it must.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-:@+,=", r)
	}
	if !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// The grammar of docker's references (distribution/reference): stricter than what
// the library below takes, which lets much through that no registry has.
var (
	hostForm = sync.OnceValue(func() *regexp.Regexp {
		const label = `[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?`
		return regexp.MustCompile(`^(?:` + label + `(?:\.` + label + `)*|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?$`)
	})
	nameForm = sync.OnceValue(func() *regexp.Regexp {
		const part = `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`
		return regexp.MustCompile(`^` + part + `(?:/` + part + `)*$`)
	})
	tagForm    = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`) })
	digestForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^sha256:[0-9a-f]{64}$`) })
)

// maxName bounds a repository's name, in bytes, as registries do.
const maxName = 255

// parseRegistry checks a name of a registry and returns it in full.
func parseRegistry(s string) (string, error) {
	name, digest, hasDigest := strings.Cut(s, "@")
	if hasDigest && !digestForm().MatchString(digest) {
		return "", fmt.Errorf("what follows the @ is not a digest: write NAME@sha256: and 64 hexadecimal digits")
	}
	if slash, colon := strings.LastIndexByte(name, '/'), strings.LastIndexByte(name, ':'); colon > slash {
		if tag := name[colon+1:]; !tagForm().MatchString(tag) {
			return "", fmt.Errorf("%q is not a tag: letters, digits, '.', '_' and '-', at most 128", tag)
		}
		name = name[:colon]
	}
	if host, rest, ok := strings.Cut(name, "/"); ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		if !hostForm().MatchString(host) {
			return "", fmt.Errorf("%q is not a registry's HOST or HOST:PORT; write %s", host, Forms)
		}
		name = rest
	}
	switch lower := strings.ToLower(name); {
	case nameForm().MatchString(name):
	case nameForm().MatchString(lower):
		return "", fmt.Errorf("names in a registry are lower-case: write %s", strings.Replace(s, name, lower, 1))
	default:
		return "", fmt.Errorf("%q is not a name in a registry: lower-case letters and digits, with single '.', '_', '-' or '/' between them; write %s", name, Forms)
	}
	ref, err := registry.ParseReference(s)
	if err != nil {
		return "", err
	}
	if n := len(ref.Context().RepositoryStr()); n > maxName {
		return "", fmt.Errorf("the name has %d bytes, at most %d can be", n, maxName)
	}
	return ref.Name(), nil
}

// String is the reference in the form that Parse takes.
func (r Reference) String() string {
	if r.Kind == Registry {
		if name, ok := strings.CutPrefix(r.Rest, "index.docker.io/"); ok {
			return "docker.io/" + name
		}
		return r.Rest
	}
	return string(r.Kind) + ":" + r.Rest
}

// Local says whether the image is in files of this host, and which one says what
// it is made of.
func (r Reference) Local() (path string, ok bool) {
	switch r.Kind {
	case Layout:
		path, _ = SplitTag(r.Rest)
		return filepath.Join(path, "index.json"), true
	case LayoutArchive, DockerArchive:
		path, _ = SplitTag(r.Rest)
		return path, true
	}
	return "", false
}

// SplitTag splits PATH:TAG, where either may have colons: the path is the
// longest one that exists.
func SplitTag(s string) (path, tag string) {
	for end := len(s); end > 0; end = strings.LastIndexByte(s[:end], ':') {
		if _, err := os.Stat(s[:end]); err == nil {
			return s[:end], strings.TrimPrefix(s[end:], ":")
		}
	}
	return s, ""
}

// maxReadable bounds the part of a name that a person reads, in bytes.
const maxReadable = 60

// Name is the name of the image that is kept of a reference: what a person
// recognizes of it, and the beginning of a digest of all of it, which no other
// reference has. debian, debian:latest and docker.io/library/debian are one
// reference, and so are two ways to a file.
func (r Reference) Name() (string, error) {
	whole, readable := r.Rest, r.Rest
	switch r.Kind {
	case Registry:
		readable = strings.TrimPrefix(strings.TrimPrefix(r.Rest, "index.docker.io/"), "library/")
		if name, digest, ok := strings.Cut(readable, "@sha256:"); ok {
			readable = name + "-" + digest[:12]
		}
	case Layout, LayoutArchive, DockerArchive:
		path, tag := SplitTag(r.Rest)
		absolute, err := filepath.Abs(path)
		if err != nil {
			return "", fmt.Errorf("finding %s: %w", path, err)
		}
		if real, err := filepath.EvalSymlinks(absolute); err == nil {
			absolute = real
		}
		whole, readable = absolute+"\x00"+tag, filepath.Base(absolute)
		if tag != "" {
			readable += "-" + tag
		}
	}
	sum := sha256.Sum256([]byte(string(r.Kind) + "\x00" + whole))
	name := plain(readable)
	if len(name) > maxReadable {
		name = name[:maxReadable]
	}
	return strings.Trim(name+"-"+hex.EncodeToString(sum[:6]), "-"), nil
}

// plain writes s with the characters that names have.
func plain(s string) string {
	s = strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '_' {
			return c
		}
		return '-'
	}, strings.ToLower(s))
	return strings.Trim(s, "-._")
}
