package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/network"
)

// format is how results are printed.
type format int

const (
	formatText   format = iota // for people, streamed
	formatJSON                 // one object
	formatNDJSON               // one object a line, streamed
)

// outputFormat follows the contract: text on a terminal, JSON elsewhere,
// unless the environment says otherwise.
func outputFormat(env *environment) (format, error) {
	if v := env.getenv("LUMINA_OUTPUT"); v == "ndjson" {
		return formatNDJSON, nil
	} else if v != "" {
		return 0, usageError{fmt.Errorf("LUMINA_OUTPUT=%q: the only value is ndjson", v)}
	}
	switch v := env.getenv("LUMINA_FORMAT"); v {
	case "json":
		return formatJSON, nil
	case "text":
		return formatText, nil
	case "":
		if term.IsTerminal(int(env.stdout.Fd())) {
			return formatText, nil
		}
		return formatJSON, nil
	default:
		return 0, usageError{fmt.Errorf("LUMINA_FORMAT=%q: want json or text", v)}
	}
}

// printJSON prints v on one line.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("printing the result: %w", err)
	}
	return nil
}

// maxCapture bounds what JSON output keeps of each stream, in bytes: a guest
// may print without end.
const maxCapture = 1 << 30

// capture keeps the beginning of a stream.
type capture struct {
	buf       []byte
	truncated bool
}

func (c *capture) Write(p []byte) (int, error) {
	n := min(len(p), maxCapture-len(c.buf))
	c.buf = append(c.buf, p[:n]...)
	c.truncated = c.truncated || n < len(p)
	return len(p), nil
}

// text returns the stream as a JSON string and, when it is not UTF-8, also as
// it is.
func (c *capture) text() (text, bytes string) {
	if utf8.Valid(c.buf) {
		return string(c.buf), ""
	}
	return strings.ToValidUTF8(string(c.buf), "\uFFFD"), base64.StdEncoding.EncodeToString(c.buf)
}

// success is the envelope of a command that ended.
type success struct {
	Stdout          string `json:"stdout"`
	Stderr          string `json:"stderr"`
	StdoutBytes     string `json:"stdout_bytes,omitempty"`
	StderrBytes     string `json:"stderr_bytes,omitempty"`
	StdoutTruncated bool   `json:"stdout_truncated,omitempty"`
	StderrTruncated bool   `json:"stderr_truncated,omitempty"`
	ExitCode        int    `json:"exit_code"`
	DurationMS      int64  `json:"duration_ms"`
	networkEnvelope
}

// networkEnvelope is what the command did with the VM's network.
type networkEnvelope struct {
	Metrics map[string]network.Metrics `json:"network_metrics,omitempty"` // by interface
	Denied  []network.Denied           `json:"network_denied,omitempty"`
}

func envelopeOf(r *runtime.NetworkReport) networkEnvelope {
	if r == nil {
		return networkEnvelope{}
	}
	return networkEnvelope{map[string]network.Metrics{"eth0": r.Metrics}, r.Denied}
}

// failure is the envelope of a command that has no exit code.
type failure struct {
	Error              runtime.ErrorKind `json:"error"`
	Message            string            `json:"message"`
	DurationMS         int64             `json:"duration_ms"`
	PartialStdout      *string           `json:"partial_stdout,omitempty"`
	PartialStderr      *string           `json:"partial_stderr,omitempty"`
	PartialStdoutBytes string            `json:"partial_stdout_bytes,omitempty"`
	PartialStderrBytes string            `json:"partial_stderr_bytes,omitempty"`
	networkEnvelope
}

// report prints how a command ended, in one format.
type report struct {
	env            *environment
	format         format
	start          time.Time
	stdout, stderr capture // formatJSON
	network        networkEnvelope
	lines          lineWriter
}

func newReport(env *environment) (*report, error) {
	f, err := outputFormat(env)
	return &report{env: env, format: f, start: time.Now(), lines: lineWriter{w: env.stdout}}, err
}

