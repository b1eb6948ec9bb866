package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/strictyaml"
	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/forward"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/session"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// networkFile describes a network of VMs, in YAML or JSON.
type networkFile struct {
	Sessions []networkMember `yaml:"sessions"`
}

type networkMember struct {
	Name     string   `yaml:"name"`
	Image    string   `yaml:"image"`
	Pull     string   `yaml:"pull"`
	Memory   string   `yaml:"memory"`
	CPUs     int      `yaml:"cpus"`
	DiskSize string   `yaml:"disk_size"`
	Volumes  []string `yaml:"volumes"`
	Forwards []string `yaml:"forwards"`
}

// member is a session of the network, and when its image is fetched.
type member struct {
	session.Options
	pull builder.PullPolicy
}

// maxMembers is how many VMs a network may have: 10.0.3.1 and up.
const maxMembers = 64

func newNetworkCommand(env *environment) *cobra.Command {
	var timeout timeSpan
	run := &cobra.Command{
		Use:   "run FILE",
		Short: "Start the sessions of a file on a network of their own, until Ctrl-C",
		Long: `Start the sessions of a file on a network of their own, until Ctrl-C, --timeout,
or the end of one of them.

They find each other by name. They reach nothing outside this network. FILE is YAML
or JSON, and - is standard input:

  sessions:
    - name: db
      image: debian
      volumes: [data:/var/lib/db]
    - name: web
      image: debian
      memory: 2GB
      forwards: ["8080:80"]`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			members, err := readNetwork(env, args[0])
			if err != nil {
				return err
			}
			return runNetwork(c.Context(), env, members, time.Duration(timeout))
		},
	}
	run.Flags().Var(&timeout, "timeout", "end after this time, such as 10m")
	return newGroup("network", "Run several VMs on a network of their own", run)
}

func readNetwork(env *environment, name string) ([]member, error) {
	b, err := env.readInput(name, 1<<20)
	if err != nil {
		return nil, usageError{fmt.Errorf("the network's file: %w", err)}
	}
	var file networkFile
	if err := strictyaml.Read(b, &file); err != nil {
		var at *strictyaml.Error
		if errors.As(err, &at) {
			return nil, usageError{fmt.Errorf("%s:%d: %s", name, at.Line, at.Message)}
		}
		return nil, usageError{fmt.Errorf("%s: %w", name, err)}
	}
	members, err := file.options(env)
	if err != nil {
		return nil, usageError{fmt.Errorf("%s: %w", name, err)}
	}
	return members, nil
}

