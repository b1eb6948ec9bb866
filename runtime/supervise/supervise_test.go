package supervise

import (
	"io"
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
