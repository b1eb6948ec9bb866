package supervise

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A connection begins with its kind, whoever speaks first.
func TestDialBeginsWithTheKind(t *testing.T) {
	for _, supervisorFirst := range []bool{false, true} {
		dir := t.TempDir()
		l, err := Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		conn, err := Dial(t.Context(), dir, 'k')
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		there, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer there.Close()
		heard := make(chan string, 1)
		if supervisorFirst {
			go func() {
				b := make([]byte, 5)
				_, _ = io.ReadFull(conn, b)
				heard <- string(b)
			}()
		} else if n, err := conn.Write([]byte("ask")); n != 3 || err != nil {
			t.Errorf("Write() = %d, %v", n, err)
		}
		first := make([]byte, 1)
		if _, err := io.ReadFull(there, first); err != nil || first[0] != 'k' {
			t.Fatalf("it begins with %q, %v", first, err)
		}
		if supervisorFirst {
			if _, err := there.Write([]byte("hello")); err != nil || <-heard != "hello" {
				t.Errorf("the supervisor was not heard: %v", err)
			}
			if n, err := conn.Write([]byte("ask")); n != 3 || err != nil {
				t.Errorf("Write() = %d, %v", n, err)
			}
		}
		rest := make([]byte, 3)
		if _, err := io.ReadFull(there, rest); err != nil || string(rest) != "ask" {
			t.Errorf("then comes %q, %v", rest, err)
		}
	}
}

// Where open files have no names, a path that is too long for a socket is told, with what
// helps; a Mac's directory for temporary files makes it so.
func TestLongPaths(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("x", maxSocketPath))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := socketAddress(dir, filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "set LUMINA_HOME to a shorter one") {
		t.Errorf("%v", err)
	}
	if err := CheckDir(dir); err != nil {
		t.Errorf("where open files have names: %v", err)
	}
	if n := len("/tmp/lumina-check.XXXXXX/home/sessions/00000000-0000-4000-8000-000000000000/" + socketName); n > maxSocketPath {
		t.Errorf("release/mac-check.sh's sessions have paths of %d bytes", n)
	}
}
