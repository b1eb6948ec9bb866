package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/tracepoint"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// counted are the events that bench exits counts: what a start costs that no clock
// tells, whoever else uses the host.
var counted = []counting{
	{"exits", "kvm:kvm_exit", ""},
	// By what AMD's CPUs call the reason, and Intel's.
	why("halt", 0x78, 12),
	why("memory not there", 0x400, 48),
	why("MSR", 0x7c, 31, 32),
	why("port", 0x7b, 30),
	why("CPUID", 0x72, 10),
	why("interrupt of the host", 0x60, 1),
	why("interrupts are on again", 0x64, 7),
	why("timer of the host", noReason, 52),
	why("spinning", 0x77, 40),
	why("hypercall", 0x81, 18),
	{"exits to QEMU", "kvm:kvm_userspace_exit", ""},
	{"exits to QEMU, port", "kvm:kvm_userspace_exit", "reason == 2"},
	{"exits to QEMU, device memory", "kvm:kvm_userspace_exit", "reason == 6"},
	{"port", "kvm:kvm_pio", ""},
	{"device memory", "kvm:kvm_mmio", ""},
	{"guest page fault", "kvm:kvm_page_fault", ""},
	// Ticks, mostly: a slow guest has more of them.
	{"timer", "kvm:kvm_msr", "ecx == 0x6e0 || ecx == 0x838"},
	{"MSR", "kvm:kvm_msr", "ecx != 0x6e0 && ecx != 0x838"},
	{"CPUID", "kvm:kvm_cpuid", ""},
	{"interrupt injected", "kvm:kvm_inj_virq", ""},
	{"wait of a CPU", "kvm:kvm_vcpu_wakeup", ""},
	{"system calls", "raw_syscalls:sys_enter", ""},
	{"page faults", tracepoint.PageFaults, ""},
	{"context switches", tracepoint.ContextSwitches, ""},
}

type counting struct{ name, event, filter string }

// noReason is none of a CPU's.
const noReason = 0xffff

// why counts the exits for one reason: the number that it has on AMD's CPUs, and
// those on Intel's.
func why(name string, svm int, vmx ...int) counting {
	filter := fmt.Sprintf("(isa == 2 && exit_reason == %d)", svm)
	for _, n := range vmx {
		filter += fmt.Sprintf(" || (isa == 1 && exit_reason == %d)", n)
	}
	return counting{"exits, " + name, "kvm:kvm_exit", filter}
}

// bytesRead is what programs read by system calls, not what they map.
const bytesRead = "bytes read"

// counts are those of one operation: medians, by the names of counted.
type counts struct {
	Name   string            `json:"name"`
	Count  int               `json:"count"` // how often it was done
	Counts map[string]uint64 `json:"counts"`
}

