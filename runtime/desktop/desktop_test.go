package desktop

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// firmware is a driver without machines.
type firmware struct {
	vm.DesktopDriver
	err error
}

func (f firmware) WriteVariables(_ string, _ bool, to *os.File) error {
	_, err := to.WriteString("variables")
	return errors.Join(err, f.err)
}

func create(t *testing.T, s *Store, name string) *Manifest {
	t.Helper()
	m, err := s.Create(context.Background(), firmware{}, Manifest{Name: name, Architecture: "amd64"}, "")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCreate(t *testing.T) {
	s := NewStore(t.TempDir())
	a, b := create(t, s, "a"), create(t, s, "b")
	if a.MAC == b.MAC || a.ID == b.ID {
		t.Errorf("the same: %+v, %+v", a, b)
	}
	mac, err := net.ParseMAC(a.MAC)
	if err != nil || mac[0]&3 != 2 {
		t.Errorf("address %q is not a locally administered one of one machine: %v", a.MAC, err)
	}
	if _, err := s.Create(context.Background(), firmware{}, Manifest{Name: "a"}, ""); !errors.Is(err, ErrExists) {
		t.Errorf("a second one of the name: %v", err)
	}
	full := errors.New("disk full")
	if _, err := s.Create(context.Background(), firmware{err: full}, Manifest{Name: "c"}, ""); !errors.Is(err, full) {
		t.Errorf("on a full disk: %v", err)
	}
	// What a process left that was killed is nobody's desktop, and goes.
	if err := os.Mkdir(filepath.Join(s.dir, unfinished+"dead"), 0o700); err != nil {
		t.Fatal(err)
	}
	create(t, s, "d")
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 4 { // and .lock
		t.Errorf("there are %v", entries)
	}
	if info, err := os.Stat(filepath.Join(s.path(a.ID), diskFile)); err != nil || info.Size() != DefaultDiskSize {
		t.Errorf("the disk: %v, %v", info, err)
	}
	if m, err := s.Find(a.ID[:8]); err != nil || m.Name != "a" {
		t.Errorf("by its identifier: %v, %v", m, err)
	}
	if _, err := s.Find(a.ID[:3]); !errors.Is(err, ErrNotFound) {
		t.Errorf("by three characters of it: %v", err)
	}
	if _, err := s.Find("nobody"); !errors.Is(err, ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
	lock, err := s.hold(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove("a"); !errors.Is(err, ErrRunning) {
		t.Errorf("removing one that runs: %v", err)
	}
	lock.Close()
	if err := s.Remove("a"); err != nil {
		t.Error(err)
	}
}

// An older manifest gets what it lacks, and keeps what it has.
func TestOlderManifest(t *testing.T) {
	s := NewStore(t.TempDir())
	const id = "0f8fad5b-d9cb-469f-a165-70867728950e"
	dir := s.path(id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, manifestFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"id":"` + id + `","name":"old","osFamily":"linux","memoryBytes":1073741824,"colour":{"hex":"#fff"},"tags":[1,2]}`)
	if err := os.WriteFile(filepath.Join(dir, diskFile), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := s.Find("old")
	if err != nil {
		t.Fatal(err)
	}
	if m.Memory != 1<<30 || m.CPUs != DefaultCPUs || m.DiskSize != 4096 || m.Network != network.ModeNAT || m.Variant != "generic" ||
		m.SchemaVersion != SchemaVersion || m.Created.IsZero() || m.MAC != macOf(id) {
		t.Errorf("read as %+v", m)
	}
	if err := m.write(dir); err != nil {
		t.Fatal(err)
	}
	again, err := s.Find("old")
	if err != nil {
		t.Fatal(err)
	}
	if again.MAC != m.MAC || !again.Created.Equal(m.Created) {
		t.Errorf("read again as %+v", again)
	}
	var all map[string]any
	b, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := all["colour"].(map[string]any); !ok || c["hex"] != "#fff" || len(all["tags"].([]any)) != 2 {
		t.Errorf("fields of others are lost: %v", all)
	}
	for content, want := range map[string]string{
		`{"schemaVersion":99}`:        "version 99",
		`{"macAddress":"no address"}`: "no address",
		`{`:                           "unexpected end",
	} {
		write(content)
		if damaged, err := s.Damaged(); err != nil || len(damaged) != 1 || !strings.Contains(damaged[0].Error(), want) {
			t.Errorf("%s: %v, %v", content, damaged, err)
		}
	}
}

func TestKeys(t *testing.T) {
	got, err := chords("aB 1!\n-")
	want := [][]vm.Key{{"a"}, {"shift", "b"}, {"space"}, {"1"}, {"shift", "1"}, {"enter"}, {"-"}}
	if err != nil || !slices.EqualFunc(got, want, slices.Equal[[]vm.Key]) {
		t.Errorf("%v, %v", got, err)
	}
	var not Untypable
	if err := CheckText("é and ß, é again"); !errors.As(err, &not) || string(not) != "éß" || !strings.Contains(err.Error(), `"éß"`) {
		t.Errorf("é and ß have no keys: %v", err)
	}
	if err := CheckText(strings.Repeat("a", maxText+1)); err == nil {
		t.Error("a text without an end is typed")
	}
	if got, err := chords("a\r\nb"); err != nil || len(got) != 3 {
		t.Errorf("a line of Windows: %v, %v", got, err)
	}
	for _, c := range Chords() {
		if _, err := ParseKeys(c.Keys); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
	if keys, err := ParseKeys("Ctrl+Alt+Delete"); err != nil || !slices.Equal(keys, []vm.Key{"ctrl", "alt", "delete"}) {
		t.Errorf("%v, %v", keys, err)
	}
	for _, s := range []string{"", "ctrl+", "nokey", "ab"} {
		if _, err := ParseKeys(s); err == nil {
			t.Errorf("%q is not a key", s)
		}
	}
	if len(plainKeys) != len(shiftedKeys) {
		t.Error("the keyboard's rows differ in length")
	}
}

// Each entry of the catalogue has a digest, which is not a placeholder.
func TestCatalog(t *testing.T) {
	all, err := Catalog()
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, o := range all {
		if ids[o.ID] {
			t.Errorf("%s is there twice", o.ID)
		}
		ids[o.ID] = true
		if err := CheckDigest(o.SHA256); err != nil {
			t.Errorf("%s: %v", o.ID, err)
		}
		if !strings.HasPrefix(o.URL, "https://") || !strings.HasPrefix(o.Checksums, "https://") || o.Name == "" || o.Family == "" || o.Variant == "" {
			t.Errorf("%+v", o)
		}
		if o.Architecture != "amd64" && o.Architecture != "arm64" {
			t.Errorf("%s: architecture %q", o.ID, o.Architecture)
		}
	}
	for _, s := range []string{"", "abc", strings.Repeat("0", 64), strings.Repeat("f", 64), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"} {
		if err := CheckDigest(s); !errors.Is(err, ErrDigest) {
			t.Errorf("%q: %v", s, err)
		}
	}
	if err := Verify(context.Background(), strings.NewReader("hello"), "2CF24DBA5FB0A30E26E83B2AC5B9E29E1B161E5C1FA7425E73043362938B9824"); err != nil {
		t.Error(err)
	}
}

func TestCheckName(t *testing.T) {
	for name, want := range map[string]bool{"debian": true, "Ubuntu 24.04": true, "日本語": true,
		"": false, " a": false, "a ": false, "a/b": false, `a\b`: false, "-a": false, "a\nb": false, "a\x1b[2J": false, "a\u202eb": false, strings.Repeat("a", 129): false} {
		if err := CheckName(name); (err == nil) != want {
			t.Errorf("CheckName(%q) = %v", name, err)
		}
	}
}

// A variant is that of an architecture; a file's name is that of an ISO.
func TestFindOS(t *testing.T) {
	for arch, want := range map[string]string{"amd64": "ubuntu-24.04-amd64", "arm64": "ubuntu-24.04-server-arm64"} {
		if o, err := FindOS("ubuntu-24.04", arch); err != nil || o.ID != want {
			t.Errorf("ubuntu-24.04 for %s = %q, %v", arch, o.ID, err)
		}
		if o, err := FindOS("ubuntu-24.04-amd64", arch); err != nil || o.ID != "ubuntu-24.04-amd64" {
			t.Errorf("the identifier for %s = %q, %v", arch, o.ID, err)
		}
	}
	if _, err := FindOS("ubuntu-24.04", "riscv64"); err == nil || errors.Is(err, ErrNotInCatalog) || !strings.Contains(err.Error(), "amd64, arm64") {
		t.Errorf("another architecture: %v", err)
	}
	if _, err := FindOS("plan9", "amd64"); !errors.Is(err, ErrNotInCatalog) {
		t.Errorf("what is not in it: %v", err)
	}
	if o, ok := osOfFile("/tmp/debian-12.5.0-arm64-netinst.iso"); !ok || o.ID != "debian-12-arm64" {
		t.Errorf("a file of the catalogue's name: %q", o.ID)
	}
	for _, name := range []string{"x.iso", "windows11", ""} {
		if o, ok := osOfFile(name); ok {
			t.Errorf("file %q is %s", name, o.ID)
		}
	}
}
