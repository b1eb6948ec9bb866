package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/session"
)

// sessionReport is what bench session found out.
type sessionReport struct {
	Execs      []sample   `json:"execs"`
	Rates      []rate     `json:"rates"`
	Streams    []stream   `json:"streams"`
	Supervisor supervisor `json:"supervisor"`
}

// rate is how many execs a second so many clients got together.
type rate struct {
	Clients   int     `json:"clients"`
	PerSecond float64 `json:"execs_per_second"`
}

type stream struct {
	Name      string  `json:"name"`
	PerSecond float64 `json:"mb_per_second"` // of 10^6 bytes
}

type supervisor struct {
	Idle    int64   `json:"own_bytes_idle"`
	After   int64   `json:"own_bytes_after"`
	Wakeups float64 `json:"wakeups_per_second_idle"`
}

func newBenchSessionCommand(env *environment) *cobra.Command {
	var image string
	count := atLeastOne(200)
	lasting := timeSpan(5 * time.Second)
	c := &cobra.Command{
		Use:   "session",
		Short: "Measure execs and copies of a session, and the memory it takes",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			me, err := thisProgram()
			if err != nil {
				return err
			}
			home, err := runtime.Home(env.getenv("LUMINA_HOME"))
			if err != nil {
				return err
			}
			s, err := env.supervised(ctx, session.Options{Home: home, VM: runtime.VMOptions{Image: image}})
			if err != nil {
				return err
			}
			// Also when ctx has ended.
			defer func() { _ = s.Stop(context.WithoutCancel(ctx)) }()
			report, err := measureSession(ctx, me, s, int(count), time.Duration(lasting))
			if err != nil {
				return err
			}
			return printSession(env, report)
		},
	}
	c.Flags().StringVar(&image, "image", "default", "image to boot")
	c.Flags().Var(&count, "count", "how many execs of each kind")
	c.Flags().Var(&lasting, "for", "how long each sustained rate is measured")
	return c
}

func measureSession(ctx context.Context, me *self, s *session.Session, count int, lasting time.Duration) (*sessionReport, error) {
	var report sessionReport
	// The guest's kernel announces its interface for some seconds.
	_, err := wakeups(ctx, s.Info.PID, 5*time.Second)
	if err != nil {
		return nil, err
	}
	if report.Supervisor.Wakeups, err = wakeups(ctx, s.Info.PID, 3*time.Second); err != nil {
		return nil, err
	}
	if report.Supervisor.Idle, err = ownMemory(s.Info.PID); err != nil {
		return nil, err
	}
	if report.Execs, err = measureExec(ctx, me, s, count); err != nil {
		return nil, err
	}
	for _, clients := range []int{1, 4, 16} {
		r, err := sustained(ctx, s, clients, lasting)
		if err != nil {
			return nil, err
		}
		report.Rates = append(report.Rates, *r)
	}
	if report.Streams, err = measureStreams(ctx, s); err != nil {
		return nil, err
	}
	report.Supervisor.After, err = ownMemory(s.Info.PID)
	return &report, err
}

func measureExec(ctx context.Context, me *self, s *session.Session, count int) ([]sample, error) {
	execute := func(c runtime.Command) func() error {
		return func() error {
			_, err := s.Exec(ctx, c)
			return err
		}
	}
	echo, err := s.Echo(ctx)
	if err != nil {
		return nil, err
	}
	defer echo.Close()
	b := make([]byte, 64) // about what a request and its reply take
	var samples []sample
	for _, m := range []struct {
		name string
		do   func() error
	}{
		{"lumina exec SID true", func() error { return me.run(ctx, "exec", s.Info.SID, "true") }},
		{"exec true, shell", execute(runtime.Command{Shell: "true"})},
		{"exec true, no shell", execute(runtime.Command{Args: []string{"true"}})},
		{"agent round trip", func() error {
			_, err := s.Processes(ctx)
			return err
		}},
		{"echo on an open stream", func() error {
			if _, err := echo.Write(b); err != nil {
				return err
			}
			_, err := io.ReadFull(echo, b)
			return err
		}},
		{"echo, a stream each", func() error {
			c, err := s.Echo(ctx)
			if err != nil {
				return err
			}
			return c.Close()
		}},
	} {
		one, err := measure(ctx, m.name, count, m.do)
		if err != nil {
			return nil, err
		}
		samples = append(samples, one)
	}
	samples[0].PeakMemory = me.peak
	return samples, nil
}

