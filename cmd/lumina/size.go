package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// byteSize is a flag's number of bytes: 512MB, 1GB, 1.5g, 1073741824. Units
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

func parseSize(s string) (int64, error) {
	number := strings.TrimRight(strings.ToLower(s), "bi")
	shift := 0
	if n := len(number); n > 0 {
		if i := strings.IndexByte("kmgt", number[n-1]); i >= 0 {
			shift, number = 10*(i+1), number[:n-1]
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	f *= float64(int64(1) << shift)
	if err != nil || !(f >= 1 && f < math.MaxInt64) {
		return 0, fmt.Errorf("%q is not a size such as 512MB or 1GB", s)
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
