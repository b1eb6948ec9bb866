package spelling

import (
	"slices"
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	tags := []string{"", "12", "12-slim", "12.1", "bookworm", "bookworm-slim", "bullseye", "latest", "sid"}
	for word, want := range map[string]string{
		"bokworm": "bookworm", "bookworm-slin": "bookworm-slim bookworm", "12.10": "12.1 12", "bookworm": "bookworm bookworm-slim", "lastest": "latest",
		"13": "12", "": "", "none-of-them": "", "b": "",
	} {
		got := Nearest(word, tags, 2)
		if word == "b" {
			if len(got) != 2 {
				t.Errorf("Nearest(%q) = %q, want two", word, got)
			}
			continue
		}
		if !slices.Equal(got, strings.Fields(want)) && strings.Join(got, " ") != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}
