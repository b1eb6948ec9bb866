package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// byteSize is a flag's number of bytes: 512MB, 512m, 1g, 1.5GiB, 1073741824. Units
// are powers of 1024, as for memory everywhere.
type byteSize int64

func (b *byteSize) Set(s string) error {
	n, err := parseSize(s)
	*b = byteSize(n)
	return err
}

func (b *byteSize) Type() string { return "size" }

func (b *byteSize) String() string {
	if *b == 0 {
		return ""
	}
	return formatSize(int64(*b))
}

// parseSize reads what docker does: a number, a unit's letter, and "B" or "iB".
func parseSize(s string) (int64, error) {
	number := strings.TrimRight(s, "bBiIkKmMgGtT")
	shift, ok := 0, true
	switch unit := strings.ToLower(s[len(number):]); unit {
	case "", "b":
	default:
		letter, rest := unit[:1], unit[1:]
		i := strings.Index("kmgt", letter)
		shift, ok = 10*(i+1), i >= 0 && (rest == "" || rest == "b" || rest == "ib")
	}
	number = strings.TrimSuffix(number, " ")
	f, err := strconv.ParseFloat(number, 64)
	f *= float64(int64(1) << max(shift, 0))
	if !ok || err != nil || strings.Trim(number, "0123456789.") != "" || !(f >= 1 && f < math.MaxInt64) {
		return 0, fmt.Errorf("%q is not a size such as 512m, 512MB or 1.5GiB", s)
	}
	return int64(f), nil
}

func formatSize(n int64) string {
	for i, unit := range []string{"TB", "GB", "MB", "KB"} {
		if size := int64(1) << (40 - 10*i); n >= size {
			return strconv.FormatFloat(math.Round(float64(n)/float64(size)*10)/10, 'f', -1, 64) + unit
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}
