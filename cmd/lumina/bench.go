package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// sample is how long one thing took, many times, in milliseconds.
type sample struct {
	Name   string  `json:"name"`
	Count  int     `json:"count"`
	P50    float64 `json:"p50_ms"`
	P95    float64 `json:"p95_ms"`
	P99    float64 `json:"p99_ms"`
	Min    float64 `json:"min_ms"`
	StdDev float64 `json:"stddev_ms"`
	// PeakMemory is the most that one of the processes held, in bytes.
	PeakMemory int64     `json:"peak_memory_bytes,omitempty"`
	times      []float64 // all of them, sorted
}

// measure calls do count times.
func measure(ctx context.Context, name string, count int, do func() error) (sample, error) {
	times := make([]float64, 0, count)
	for range count {
		start := time.Now()
		if err := do(); err != nil {
			return sample{}, fmt.Errorf("measuring %s: %w", name, err)
		}
		if err := context.Cause(ctx); err != nil {
			return sample{}, err
		}
		times = append(times, ms(time.Since(start)))
	}
	return summarize(name, times), nil
}

// summarize makes a sample of times in milliseconds.
func summarize(name string, times []float64) sample {
	slices.Sort(times)
	count := len(times)
	s := sample{Name: name, Count: count, Min: times[0], P50: times[count/2], P95: times[count*95/100], P99: times[count*99/100]}
	mean, square := 0.0, 0.0
	for _, t := range times {
		mean += t / float64(count)
	}
	for _, t := range times {
		square += (t - mean) * (t - mean) / float64(count)
	}
	s.StdDev = math.Round(math.Sqrt(square)*100) / 100
	s.times = times
	return s
}

// self is this program as another process, as its users call it.
type self struct {
	path string
	env  []string // nil: this process's
	peak int64    // memory that one of them held at most, in bytes
}

func (s *self) run(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, s.path, args...)
	// As text, an error is on standard error, and is seen.
	cmd.Env, cmd.Stderr = append(cmd.Environ(), append(s.env, "LUMINA_FORMAT=text")...), os.Stderr
	err := cmd.Run()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.peak = max(s.peak, maxRSS(usage))
	}
	return err
}

func newBenchCommand(env *environment) *cobra.Command {
	return newGroup("bench", "Measure how fast Lumina is on this host", newBenchBootCommand(env), newBenchRunCommand(env), newBenchSessionCommand(env), newBenchExitsCommand(env), newBenchHistoryCommand(env), newBenchCreateCommand(env))
}

func printSamples(env *environment, samples ...sample) error {
	f, err := outputFormat(env)
	if err != nil {
		return err
	}
	if f != formatText {
		return printJSON(env.stdout, samples)
	}
	for _, s := range samples {
		fmt.Fprintf(env.stdout, "%-28s %4d ×  P50 %8.2f ms  P95 %8.2f ms  P99 %8.2f ms  min %8.2f ms  σ %6.2f", s.Name, s.Count, s.P50, s.P95, s.P99, s.Min, s.StdDev)
		if s.PeakMemory > 0 {
			fmt.Fprintf(env.stdout, "  peak memory %s", formatSize(s.PeakMemory))
		}
		fmt.Fprintln(env.stdout)
	}
	return nil
}

func newBenchRunCommand(env *environment) *cobra.Command {
	var image string
	count := atLeastOne(20)
	c := &cobra.Command{
		Use:   "run",
		Short: "Measure a cold run of true, and the same kernel with an init that powers off at once",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			r, err := env.openRuntime()
			if err != nil {
				return err
			}
			me, err := thisProgram()
			if err != nil {
				return err
			}
			bare, err := measure(ctx, "kernel that powers off", int(count), func() error { return bootBare(ctx, r, image) })
			if err != nil {
				return err
			}
			cold, err := measure(ctx, "lumina run true", int(count), func() error {
				return me.run(ctx, "run", "--image", image, "true")
			})
			cold.PeakMemory = me.peak
			if err != nil {
				return err
			}
			return printSamples(env, bare, cold)
		},
	}
	c.Flags().StringVar(&image, "image", "default", "image to boot")
	c.Flags().Var(&count, "count", "how often")
	return c
}

func thisProgram() (*self, error) {
	path, err := os.Executable()
	return &self{path: path}, err
}

func newBenchCreateCommand(env *environment) *cobra.Command {
	var from string
	count := atLeastOne(5)
	c := &cobra.Command{
		Use:   "create --from REF",
		Short: "Measure creating an image, without the trial boot",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if from == "" {
				return usageError{errors.New("--from is missing; see lumina bench create --help")}
			}
			if err := checkImage(from); err != nil {
				return usageError{fmt.Errorf("--from: %w", err)}
			}
			me, err := thisProgram()
			if err != nil {
				return err
			}
			home, err := os.MkdirTemp("", "lumina-bench-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(home)
			me.env = append(os.Environ(), "LUMINA_HOME="+home)
			made, err := measure(c.Context(), "lumina images create", int(count), func() error {
				return me.run(c.Context(), "images", "create", "bench", "--from", from, "--no-verify", "--replace")
			})
			made.PeakMemory = me.peak
			if err != nil {
				return err
			}
			return printSamples(env, made)
		},
	}
	c.Flags().StringVar(&from, "from", "", "source, as for images create (required)")
	c.Flags().Var(&count, "count", "how often")
	return c
}
