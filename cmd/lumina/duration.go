package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// atLeastOne is a flag: a number of things to do.
type atLeastOne int

func (n *atLeastOne) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil || v < 1 {
		return errors.New("want a number, at least 1")
	}
	*n = atLeastOne(v)
	return nil
}

func (n *atLeastOne) Type() string   { return "int" }
func (n *atLeastOne) String() string { return strconv.Itoa(int(*n)) }

// timeSpan is a flag: a time such as 90s or 1h30m, or a number of seconds.
type timeSpan time.Duration

func (t *timeSpan) Set(s string) error {
	d, err := parseTime(s)
	if err != nil {
		return err
	}
	*t = timeSpan(d)
	return nil
}

func (t *timeSpan) Type() string { return "time" }

func (t *timeSpan) String() string {
	if *t == 0 {
		return ""
	}
	return time.Duration(*t).String()
}

// bootTime is a flag: how long a guest may take to answer, which has an end; 0 is none given.
type bootTime struct{ timeSpan }

func (t *bootTime) Set(s string) error {
	err := t.timeSpan.Set(s)
	if err == nil && t.timeSpan == 0 {
		return errors.New("want more than 0; no wait for a guest is endless")
	}
	return err
}

// parseTime reads a time that is not negative.
func parseTime(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if s != "" && strings.Trim(s, "0123456789.") == "" { // also 0, which ParseDuration knows
		seconds, parseErr := strconv.ParseFloat(s, 64)
		if parseErr != nil {
			return 0, fmt.Errorf("%q is not a time such as 30 (seconds), 90s or 1h30m", s)
		}
		if seconds >= math.MaxInt64/1e9 {
			return 0, fmt.Errorf("%q is too long; the longest time is 292 years", s)
		}
		d, err = time.Duration(math.Ceil(seconds*1e9)), nil
	}
	if err != nil {
		return 0, fmt.Errorf("%q is not a time such as 30 (seconds), 90s or 1h30m", s)
	}
	if d < 0 {
		return 0, fmt.Errorf("%q is negative; want a time of 0 or more", s)
	}
	return d, nil
}
