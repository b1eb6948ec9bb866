package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/abdul-abdi/lumina/runtime/network"
)

func TestEnvelope(t *testing.T) {
	r := &report{format: formatJSON, start: time.Now().Add(-1500 * time.Millisecond), boot: 400 * time.Millisecond}
	r.network = &network.Report{}
	r.stdout.buf, r.stderr.buf = []byte("a\xff\xfe\xc3("), []byte("\u2028<&>\x00\"\\\n")
	var out bytes.Buffer
	if err := append(r.output(""), r.success(3)...).print(&out); err != nil {
		t.Fatal(err)
	}
	const want = `{"stdout":"a\uFFFD(","stderr":"\u2028<&>\u0000\"\\\n","stdout_bytes":"Yf/+wyg=","exit_code":3,"duration_ms":N,"boot_ms":400}` + "\n"
	got := regexp.MustCompile(`"duration_ms":1[5-9]\d\d,`).ReplaceAllString(strings.ReplaceAll(out.String(), "\uFFFD", `\uFFFD`), `"duration_ms":N,`)
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// What is written is JSON, and means what was captured.
func TestEnvelopeOfAnything(t *testing.T) {
	parts := []string{"text\n", "\xff", "\xfe", "\u2028", "\x7f\x00\"\\", "\xe2\x82", "\xed\xa0\x80", "\uFFFD", "ü", "\U0001F600", "\xf0\x9f"}
	random := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		var b []byte
		for range random.IntN(8) {
			b = append(b, parts[random.IntN(len(parts))]...)
		}
		r := &report{format: formatJSON, stdout: capture{buf: b}}
		var out bytes.Buffer
		if err := append(r.output(""), r.success(0)...).print(&out); err != nil {
			t.Fatal(err)
		}
		var got struct {
			Stdout string
			Bytes  string `json:"stdout_bytes"`
		}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatalf("%s: %v", out.Bytes(), err)
		}
		if want := strings.ToValidUTF8(string(b), "\uFFFD"); got.Stdout != want {
			t.Errorf("text %q, want %q", got.Stdout, want)
		}
		raw, err := base64.StdEncoding.DecodeString(got.Bytes)
		if err != nil || !utf8.Valid(b) && !bytes.Equal(raw, b) || utf8.Valid(b) && got.Bytes != "" {
			t.Errorf("bytes %q of %q, %v", got.Bytes, b, err)
		}
	}
}

// A guest that prints without end gets an end, and what is kept is not held
// several times over.
func TestCaptureIsBounded(t *testing.T) {
	const most = 8 << 20
	r := &report{format: formatJSON, stdout: capture{most: most}}
	zeros := make([]byte, 1<<20)
	for range most/len(zeros) + 2 {
		if n, err := r.stdout.Write(zeros); n != len(zeros) || err != nil {
			t.Fatal(n, err)
		}
	}
	var count countingWriter
	if err := append(r.output(""), r.success(0)...).print(&count); err != nil {
		t.Fatal(err)
	}
	if len(r.stdout.buf) != most || count.bytes < 6*most || count.largest > 1<<20 {
		t.Errorf("%d bytes kept, %d written, %d at once", len(r.stdout.buf), count.bytes, count.largest)
	}
	if !strings.Contains(count.tail, `"stdout_truncated":true`) {
		t.Errorf("the end is %s", count.tail)
	}
	full := capture{buf: make([]byte, maxCapture-1, maxCapture)}
	if n, err := full.Write([]byte("ab")); n != 2 || err != nil || len(full.buf) != maxCapture || !full.truncated {
		t.Errorf("%d bytes kept, truncated %v: %d, %v", len(full.buf), full.truncated, n, err)
	}
}

type countingWriter struct {
	bytes, largest int
	tail           string
}

func (c *countingWriter) Write(p []byte) (int, error) {
	c.bytes += len(p)
	c.largest = max(c.largest, len(p))
	c.tail = string(p[max(0, len(p)-200):])
	return len(p), nil
}
