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

	"github.com/abdul-abdi/lumina/builder/erofs"
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

// writeFiles writes a recipe's files as a layer's tar archive, the same each time. They
// go where the links of the root below lead, and what leads to them stays as it is.
func writeFiles(files []recipe.File, below *erofs.Inode, w io.Writer) error {
	t := tar.NewWriter(w)
	added := map[string]*tar.Header{}
	at := func(name string) (mode uint32, target string) {
		if h := added[name]; h != nil {
			return map[byte]uint32{tar.TypeDir: erofs.TypeDir, tar.TypeReg: erofs.TypeRegular, tar.TypeSymlink: erofs.TypeSymlink}[h.Typeflag], h.Linkname
		}
		if i := below.Lookup(name); i != nil {
			return i.Mode, i.Target
		}
		return 0, ""
	}
	write := func(name string, h *tar.Header) error {
		added[name] = h
		h.Name, h.Format = name, tar.FormatPAX
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		return t.WriteHeader(h)
	}
	for _, f := range files {
		mode, err := f.Permissions()
		if err != nil {
			return err
		}
		dir, err := erofs.Resolve(path.Dir(path.Clean(f.Path)), at)
		if err != nil {
			return err
		}
		for n, part := 0, ""; dir != "." && part != dir; n++ {
			part = strings.Join(strings.Split(dir, "/")[:n+1], "/")
			switch mode, _ := at(part); mode & erofs.TypeMask {
			case erofs.TypeDir, 0:
			default:
				return fmt.Errorf("file %s: /%s is not a directory", f.Path, part)
			}
			if added[part] == nil {
				if err := write(part, leading(below.Lookup(part))); err != nil {
					return err
				}
			}
		}
		name := path.Join(dir, path.Base(f.Path))
		if mode, _ := at(name); mode&erofs.TypeMask == erofs.TypeDir {
			return fmt.Errorf("file %s: there is a directory", f.Path)
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(f.Content)), Uid: f.UID, Gid: f.GID, ModTime: time.Unix(0, 0)}
		if f.Link != "" {
			h.Typeflag, h.Linkname, h.Mode, h.Size = tar.TypeSymlink, f.Link, 0o777, 0
		}
		if err := write(name, h); err != nil {
			return fmt.Errorf("file %s: %w", f.Path, err)
		}
		if _, err := io.WriteString(t, f.Content); err != nil {
			return err
		}
	}
	return t.Close()
}

// leading is a directory that leads to a file; i is what the root has, nil: nothing.
func leading(i *erofs.Inode) *tar.Header {
	if i == nil {
		return &tar.Header{Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(0, 0)}
	}
	h := &tar.Header{Typeflag: tar.TypeDir, Mode: int64(i.Mode & 0o7777), Uid: int(i.UID), Gid: int(i.GID), ModTime: time.Unix(i.Seconds, int64(i.Nanos))}
	setXattrs(h, i.Xattrs)
	return h
}