// writers are where the command's output goes while it runs.
func (r *report) writers() (stdout, stderr io.Writer) {
	switch r.format {
	case formatJSON:
		return &r.stdout, &r.stderr
	case formatNDJSON:
		return &streamWriter{lines: &r.lines, name: "stdout"}, &streamWriter{lines: &r.lines, name: "stderr"}
	}
	return r.env.stdout, r.env.stderr
}

// finish prints the end and returns what the program's exit code follows from.
func (r *report) finish(code int, duration time.Duration, err error) error {
	if err != nil {
		return r.fail(err)
	}
	switch r.format {
	case formatJSON:
		err = printJSON(r.env.stdout, r.success(code, duration))
	case formatNDJSON:
		err = r.lines.print(map[string]any{"exit_code": code, "duration_ms": duration.Milliseconds()})
	}
	if err == nil && code != 0 {
		return exitCode(code)
	}
	return err
}

// logs prints captured output of a command whose end is not asked for.
func (r *report) logs() error {
	if r.format != formatJSON {
		return nil
	}
	out := struct {
		Stdout      string `json:"stdout"`
		Stderr      string `json:"stderr"`
		StdoutBytes string `json:"stdout_bytes,omitempty"`
		StderrBytes string `json:"stderr_bytes,omitempty"`
	}{}
	out.Stdout, out.StdoutBytes = r.stdout.text()
	out.Stderr, out.StderrBytes = r.stderr.text()
	return printJSON(r.env.stdout, out)
}

func (r *report) fail(err error) error {
	var e *runtime.Error
	if !errors.As(err, &e) || r.format == formatText {
		return err
	}
	if printErr := r.lines.print(r.failure(err)); printErr != nil {
		return printErr
	}
	return exitCode(codeOf(err))
}

func (r *report) success(code int, duration time.Duration) *success {
	s := &success{ExitCode: code, DurationMS: duration.Milliseconds(),
		StdoutTruncated: r.stdout.truncated, StderrTruncated: r.stderr.truncated}
	s.Stdout, s.StdoutBytes = r.stdout.text()
	s.Stderr, s.StderrBytes = r.stderr.text()
	s.networkEnvelope = r.network
	return s
}

// failure is the envelope of err; what is none of the contract's kinds kept the
// command from running.
func (r *report) failure(err error) *failure {
	kind := runtime.ConnectionFailed
	var e *runtime.Error
	if errors.As(err, &e) {
		kind = e.Kind
	}
	f := &failure{Error: kind, Message: err.Error(), DurationMS: time.Since(r.start).Milliseconds()}
	if kind != runtime.ConnectionFailed && r.format == formatJSON {
		var out, errOut string
		out, f.PartialStdoutBytes = r.stdout.text()
		errOut, f.PartialStderrBytes = r.stderr.text()
		f.PartialStdout, f.PartialStderr = &out, &errOut
	}
	f.networkEnvelope = r.network
	return f
}

// lineWriter prints JSON values a line each, from several goroutines.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lineWriter) print(v any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return printJSON(l.w, v)
}

// streamWriter prints a stream as {"stream":…,"data":…} lines. A character
// that a chunk cuts is kept for the next one.
type streamWriter struct {
	lines *lineWriter
	name  string
	rest  []byte
}

type chunk struct {
	Stream string `json:"stream"`
	Data   string `json:"data"`
	Bytes  string `json:"bytes,omitempty"` // base64, when Data is not what was written
}

func (s *streamWriter) Write(p []byte) (int, error) {
	data := append(s.rest, p...)
	cut := len(data) - incomplete(data)
	s.rest = append([]byte(nil), data[cut:]...)
	if cut == 0 {
		return len(p), nil
	}
	c := chunk{Stream: s.name, Data: string(data[:cut])}
	if !utf8.Valid(data[:cut]) {
		c.Data, c.Bytes = strings.ToValidUTF8(c.Data, "\uFFFD"), base64.StdEncoding.EncodeToString(data[:cut])
	}
	return len(p), s.lines.print(c)
}

// incomplete returns how many bytes at the end of b begin a character that b
// does not complete.
func incomplete(b []byte) int {
	for i := 1; i <= min(len(b), utf8.UTFMax-1); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-i:]) {
				return i
			}
			return 0
		}
	}
	return 0
}
