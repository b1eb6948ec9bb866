package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const goodJSON = `{"schema":1,"architecture":"amd64","kernel":{"version":"6","cmdline":"quiet"},"config":{"env":["A=b"]},
"files":{"kernel":{"size":1,"sha256":"` + zeroSum + `"},"initramfs.cpio":{"size":1,"sha256":"` + zeroSum + `"},"rootfs.erofs":{"size":1,"sha256":"` + zeroSum + `"}}}`

const zeroSum = "0000000000000000000000000000000000000000000000000000000000000000"

func TestParse(t *testing.T) {
	tests := []struct {
		name, json string
		want       string // part of the error; "" for none
	}{
		{"good", goodJSON, ""},
		{"empty", "", "not a valid image"},
		{"later schema", `{"schema":2,"architecture":["changed"]}`, "schema 2"},
		{"no schema", `{}`, "schema 0"},
		{"unknown architecture", strings.Replace(goodJSON, "amd64", "mips", 1), `architecture "mips"`},
		{"file outside", strings.Replace(goodJSON, `"kernel":{"size"`, `"../kernel":{"size"`, 1), "kernel"},
		{"malformed digest", strings.Replace(goodJSON, zeroSum, "xyz", 1), "malformed"},
		{"too long", strings.Repeat(" ", maxMetadata+1), "longer than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			img, err := Parse(strings.NewReader(tt.json))
			if tt.want == "" {
				if err != nil || img.Config.Env[0] != "A=b" {
					t.Errorf("Parse() = %+v, %v", img, err)
				}
				return
			}
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Parse() = %v, want ErrInvalid with %q", err, tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(goodJSON)
	f.Fuzz(func(t *testing.T, s string) {
		img, err := Parse(strings.NewReader(s))
		if err != nil {
			return
		}
		for name := range img.Files {
			if filepath.Base(name) != name {
				t.Fatalf("file %q", name)
			}
		}
	})
}

// fill makes an image of a directory; content tells images apart.
func fill(content string) func(dir string) error {
	return func(dir string) error {
		img := &Image{Schema: Schema, Architecture: "amd64", Files: map[string]File{}}
		for _, name := range []string{Kernel, Initramfs, Rootfs} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				return err
			}
			f, err := Digest(context.Background(), filepath.Join(dir, name))
			if err != nil {
				return err
			}
			img.Files[name] = f
		}
		return img.Write(dir)
	}
}

