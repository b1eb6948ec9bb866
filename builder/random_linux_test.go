package builder

import (
	"archive/tar"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/abdul-abdi/lumina/builder/buildertest"
)

// randomLayers makes layers over few names, so that they meet. It knows enough
// of the tree to stay with what every tool takes.
func randomLayers(t testing.TB, seed uint64) [][]byte {
	r := rand.New(rand.NewPCG(seed, 1))
	name := func() string { return string("abcde"[r.IntN(5)]) }
	var layers [][]byte
	kinds := map[string]byte{"": tar.TypeDir} // what is at a path
	remove := func(path string) {
		for p := range kinds {
			if p == path || strings.HasPrefix(p, path+"/") {
				delete(kinds, p)
			}
		}
	}
	seconds := int64(1e9)
	for n := range 2 + r.IntN(4) {
		entries := []tar.Header{dir(".", 0o755)}
		fresh := map[string]bool{} // what this layer has
		for range 10 + r.IntN(60) {
			// Down from the root through directories that are there, which
			// get an entry: what implied ones are like is up to the tool.
			path, parent := "", ""
			for depth := r.IntN(4); ; depth-- {
				path = strings.TrimPrefix(parent+"/"+name(), "/")
				if depth <= 0 || kinds[path] != tar.TypeDir {
					break
				}
				parent = path
			}
			seconds++
			stamp := func(h *tar.Header) { h.ModTime, h.Uid = time.Unix(seconds, 0), r.IntN(3)*1000 }
			old, exists := kinds[path]
			switch kind := r.IntN(12); {
			case kind == 0 && exists && n > 0 && !fresh[path] && !hasPrefix(fresh, path+"/"):
				entries = append(entries, file(filepath.Join(parent, ".wh."+filepath.Base(path)), ""))
				remove(path)
			case kind == 1 && n > 0 && parent != "" && !hasPrefix(fresh, parent+"/"):
				entries = append(entries, file(parent+"/.wh..wh..opq", ""))
				for p := range kinds {
					if strings.HasPrefix(p, parent+"/") {
						delete(kinds, p)
					}
				}
				fresh[parent] = true
			case kind <= 4:
				entries = append(entries, with(dir(path, int64(0o700+r.IntN(0o100))), stamp))
				if old != tar.TypeDir {
					remove(path)
				}
				kinds[path], fresh[path] = tar.TypeDir, true
			case kind <= 6 && !exists:
				target := ""
				for p, k := range kinds {
					if k == tar.TypeReg && (target == "" || p < target) {
						target = p // the first: the same in every run
					}
				}
				if target == "" {
					continue
				}
				entries = append(entries, link(path, target))
				kinds[path], fresh[path] = tar.TypeReg, true
			case kind == 7:
				entries = append(entries, with(symlink(path, strings.Repeat("../", r.IntN(3))+name()), stamp))
				remove(path)
				kinds[path], fresh[path] = tar.TypeSymlink, true
			default:
				entries = append(entries, with(file(path, fmt.Sprint(strings.Repeat("content ", r.IntN(3)*700), seconds)), stamp))
				remove(path)
				kinds[path], fresh[path] = tar.TypeReg, true
			}
		}
		layers = append(layers, layer(t, entries...))
	}
	return layers
}

func hasPrefix(paths map[string]bool, prefix string) bool {
	for p := range paths {
		if strings.HasPrefix(p, prefix) {
			return true
		}
	}
	return false
}

// Layers that add, replace, link and remove at random come to the same tree as
// with umoci.
func TestRandomLayersAreWhatUmociUnpacks(t *testing.T) {
	for seed := range uint64(16) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			layout := writeLayout(t, "amd64", randomLayers(t, seed)...)
			root := create(t, options(t, "oci:"+layout))
			mount := t.TempDir()
			buildertest.Run(t, "mount", "-t", "erofs", "-o", "ro,loop", root, mount)
			defer buildertest.Run(t, "umount", mount)
			bundle := filepath.Join(t.TempDir(), "bundle")
			buildertest.Run(t, "umoci", "unpack", "--image", layout+":latest", bundle)
			if diff := cmp.Diff(tree(t, filepath.Join(bundle, "rootfs")), tree(t, mount)); diff != "" {
				t.Errorf("the trees differ (-umoci +lumina):\n%s", diff)
			}
		})
	}
}
