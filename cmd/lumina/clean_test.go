package main

import "testing"

// What is one is told as one.
func TestPlural(t *testing.T) {
	for n, want := range map[int]string{0: "0 unfinished images", 1: "1 unfinished image", 2: "2 unfinished images"} {
		if got := plural(n, "unfinished image"); got != want {
			t.Errorf("plural(%d) = %q, want %q", n, got, want)
		}
	}
}
