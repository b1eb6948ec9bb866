package builder

import (
	"archive/tar"
	"cmp"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/abdul-abdi/lumina/builder/recipe"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// Apply adds what a recipe says to options, but for its kernel, its tests and its
// disk size.
func (o *Options) Apply(r *recipe.Recipe) {
	o.Reference = r.Base
	o.Files = r.Files
	o.Packages = r.Packages
	if len(r.Packages) > 0 && !strings.HasPrefix(r.Base, debianPrefix) {
		o.Steps = append(o.Steps, installPackages(r.Packages))
	}
	o.Steps = append(o.Steps, r.Run...)
	o.Configure = func(img *image.Image) {
		img.Description, img.Tags = r.Description, r.Tags
		c := &img.Config
		for _, name := range slices.Sorted(maps.Keys(r.Env)) {
			c.Env = slices.DeleteFunc(slices.Clone(c.Env), func(e string) bool { return strings.HasPrefix(e, name+"=") })
			c.Env = append(c.Env, name+"="+r.Env[name])
		}
		img.Init = cmp.Or(r.Init, img.Init)
		if r.User != "" {
			c.User = r.User
		}
		if r.Workdir != "" {
			c.WorkingDir = r.Workdir
		}
		if r.Cmd != nil {
			c.Cmd, c.Entrypoint = r.Cmd, nil
		}
	}
}

// installPackages is a step for the package managers of common bases. The names
// are the recipe's, which knows no other characters than names have.
func installPackages(packages []string) string {
	list := strings.Join(packages, " ")
	return fmt.Sprintf(`if command -v apt-get >/dev/null; then
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends %[1]s && rm -rf /var/lib/apt/lists/*
elif command -v apk >/dev/null; then apk add --no-cache %[1]s
elif command -v dnf >/dev/null; then dnf install -y %[1]s && dnf clean all
else echo 'the base has no package manager that is known: apt-get, apk, dnf' >&2; exit 1; fi`, list)
}

// writeFiles writes a recipe's files as a layer's tar archive, the same each
// time.
func writeFiles(files []recipe.File, w io.Writer) error {
	t := tar.NewWriter(w)
	for _, f := range files {
		mode, err := f.Permissions()
		if err != nil {
			return err
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(path.Clean(f.Path), "/"), Mode: mode, Size: int64(len(f.Content)),
			Uid: f.UID, Gid: f.GID, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		if f.Link != "" {
			h.Typeflag, h.Linkname, h.Mode, h.Size = tar.TypeSymlink, f.Link, 0o777, 0
		}
		if err := t.WriteHeader(h); err != nil {
			return fmt.Errorf("file %s: %w", f.Path, err)
		}
		if _, err := io.WriteString(t, f.Content); err != nil {
			return err
		}
	}
	return t.Close()
}