func newBenchExitsCommand(env *environment) *cobra.Command {
	var image string
	count := atLeastOne(5)
	c := &cobra.Command{
		Use:   "exits",
		Short: "Count what a cold boot, a restore and an exec cost the host: exits, system calls, page faults, bytes read",
		Long: `Count what a cold boot, a restore and an exec cost the host: exits from the guest,
by kind, system calls, page faults and bytes read, of lumina and all that it
starts. The figures are medians. It needs root, Linux and its tracepoints
(mount -t tracefs tracefs /sys/kernel/tracing); there are exits only with KVM.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := env.openRuntime()
			if err != nil {
				return err
			}
			all, err := countExits(c.Context(), r, image, int(count))
			if err != nil {
				return err
			}
			return printCounts(env, all)
		},
	}
	c.Flags().StringVar(&image, "image", "default", "image to boot")
	c.Flags().Var(&count, "count", "how often")
	return c
}

func countExits(ctx context.Context, r *runtime.Runtime, image string, count int) ([]counts, error) {
	me, err := thisProgram()
	if err != nil {
		return nil, err
	}
	// Before the counting: an image that there is not is said at once.
	if err := r.MakeTemplate(ctx, runtime.VMOptions{Image: image, Network: network.ModeNAT}); err != nil && !errors.Is(err, vm.ErrUnsupported) {
		return nil, err
	}
	c, err := openCounters()
	if err != nil {
		return nil, err
	}
	defer c.close()
	var all []counts
	for _, b := range []struct{ name, env string }{{"cold", "LUMINA_TEMPLATE=0"}, {"from a template", ""}} {
		me.env = append(os.Environ(), b.env)
		one, err := c.measure(ctx, b.name+", run true", count, func() error {
			defer tracepoint.Bury() // QEMU may end after lumina
			return me.run(ctx, "run", "--image", image, "true")
		})
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	var out bytes.Buffer
	start := exec.CommandContext(ctx, me.path, "session", "start", "--image", image)
	start.Env, start.Stderr, start.Stdout = append(me.env, "LUMINA_FORMAT=json"), os.Stderr, &out
	if err := start.Run(); err != nil {
		return nil, err
	}
	var session struct{ SID string }
	if err := json.Unmarshal(out.Bytes(), &session); err != nil {
		return nil, err
	}
	// Also when ctx has ended.
	defer func() { _ = me.run(context.WithoutCancel(ctx), "session", "stop", session.SID) }()
	one, err := c.measure(ctx, "exec true", count, func() error { return me.run(ctx, "exec", session.SID, "true") })
	return append(all, one), err
}

// counters count for the processes that their goroutine starts.
type counters struct {
	names []string
	open  []*tracepoint.Counter
}

func openCounters() (_ *counters, err error) {
	goruntime.LockOSThread()
	c := &counters{}
	if err := tracepoint.Adopt(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	for _, e := range counted {
		if goruntime.GOARCH != "amd64" && strings.Contains(e.filter, "isa ==") {
			continue
		}
		one, err := tracepoint.Open(e.event, e.filter)
		if errors.Is(err, tracepoint.ErrNone) && strings.HasPrefix(e.event, "kvm:") {
			continue // of another architecture, or of a host without KVM
		}
		if err != nil {
			return nil, err
		}
		c.names, c.open = append(c.names, e.name), append(c.open, one)
	}
	return c, nil
}

func (c *counters) close() {
	for _, one := range c.open {
		one.Close()
	}
	goruntime.UnlockOSThread()
}

func (c *counters) read() (map[string]uint64, error) {
	now := map[string]uint64{}
	for i, one := range c.open {
		n, err := one.Read()
		if err != nil {
			return nil, err
		}
		now[c.names[i]] = n
	}
	n, err := readByChildren()
	now[bytesRead] = n
	return now, err
}

// readByChildren is how much this process has read, with those of its descendants
// that have ended.
func readByChildren() (uint64, error) {
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "rchar: ")
	line, _, _ := strings.Cut(rest, "\n")
	return strconv.ParseUint(line, 10, 64)
}

// measure calls do count times, after once that is not counted.
func (c *counters) measure(ctx context.Context, name string, count int, do func() error) (counts, error) {
	seen := map[string][]uint64{}
	for i := range count + 1 {
		before, err := c.read()
		if err != nil {
			return counts{}, err
		}
		if err := do(); err != nil {
			return counts{}, fmt.Errorf("counting %s: %w", name, err)
		}
		if err := context.Cause(ctx); err != nil {
			return counts{}, err
		}
		after, err := c.read()
		if err != nil {
			return counts{}, err
		}
		for event, n := range after {
			if i > 0 {
				seen[event] = append(seen[event], n-before[event])
			}
		}
	}
	one := counts{Name: name, Count: count, Counts: map[string]uint64{}}
	for event, all := range seen {
		slices.Sort(all)
		one.Counts[event] = all[count/2]
	}
	return one, nil
}

func printCounts(env *environment, all []counts) error {
	f, err := outputFormat(env)
	if err != nil {
		return err
	}
	if f != formatText {
		return printJSON(env.stdout, all)
	}
	fmt.Fprintf(env.stdout, "%-30s", filepath.Base(os.Args[0])+" "+version)
	for _, one := range all {
		fmt.Fprintf(env.stdout, "%28s", fmt.Sprintf("%s, %d ×", one.Name, one.Count))
	}
	fmt.Fprintln(env.stdout)
	for _, name := range append(names(), bytesRead) {
		if _, ok := all[0].Counts[name]; !ok {
			continue
		}
		fmt.Fprintf(env.stdout, "%-30s", name)
		for _, one := range all {
			fmt.Fprintf(env.stdout, "%28d", one.Counts[name])
		}
		fmt.Fprintln(env.stdout)
	}
	return nil
}

func names() []string {
	var all []string
	for _, e := range counted {
		all = append(all, e.name)
	}
	return all
}
