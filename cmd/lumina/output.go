package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/printable"
)

// format is how results are printed.
type format int

const (
	formatText   format = iota // for people, streamed
	formatJSON                 // one object
	formatNDJSON               // one object a line, streamed
)

// outputFormat follows the contract: text on a terminal, JSON elsewhere,
// unless --json or the environment says otherwise.
func outputFormat(env *environment) (format, error) {
	if env.json != nil {
		if *env.json {
			return formatJSON, nil
		}
		return formatText, nil
	}
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

// jsonFlag is the flag --json. of is a command that takes another one of a VM, whose own
// flags it does not take; nil: there is none.
type jsonFlag struct {
	env *environment
	of  *cobra.Command
}

func (f jsonFlag) String() string {
	return strconv.FormatBool(f.env != nil && f.env.json != nil && *f.env.json)
}
func (f jsonFlag) Type() string     { return "bool" }
func (f jsonFlag) IsBoolFlag() bool { return true }

func (f jsonFlag) Set(s string) error {
	if f.of != nil && len(f.of.Flags().Args()) > commandAt(f.of) {
		return errors.New("write a command with its own flags as one string, or as PROG ARG… after --")
	}
	v, err := strconv.ParseBool(s)
	if err != nil {
		return err
	}
	f.env.json = &v
	return nil
}

// registerJSON gives a command and those below it the flag --json.
func (env *environment) registerJSON(flags *pflag.FlagSet, of *cobra.Command) {
	flags.VarPF(jsonFlag{env, of}, "json", "", "print JSON; the default if standard output is not a terminal (--json=false prints text there)").NoOptDefVal = "true"
}

// printJSON prints v on one line.
func printJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	if err == nil {
		_, err = w.Write(printable.JSON(b.Bytes()))
	}
	if err != nil {
		return fmt.Errorf("printing the result: %w", err)
	}
	return nil
}

// report prints how a command ended, in one format.
type report struct {
	env            *environment
	format         format
	start          time.Time
	boot           time.Duration // until the command began; 0 when it did not, or nothing was booted
	stdout, stderr capture       // formatJSON
	network        *network.Report
	hostError      string // what went wrong on the host
	transfer       error  // why downloads are not all there
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
func (r *report) finish(code int, err error) error {
	var killed runtime.Killed
	if errors.As(err, &killed) && r.format != formatText {
		code, err = codeOf(killed), nil // its output is there, and how it ended
	}
	if err != nil {
		return r.fail(err)
	}
	switch r.format {
	case formatJSON:
		err = r.lines.print(append(r.output(""), r.success(code)...))
	case formatNDJSON:
		err = r.lines.print(r.success(code))
	case formatText:
		for _, f := range r.besides() {
			r.env.note("%v", f.value)
		}
	}
	if err == nil && code == 0 && r.transfer != nil {
		code = codeOf(r.transfer)
	}
	if err == nil && code != 0 {
		return exitCode(code)
	}
	return err
}

// besides is what went wrong while or after the command ran.
func (r *report) besides() (e envelope) {
	if r.transfer != nil {
		e = append(e, field{"transfer_error", r.transfer.Error()})
	}
	if r.hostError != "" {
		e = append(e, field{"host_error", r.hostError})
	}
	return e
}

// logs prints captured output of a command whose end is not asked for.
func (r *report) logs() error {
	if r.format != formatJSON {
		return nil
	}
	return r.lines.print(r.output(""))
}

// output is what was captured.
func (r *report) output(prefix string) envelope {
	e := envelope{{prefix + "stdout", &r.stdout}, {prefix + "stderr", &r.stderr}}
	for _, stream := range []struct {
		name string
		*capture
	}{{"stdout", &r.stdout}, {"stderr", &r.stderr}} {
		if !utf8.Valid(stream.buf) {
			e = append(e, field{prefix + stream.name + "_bytes", rawBytes{stream.capture}})
		}
		if stream.truncated {
			e = append(e, field{prefix + stream.name + "_truncated", true})
		}
	}
	return e
}

func (r *report) fail(err error) error {
	var e *runtime.Error
	if !errors.As(err, &e) || r.format == formatText {
		return err
	}
	if printErr := r.lines.print(r.failure(r.env.advise(err))); printErr != nil {
		return printErr
	}
	return exitCode(codeOf(err))
}

// success is the end of a command's envelope.
func (r *report) success(code int) envelope {
	e := append(envelope{{"exit_code", code}}, r.times(true)...)
	e = append(e, r.besides()...)
	return append(e, networkFields(r.network)...)
}

// times are how long the call took, and the part of it until the command began.
func (r *report) times(began bool) envelope {
	e := envelope{{"duration_ms", time.Since(r.start).Milliseconds()}}
	if began {
		e = append(e, field{"boot_ms", r.boot.Milliseconds()})
	}
	return e
}

// failure is the envelope of err; what is none of the contract's kinds kept the
// command from running.
func (r *report) failure(err error) envelope {
	kind := runtime.ConnectionFailed
	var e *runtime.Error
	if errors.As(err, &e) {
		kind = e.Kind
	}
	var messages []string
	for _, one := range separate(err) {
		messages = append(messages, one.Error())
	}
	f := append(envelope{{"error", kind}, {"message", strings.Join(messages, "; ")}}, r.times(kind != runtime.ConnectionFailed)...)
	if kind != runtime.ConnectionFailed && r.format == formatJSON {
		f = append(f, r.output("partial_")...)
	}
	if r.hostError != "" {
		f = append(f, field{"host_error", r.hostError})
	}
	return append(f, networkFields(r.network)...)
}

// networkFields are what the command did with the VM's network; none when it sent
// nothing.
func networkFields(r *network.Report) envelope {
	if r == nil {
		return nil
	}
	var e envelope
	if r.Metrics.SentPackets > 0 {
		type interfaces map[string]network.Metrics
		e = envelope{{"network_metrics", map[string]interfaces{"interfaces": {"eth0": r.Metrics}}}}
	}
	if len(r.Denied) > 0 {
		e = append(e, field{"network_denied", r.Denied})
	}
	return e
}

// lineWriter prints JSON values a line each, from several goroutines.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lineWriter) print(v any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := v.(envelope); ok {
		return e.print(l.w)
	}
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