func install(t *testing.T, s *Store, name, content string) {
	t.Helper()
	if err := s.Install(context.Background(), name, fill(content)); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, h *Handle) string {
	t.Helper()
	b, err := os.ReadFile(h.Path(Rootfs))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestInstallReplacesAtOnceOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	s := NewStore(dir)
	if _, err := s.Open("a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Open() of nothing = %v, want ErrNotFound", err)
	}
	install(t, s, "a", "old")
	failure := errors.New("no more")
	err := s.Install(context.Background(), "a", func(dir string) error {
		_ = os.WriteFile(filepath.Join(dir, Kernel), []byte("half"), 0o644)
		return failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("Install() = %v, want the failure", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Install(ctx, "a", fill("cancelled")); !errors.Is(err, context.Canceled) {
		t.Errorf("Install() = %v, want context.Canceled", err)
	}
	h, err := s.Open("a")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if got := content(t, h); got != "old" {
		t.Errorf("the image is %q after failures, want the old one", got)
	}
	install(t, s, "a", "new") // while the old one is open
	h2, err := s.Open("a")
	if err != nil {
		t.Fatal(err)
	}
	defer h2.Close()
	if got := content(t, h2); got != "new" {
		t.Errorf("the image is %q, want the new one", got)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 {
		t.Errorf("the store holds %v, want the image alone", entries)
	}
}

// What a machine that went down in the middle left of many large images is in
// nobody's way, and one call removes it: it is counted as what is on the disk.
func TestManyStaleDirectories(t *testing.T) {
	dir := t.TempDir()
	s := NewStore(dir)
	install(t, s, "kept", "kept")
	const n, apparent = 36, 2 << 30
	for i := range n {
		tmp := filepath.Join(dir, fmt.Sprintf("%simg-%d", tempPrefix, i), "image")
		if err := os.MkdirAll(tmp, 0o700); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 { // made before it was locked, or after
			if err := os.WriteFile(filepath.Join(filepath.Dir(tmp), "lock"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(tmp, Rootfs), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(tmp, Rootfs), apparent); err != nil {
			t.Fatal(err)
		}
	}
	install(t, s, "img", "new") // the next images create
	names, err := s.List()
	if diff := cmp.Diff([]string{"img", "kept"}, names); diff != "" || err != nil {
		t.Errorf("List(): %v\n%s", err, diff)
	}
	if limit, err := s.MaxSize(0); err != nil || limit < 1<<20 {
		t.Errorf("MaxSize() beside them = %d, %v", limit, err)
	}
	if got := s.Unfinished(); got.Count != n || got.Bytes > n<<20 {
		t.Errorf("Unfinished() = %+v, want %d of a few kB each", got, n)
	}
	if got, err := s.Clean(); got.Count != n || err != nil {
		t.Errorf("Clean() = %+v, %v, want %d", got, err, n)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 2 || s.Stale() != 0 {
		t.Errorf("left: %v", entries)
	}
}

func TestRemoveRefusesWhatIsInUse(t *testing.T) {
	s := NewStore(t.TempDir())
	install(t, s, "a", "x")
	// Another process, as its user would be.
	cmd := exec.Command("flock", "--shared", filepath.Join(s.dir, "a", metadata), "-c", "echo locked; read x")
	stdin, _ := cmd.StdinPipe()
	stdout, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = stdout.Read(make([]byte, 6))
	err := s.Remove("a")
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "process ") {
		t.Errorf("Remove() = %v, want ErrInUse with the process", err)
	}
	stdin.Close()
	_ = cmd.Wait()
	if err := s.Remove("a"); err != nil {
		t.Errorf("Remove() = %v", err)
	}
	if names, err := s.List(); len(names) != 0 || err != nil {
		t.Errorf("List() = %v, %v, want nothing", names, err)
	}
}

// TestMain is also a process that makes an image and never ends.
func TestMain(m *testing.M) {
	if dir := os.Getenv("TEST_STORE"); dir != "" {
		err := NewStore(dir).Install(context.Background(), "dead", func(string) error {
			fmt.Println("making")
			select {}
		})
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestCleanRemovesWhatTheDeadLeft(t *testing.T) {
	s := NewStore(t.TempDir())
	install(t, s, "a", "x")
	alive, err := s.makeTemp("alive")
	if err != nil {
		t.Fatal(err)
	}
	defer alive.remove()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TEST_STORE="+s.dir)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "making\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	if n, err := s.Clean(); n.Count != 0 || err != nil {
		t.Errorf("Clean() = %d, %v while both makers live, want 0", n, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	dirs, _ := filepath.Glob(filepath.Join(s.dir, tempPrefix+"*"))
	for _, dir := range dirs {
		if dir != alive.dir {
			if err := os.WriteFile(filepath.Join(dir, "half"), make([]byte, 1<<20), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n, err := s.Clean(); n.Count != 1 || n.Bytes < 1<<20 || err != nil {
		t.Errorf("Clean() = %d, %v, want 1", n, err)
	}
	if !exists(alive.dir) {
		t.Error("Clean removed what a process is making")
	}
	if names, _ := s.List(); len(names) != 1 {
		t.Errorf("List() = %v, want the image", names)
	}
	if _, err := NewStore(filepath.Join(s.dir, "none")).Clean(); err != nil {
		t.Errorf("Clean() of no store = %v", err)
	}
}

// Clean takes no directory that is only just being made.
func TestCleanBesideMakers(t *testing.T) {
	s := NewStore(t.TempDir())
	var makers sync.WaitGroup
	for range 4 {
		makers.Go(func() {
			for range 200 {
				tmp, err := s.makeTemp("a")
				if err != nil {
					t.Error(err)
					return
				}
				if !exists(filepath.Join(tmp.dir, "lock")) {
					t.Error("Clean removed what a process is making")
				}
				tmp.remove()
			}
		})
	}
	done := make(chan struct{})
	go func() { makers.Wait(); close(done) }()
	for {
		// It may well help to remove what its maker is removing.
		if _, err := s.Clean(); err != nil {
			t.Errorf("Clean() = %v", err)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

// What Open reads is what it locks, also while the image is being replaced and
// removed.
func TestOpenBesideInstall(t *testing.T) {
	s := NewStore(t.TempDir())
	install(t, s, "a", "0")
	done := make(chan error, 1)
	go func() {
		for n := range 40 {
			if err := s.Install(context.Background(), "a", fill(strings.Repeat("x", 1+n%7))); err != nil {
				done <- err
				return
			}
			if n%10 == 0 {
				if err := s.Remove("a"); err != nil && !errors.Is(err, ErrInUse) {
					done <- err
					return
				}
			}
		}
		done <- nil
	}()
	for {
		h, err := s.Open("a")
		if err == nil {
			locked, err := Parse(h.lock)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(locked, h.Image); diff != "" {
				t.Fatalf("the image that is locked is not the one read (-locked +read):\n%s", diff)
			}
			h.Close()
		} else if !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
	}
}

// What is published of an image does not say where on whose machine its input was.
func TestPublicSource(t *testing.T) {
	for reference, want := range map[string]string{
		"oci:./debian:latest":                       "oci:debian:latest",
		"oci:/home/me/debian":                       "oci:debian",
		"oci-archive:/home/me/debian.tar:v1":        "oci-archive:debian.tar:v1",
		"docker-archive:../../me/debian.tar":        "docker-archive:debian.tar",
		"docker-archive:/me/d.tar:x.test:5000/a:v1": "docker-archive:d.tar:x.test:5000/a:v1",
		"docker-archive:/me/a:b/d.tar":              "docker-archive:d.tar",
		"registry.example.test:5000/team/deb:v1":    "registry.example.test:5000/team/deb:v1",
		"mmdebstrap:bookworm,minbase":               "mmdebstrap:bookworm,minbase",
		"debian":                                    "debian",
	} {
		if got := (Source{Reference: reference}).Public(); got != want {
			t.Errorf("Public() of %q = %q, want %q", reference, got, want)
		}
	}
}

// An image's files can be read by the user of root's virtual machines, whatever
// the umask of who made it.
func TestModesOfFiles(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	s := NewStore(filepath.Join(t.TempDir(), "images"))
	install(t, s, "a", "content")
	for name, want := range map[string]os.FileMode{"": os.ModeDir | 0o700, "a": os.ModeDir | 0o700, "a/" + metadata: FileMode} {
		if info, err := os.Stat(filepath.Join(s.dir, name)); err != nil || info.Mode() != want {
			t.Errorf("%q has mode %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
}
