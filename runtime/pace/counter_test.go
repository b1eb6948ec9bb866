package pace

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestCounter(t *testing.T) {
	var reported []int64
	c := &Counter{R: iotest.HalfReader(strings.NewReader("abc")), Done: 7, Report: func(n int64) { reported = append(reported, n) }}
	b := make([]byte, 4)
	var got string
	for {
		n, err := c.Read(b)
		got += string(b[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if got != "abc" || c.Done != 10 || !slices.Equal(reported, []int64{9, 10, 10}) {
		t.Errorf("%q, %d, %v", got, c.Done, reported)
	}
}

func TestWait(t *testing.T) {
	if err := Wait(t.Context(), time.Nanosecond); err != nil {
		t.Error(err)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := Wait(ctx, time.Hour); err != cause {
		t.Errorf("after the end of its context: %v", err)
	}
}
