package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	goruntime "runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/outfile"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// bootReport is what bench boot found out.
type bootReport struct {
	Version    string      `json:"version"`
	Image      string      `json:"image"`
	Host       string      `json:"host"`
	Boots      []sample    `json:"boots"`
	Waterfalls []waterfall `json:"waterfalls"`
}

// waterfall is where the time of the median boot went.
type waterfall struct {
	Name  string         `json:"name"`
	Cold  string         `json:"cold,omitempty"` // why it was cold
	Marks []waterfallRow `json:"marks"`
}

type waterfallRow struct {
	Name string  `json:"name"`
	From float64 `json:"from_ms"`
	To   float64 `json:"to_ms"`
}

func newBenchBootCommand(env *environment) *cobra.Command {
	var image, page string
	count := atLeastOne(20)
	c := &cobra.Command{
		Use:   "boot [--html FILE]",
		Short: "Measure how long starts take, and which phase takes how long: the bare kernel, cold, and from a template",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if page != "" {
				if _, err := outfile.Check(page); err != nil {
					return usageError{err}
				}
			}
			r, err := env.openRuntime()
			if err != nil {
				return err
			}
			report, err := measureBoots(c.Context(), r, image, int(count))
			if err != nil {
				return err
			}
			if page != "" {
				if err := writeBootPage(page, report); err != nil {
					return fmt.Errorf("writing %s: %w", page, err)
				}
			}
			return printBoots(env, report)
		},
	}
	c.Flags().StringVar(&image, "image", "default", "image to boot")
	c.Flags().Var(&count, "count", "how often")
	c.Flags().StringVar(&page, "html", "", "write a page with the percentiles and the waterfalls to this file")
	return c
}

func measureBoots(ctx context.Context, r *runtime.Runtime, image string, count int) (*bootReport, error) {
	options := runtime.VMOptions{Image: image, Network: network.ModeNAT}
	report := &bootReport{Version: version, Image: image}
	report.Host = fmt.Sprintf("%d CPUs, %s/%s", goruntime.NumCPU(), goruntime.GOOS, goruntime.GOARCH)
	me, err := thisProgram()
	if err != nil {
		return nil, err
	}
	if err := r.MakeTemplate(ctx, options); err != nil && !errors.Is(err, vm.ErrUnsupported) {
		return nil, err
	}
	for _, b := range []struct {
		name string
		env  string
		do   func() (time.Duration, error)
	}{
		{"the bare kernel", "", timed(func() error { return bootBare(ctx, r, image) })},
		{"lumina run true, cold", "LUMINA_TEMPLATE=0", timed(func() error { return me.run(ctx, "run", "--image", image, "true") })},
		{"lumina run true", "", timed(func() error { return me.run(ctx, "run", "--image", image, "true") })},
		{"lumina session start", "", func() (time.Duration, error) { return me.startSession(ctx, image) }},
	} {
		me.env = append(os.Environ(), b.env)
		times := make([]float64, 0, count)
		for range count {
			took, err := b.do()
			if err != nil {
				return nil, fmt.Errorf("measuring %s: %w", b.name, err)
			}
			if err := context.Cause(ctx); err != nil {
				return nil, err
			}
			times = append(times, ms(took))
		}
		report.Boots = append(report.Boots, summarize(b.name, times))
	}
	for _, cold := range []bool{true, false} {
		options.NoTemplate = cold
		w, err := medianBoot(ctx, r, options, min(count, 9))
		if err != nil {
			return nil, err
		}
		report.Waterfalls = append(report.Waterfalls, *w)
	}
	return report, nil
}

func timed(do func() error) func() (time.Duration, error) {
	return func() (time.Duration, error) {
		start := time.Now()
		err := do()
		return time.Since(start), err
	}
}

// startSession starts a session, and stops it untimed.
func (s *self) startSession(ctx context.Context, image string) (time.Duration, error) {
	start := time.Now()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, s.path, "session", "start", "--image", image)
	cmd.Env, cmd.Stderr, cmd.Stdout = append(s.env, "LUMINA_FORMAT=json"), os.Stderr, &out
	if err := cmd.Run(); err != nil {
		return 0, err
	}
	took := time.Since(start)
	var started struct{ SID string }
	if err := json.Unmarshal(out.Bytes(), &started); err != nil {
		return 0, err
	}
	// Also when ctx has ended.
	return took, s.run(context.WithoutCancel(ctx), "session", "stop", started.SID)
}

// medianBoot boots a VM count times and traces the one in the middle.
func medianBoot(ctx context.Context, r *runtime.Runtime, options runtime.VMOptions, count int) (*waterfall, error) {
	var traces []runtime.Trace
	for range count {
		v, err := r.Start(ctx, options)
		if err != nil {
			return nil, err
		}
		traces = append(traces, v.Trace())
		if err := v.Close(); err != nil {
			return nil, err
		}
	}
	total := func(t runtime.Trace) time.Duration { return t.Marks[len(t.Marks)-1].At }
	slices.SortFunc(traces, func(a, b runtime.Trace) int { return int(total(a) - total(b)) })
	median := traces[count/2]
	w := &waterfall{Name: "from a template", Cold: median.Cold.Error()}
	if w.Cold != "" {
		w.Name = "cold"
	}
	last := 0.0
	for _, m := range median.Marks {
		at := max(ms(m.At), last)
		w.Marks = append(w.Marks, waterfallRow{m.Name, last, at})
		last = at
	}
	return w, nil
}

func printBoots(env *environment, report *bootReport) error {
	f, err := outputFormat(env)
	if err != nil {
		return err
	}
	if f != formatText {
		return printJSON(env.stdout, report)
	}
	if err := printSamples(env, report.Boots...); err != nil {
		return err
	}
	for _, w := range report.Waterfalls {
		fmt.Fprintf(env.stdout, "\n%s\n", w.Name)
		for _, m := range w.Marks {
			fmt.Fprintf(env.stdout, "%9.1f ms  +%7.1f  %s\n", m.To, m.To-m.From, m.Name)
		}
	}
	return nil
}