var hostName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`) })

// options are those of the sessions, all but their ports.
func (f *networkFile) options(env *environment) ([]member, error) {
	if len(f.Sessions) == 0 || len(f.Sessions) > maxMembers {
		return nil, fmt.Errorf("%d sessions: want 1 to %d", len(f.Sessions), maxMembers)
	}
	home, err := runtime.Home(env.getenv("LUMINA_HOME"))
	if err != nil {
		return nil, err
	}
	var all []member
	var hosts []runtime.Host
	seen := map[string]bool{}
	for i, m := range f.Sessions {
		o, err := m.options(env)
		if err != nil {
			return nil, fmt.Errorf("session %d (%q): %w", i+1, m.Name, err)
		}
		if seen[m.Name] {
			return nil, fmt.Errorf("session %d: there are two of the name %q", i+1, m.Name)
		}
		seen[m.Name] = true
		address := fmt.Sprintf("10.0.3.%d", i+1)
		hosts = append(hosts, runtime.Host{Name: m.Name, Address: address})
		o.Home, o.Name = home, m.Name
		o.VM.Member = &runtime.Member{Name: m.Name, MAC: vm.NewMAC().String(), Address: address + "/24"}
		all = append(all, o)
	}
	for i := range all {
		all[i].VM.Member.Hosts = append(append([]runtime.Host{}, hosts[:i]...), hosts[i+1:]...)
	}
	return all, nil
}

func (m *networkMember) options(env *environment) (member, error) {
	var o member
	if !hostName().MatchString(m.Name) {
		return o, errors.New("the name is not a host name: lower-case letters, digits and '-'")
	}
	flags := vmFlags{image: m.Image, pull: m.Pull, cpus: cpuCount(m.CPUs), volumes: m.Volumes, network: string(network.ModeNone)}
	if flags.image == "" {
		flags.image = defaultImage
	}
	if flags.pull == "" {
		flags.pull = string(builder.PullMissing)
	}
	o.pull = builder.PullPolicy(flags.pull)
	for _, size := range []struct {
		text string
		to   *byteSize
	}{{m.Memory, &flags.memory}, {m.DiskSize, &flags.disk}} {
		if size.text == "" {
			continue
		}
		n, err := parseSize(size.text)
		if err != nil {
			return o, err
		}
		*size.to = byteSize(n)
	}
	var err error
	if o.VM, err = flags.options(env); err != nil {
		return o, err
	}
	o.Forwards, err = forward.ParseAll(m.Forwards)
	return o, err
}

// memberRow is a session of a network that is up.
type memberRow struct {
	Name    string `json:"name"`
	SID     string `json:"sid"`
	Address string `json:"address"`
}

func runNetwork(ctx context.Context, env *environment, members []member, timeout time.Duration) error {
	report, err := newReport(env)
	if err != nil {
		return err
	}
	for i := range members {
		m := &members[i]
		if err := obtainImage(ctx, env, m.Home, &m.VM.Image, obtaining{policy: m.pull}); err != nil {
			return report.fail(err)
		}
	}
	lan := network.NewSwitch()
	defer lan.Close()
	sessions, err := startMembers(ctx, env, lan, members)
	// Whatever ends the network ends all of it.
	defer stopAll(sessions)
	if err != nil {
		return report.fail(err)
	}
	var rows []memberRow
	for i, s := range sessions {
		rows = append(rows, memberRow{members[i].VM.Member.Name, s.Info.SID, members[i].VM.Member.Address})
	}
	if report.format == formatText {
		for _, r := range rows {
			fmt.Fprintf(env.stdout, "%s  %s  %s\n", r.SID, r.Address, r.Name)
		}
	} else if err := report.lines.print(map[string]any{"sessions": rows}); err != nil {
		return err
	}
	over := errors.New("its time is over")
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, over)
		defer cancel()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, len(sessions))
	for i, s := range sessions {
		go func() {
			err := s.Wait(ctx)
			if err == nil {
				err = &runtime.Error{Kind: runtime.SessionDisconnected, Err: errors.New("it was stopped")}
			}
			ended <- fmt.Errorf("session %s (%s): %w", s.Info.SID, members[i].VM.Member.Name, err)
		}()
	}
	select {
	case err = <-ended:
	case <-ctx.Done():
	}
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, over) {
			return nil
		}
		return cause
	}
	return report.fail(err)
}

// startMembers starts all sessions at once. Those that did start are returned
// with an error, too.
func startMembers(ctx context.Context, env *environment, lan *network.Switch, members []member) ([]*session.Session, error) {
	sessions, errs := make([]*session.Session, len(members)), make([]error, len(members))
	var wg sync.WaitGroup
	for i := range members {
		mac, err := net.ParseMAC(members[i].VM.Member.MAC)
		if err != nil {
			return nil, err
		}
		port, err := lan.Connect(mac)
		if err != nil {
			return nil, err
		}
		members[i].Port = port
		wg.Go(func() {
			defer port.Close()
			sessions[i], errs[i] = env.supervised(ctx, members[i].Options)
		})
	}
	wg.Wait()
	var started []*session.Session
	for _, s := range sessions {
		if s != nil {
			started = append(started, s)
		}
	}
	for _, err := range errs {
		if err != nil {
			return started, err
		}
	}
	return started, nil
}

// stopAll stops sessions side by side; one that has ended needs no stop.
func stopAll(sessions []*session.Session) {
	var wg sync.WaitGroup
	for _, s := range sessions {
		wg.Go(func() { _ = s.Stop(context.Background()) })
	}
	wg.Wait()
}