// sustained keeps so many clients busy, each with one exec of true after the
// other.
func sustained(ctx context.Context, s *session.Session, clients int, lasting time.Duration) (*rate, error) {
	start := time.Now()
	counts, errs := make([]int, clients), make([]error, clients)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for time.Since(start) < lasting && errs[i] == nil {
				_, errs[i] = s.Exec(ctx, runtime.Command{Shell: "true"})
				counts[i]++
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	return &rate{clients, float64(total) / time.Since(start).Seconds()}, errors.Join(errs...)
}

// measureStreams copies a file each way, and sends the same bytes through a
// command's standard input and output: the bare stream.
func measureStreams(ctx context.Context, s *session.Session) ([]stream, error) {
	const size = 256 << 20
	dir, err := os.MkdirTemp("", "lumina-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	local := filepath.Join(dir, "file")
	if err := os.WriteFile(local, []byte(strings.Repeat("0123456789abcdef", size/16)), 0o600); err != nil {
		return nil, err
	}
	var streams []stream
	for _, m := range []struct {
		name string
		do   func() error
	}{
		{"stream in", func() error {
			f, err := os.Open(local)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = s.Exec(ctx, runtime.Command{Shell: "cat > /dev/null", Stdio: runtime.Stdio{Stdin: f}})
			return err
		}},
		{"cp in", func() error {
			_, err := s.CopyIn(ctx, local, "/tmp/lumina-bench", runtime.CopyOptions{})
			return err
		}},
		{"stream out", func() error {
			_, err := s.Exec(ctx, runtime.Command{Shell: "cat /tmp/lumina-bench", Stdio: runtime.Stdio{Stdout: io.Discard}})
			return err
		}},
		{"cp out", func() error {
			_, err := s.CopyOut(ctx, "/tmp/lumina-bench", filepath.Join(dir, "back"), runtime.CopyOptions{})
			return err
		}},
	} {
		start := time.Now()
		if err := m.do(); err != nil {
			return nil, fmt.Errorf("measuring %s: %w", m.name, err)
		}
		streams = append(streams, stream{m.name, size / 1e6 / time.Since(start).Seconds()})
	}
	_, err = s.Exec(ctx, runtime.Command{Shell: "rm /tmp/lumina-bench"})
	return streams, err
}

// ownMemory is how much memory only a process has, in bytes: pages of the program are
// every lumina process's, and the kernel takes them back when it needs them.
func ownMemory(pid int) (int64, error) {
	maps, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
	return 1024 * int64(statusField(string(maps), "\nAnonymous:")), err
}

// wakeups is how often a second the threads of a process are woken.
func wakeups(ctx context.Context, pid int, lasting time.Duration) (float64, error) {
	count := func() (float64, error) {
		threads, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task/*/status"))
		total := 0.0
		for _, t := range threads {
			status, err := os.ReadFile(t)
			if err != nil {
				return 0, err
			}
			total += statusField(string(status), "\nvoluntary_ctxt_switches:")
		}
		return total, err
	}
	before, err := count()
	if err != nil {
		return 0, err
	}
	select {
	case <-time.After(lasting):
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	after, err := count()
	return (after - before) / lasting.Seconds(), err
}

// statusField reads a number of a file in /proc/PID.
func statusField(status, name string) float64 {
	_, rest, _ := strings.Cut(status, name)
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	n, _ := strconv.ParseFloat(fields[0], 64)
	return n
}

func printSession(env *environment, report *sessionReport) error {
	f, err := outputFormat(env)
	if err != nil {
		return err
	}
	if f != formatText {
		return printJSON(env.stdout, report)
	}
	if err := printSamples(env, report.Execs...); err != nil {
		return err
	}
	for _, r := range report.Rates {
		fmt.Fprintf(env.stdout, "%-28s %8.1f execs/s\n", fmt.Sprintf("%d clients", r.Clients), r.PerSecond)
	}
	for _, s := range report.Streams {
		fmt.Fprintf(env.stdout, "%-28s %8.1f MB/s\n", s.Name, s.PerSecond)
	}
	fmt.Fprintf(env.stdout, "supervisor: %s of its own idle, %s after, %.1f wakeups/s idle\n",
		formatSize(report.Supervisor.Idle), formatSize(report.Supervisor.After), report.Supervisor.Wakeups)
	return nil
}
