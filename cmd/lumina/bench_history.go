package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/outfile"
)

// A median that exceeds that of earlier runs by this factor is reported, see [worse].
const (
	tolerated  = 1.2
	comparedTo = 10 // runs before
	leastRuns  = 3  // of which there have to be so many
)

// benchRun is a line of the history: what one version needed.
type benchRun struct {
	Time    time.Time `json:"time"`
	Version string    `json:"version"`
	Samples []sample  `json:"samples"`
}

//go:embed bench_history.html
var historyPage string

func newBenchHistoryCommand(env *environment) *cobra.Command {
	var page string
	c := &cobra.Command{
		Use:   "history FILE [--html PAGE] < REPORT",
		Short: "Add a report of bench boot or bench session to a history, and report what got slower",
		Long: `Add what bench boot or bench session printed as JSON, on standard input, to a
history: FILE has one JSON object a line. A figure that is 20 % slower than the
median of the last ten runs is reported on standard error in the form of GitHub's
workflow warnings; that is not an error. With --html, the history is drawn on a page, too.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			if page != "" {
				if _, err := outfile.Check(page); err != nil {
					return usageError{err}
				}
			}
			samples, err := readSamples(env.stdin)
			if err != nil {
				return usageError{fmt.Errorf("standard input: %w", err)}
			}
			history, err := readHistory(args[0])
			if err != nil {
				return err
			}
			now := benchRun{Time: time.Now().UTC().Truncate(time.Second), Version: version, Samples: samples}
			for _, w := range worse(history, now) {
				fmt.Fprintf(env.stderr, "::warning title=slower::%s\n", w)
			}
			history = append(history, now)
			if err := writeHistory(args[0], history); err != nil {
				return err
			}
			if page == "" {
				return nil
			}
			var b bytes.Buffer
			if err := template.Must(template.New("history").Funcs(template.FuncMap{"points": historyPoints}).Parse(historyPage)).Execute(&b, drawn(history)); err != nil {
				return err
			}
			return outfile.Write(page, b.Bytes(), 0o644)
		},
	}
	c.Flags().StringVar(&page, "html", "", "draw the history on a page")
	return c
}

// maxReport bounds a report, in bytes.
const maxReport = 64 << 20

// readSamples reads reports of bench boot and bench session, and lists of samples,
// one after the other.
func readSamples(r io.Reader) ([]sample, error) {
	d := json.NewDecoder(io.LimitReader(r, maxReport))
	var all []sample
	for {
		var raw json.RawMessage
		err := d.Decode(&raw)
		if errors.Is(err, io.EOF) {
			break
		}
		var report struct{ Boots, Execs []sample }
		if err == nil && bytes.HasPrefix(raw, []byte("[")) {
			err = json.Unmarshal(raw, &report.Boots)
		} else if err == nil {
			err = json.Unmarshal(raw, &report)
		}
		if err != nil {
			return nil, err
		}
		all = append(append(all, report.Boots...), report.Execs...)
	}
	if err := checkSamples(all); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.New("no samples found: pipe in the JSON of lumina bench boot or lumina bench session")
	}
	return all, nil
}

// checkSamples refuses what is no measurement: a name is shown in a line of a
// workflow's log, and a median is divided by.
func checkSamples(samples []sample) error {
	for i, s := range samples {
		switch {
		case s.Name == "" || len(s.Name) > maxSampleName || strings.ContainsFunc(s.Name, func(r rune) bool { return !unicode.IsPrint(r) }):
			return fmt.Errorf("sample %d has the name %.100q: want 1 to %d printable characters", i+1, s.Name, maxSampleName)
		case s.Count < 1:
			return fmt.Errorf("sample %q was measured %d times", s.Name, s.Count)
		case s.P50 <= 0 || s.P95 < 0 || s.P99 < 0:
			return fmt.Errorf("sample %q has a median of %g ms, P95 of %g and P99 of %g", s.Name, s.P50, s.P95, s.P99)
		}
	}
	return nil
}

// maxSampleName is how long the name of a sample may be, in bytes.
const maxSampleName = 100

// readHistory reads a file that may not exist yet. A broken line is an error: the user
// knows better than this program how to repair it.
func readHistory(path string) ([]benchRun, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var history []benchRun
	n := 0
	for line := range bytes.Lines(b) {
		n++
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		var run benchRun
		err := json.Unmarshal(line, &run)
		if err == nil {
			err = checkSamples(run.Samples)
		}
		if err == nil && len(run.Samples) == 0 {
			err = errors.New("it has no sample")
		}
		if err != nil {
			return nil, usageError{fmt.Errorf("%s:%d: %w; remove the line", path, n, err)}
		}
		history = append(history, run)
	}
	return history, nil
}

func writeHistory(path string, history []benchRun) error {
	var b bytes.Buffer
	for _, run := range history {
		line, err := json.Marshal(run)
		if err != nil {
			return err
		}
		b.Write(append(line, '\n'))
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	return durable.Replace(path, b.Bytes(), 0o644)
}

// worse tells what takes longer now than before. One run that was disturbed makes no
// difference to the median of those before.
func worse(history []benchRun, now benchRun) []string {
	var found []string
	for _, s := range now.Samples {
		var before []float64
		for _, run := range slices.Backward(history) {
			if i := slices.IndexFunc(run.Samples, func(o sample) bool { return o.Name == s.Name }); i >= 0 && len(before) < comparedTo {
				before = append(before, run.Samples[i].P50)
			}
		}
		if len(before) < leastRuns {
			continue
		}
		slices.Sort(before)
		if usual := before[len(before)/2]; s.P50 > tolerated*usual {
			found = append(found, fmt.Sprintf("%s: the median is %.2f ms (n = %d), %.0f %% above that of the last %d runs, %.2f ms",
				s.Name, s.P50, s.Count, 100*(s.P50/usual-1), len(before), usual))
		}
	}
	return found
}

// drawing is the history of one sample.
type drawing struct {
	Name string
	Runs []drawnRun
	Most float64 // of all P95
}

type drawnRun struct {
	Time    time.Time
	Version string
	sample
}

func drawn(history []benchRun) []*drawing {
	var all []*drawing
	for _, run := range history {
		for _, s := range run.Samples {
			i := slices.IndexFunc(all, func(d *drawing) bool { return d.Name == s.Name })
			if i < 0 {
				i, all = len(all), append(all, &drawing{Name: s.Name, Most: 0.001})
			}
			all[i].Runs = append(all[i].Runs, drawnRun{run.Time, run.Version, s})
			all[i].Most = max(all[i].Most, s.P95)
		}
	}
	return all
}

// historyPoints are those of a polyline in a box of 100 by 100: runs to the right,
// the percentile upwards.
func historyPoints(d *drawing, percentile int) string {
	var points []string
	for i, run := range d.Runs {
		y := run.P50
		if percentile == 95 {
			y = run.P95
		}
		points = append(points, fmt.Sprintf("%.2f,%.2f", 100*float64(i)/float64(max(1, len(d.Runs)-1)), 100-100*y/d.Most))
	}
	return strings.Join(points, " ")
}
