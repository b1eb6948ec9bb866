package vm

import (
	"fmt"
	"strings"
	"testing"
)

func TestTail(t *testing.T) {
	for _, tt := range []struct {
		writes []string
		want   string
	}{
		{nil, ""},
		{[]string{"abc"}, "abc"},
		{[]string{"abc", "defgh"}, "abcdefgh"},
		{[]string{"abc", "defghi"}, "bcdefghi"},
		{[]string{"abcdefgh", "abcdefgh", "i"}, "bcdefghi"},
		{[]string{"a", strings.Repeat("x", 100), "end"}, "xxxxxend"},
	} {
		tail := NewTail(8)
		for _, w := range tt.writes {
			if n, err := tail.Write([]byte(w)); n != len(w) || err != nil {
				t.Errorf("Write(%q) = %d, %v", w, n, err)
			}
		}
		if got := tail.String(); got != tt.want {
			t.Errorf("of %q it kept %q, want %q", tt.writes, got, tt.want)
		}
	}
}

// A guest that floods its console with a gigabyte costs the host no memory.
func TestTailFlood(t *testing.T) {
	tail := NewTail(16 << 10)
	chunk := []byte(strings.Repeat("0123456789abcde\n", 256))
	if allocs := testing.AllocsPerRun(1<<30/len(chunk), func() { _, _ = tail.Write(chunk) }); allocs != 0 {
		t.Errorf("a write allocates %v times", allocs)
	}
	fmt.Fprint(tail, "last words")
	if c := cap(tail.buf); c > 64<<10 {
		t.Errorf("it holds %d bytes", c)
	}
	if s := tail.String(); len(s) != 16<<10 || !strings.HasSuffix(s, "\nlast words") {
		t.Errorf("it kept %d bytes, ending in %q", len(s), s[len(s)-20:])
	}
}
