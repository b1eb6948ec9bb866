// Package spelling finds which word may have been meant.
package spelling

import (
	"cmp"
	"slices"
	"strings"
)

// Distance is how many letters have to be added, removed or exchanged to make one
// word of another; of long ones it is the difference of their lengths.
func Distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			same := before
			if a[i] != b[j] {
				same++
			}
			before = row[j+1]
			row[j+1] = min(same, row[j]+1, before+1)
		}
	}
	return row[len(b)]
}

// Nearest are the words of all that word may have been meant to be, at most n, the
// likeliest first.
func Nearest(word string, all []string, n int) []string {
	type candidate struct {
		word string
		far  int
	}
	var near []candidate
	for _, other := range all {
		far := Distance(word, other)
		if far > 1+len(word)/4 && (word == "" || !strings.HasPrefix(other, word) && (other == "" || !strings.HasPrefix(word, other))) {
			continue
		}
		near = append(near, candidate{other, far})
	}
	slices.SortStableFunc(near, func(a, b candidate) int { return cmp.Compare(a.far, b.far) })
	var words []string
	for _, c := range near[:min(n, len(near))] {
		words = append(words, c.word)
	}
	return words
}
