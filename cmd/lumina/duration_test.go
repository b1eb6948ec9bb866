package main

import (
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"30": 30 * time.Second, "1.5": 1500 * time.Millisecond, ".5": 500 * time.Millisecond, "0": 0, "0.0": 0, "0s": 0, "1m30s": 90 * time.Second, "250ms": 250 * time.Millisecond,
		"007": 7 * time.Second, "9223372036": 9223372036 * time.Second, "0.0000000000001": 1, // not 0, which is for ever
	} {
		if got, err := parseTime(s); err != nil || got != want {
			t.Errorf("parseTime(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", " ", "30 s", "-1", "-1s", "1e3", "0x10", "1_000", "NaN", "Inf", "1.2.3", ".", "1d", "s", "99999999999", "99999999999h", "９"} {
		if got, err := parseTime(s); err == nil {
			t.Errorf("parseTime(%q) = %v", s, got)
		}
	}
}

func FuzzParseTime(f *testing.F) {
	f.Add("1m30s")
	f.Add("1.5")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := parseTime(s)
		if err == nil && d < 0 {
			t.Errorf("parseTime(%q) = %v", s, d)
		}
	})
}

func TestParseSize(t *testing.T) {
	const mb, gb = 1 << 20, 1 << 30
	for s, want := range map[string]int64{
		"512m": 512 * mb, "512M": 512 * mb, "512MB": 512 * mb, "512mb": 512 * mb, "512MiB": 512 * mb, "1g": gb, "1G": gb, "1GiB": gb, "1.5g": gb + gb/2, "2t": 2 << 40,
		"1024k": mb, "1073741824": gb, "1073741824b": gb, "1 GB": gb, "64Mb": 64 * mb,
	} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("parseSize(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "m", "0", "-1g", "1gg", "1bg", "1i", "1ib", "1mbb", "1mibb", "1p", "1e9", "0x10", "1_0", "inf", "NaN", "1g2", "1  g", " 1g", "1g ", "9999999t", "1,5g"} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("parseSize(%q) = %v", s, got)
		}
	}
}
