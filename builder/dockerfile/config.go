package dockerfile

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"golang.org/x/sys/unix"
)

// defaultPath is the PATH of an image that is made from nothing.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// emptyConfig is that of FROM scratch.
func emptyConfig() *v1.ConfigFile {
	return &v1.ConfigFile{OS: "linux", Config: v1.Config{Env: []string{defaultPath}, WorkingDir: "/"}}
}

// configure does what an instruction says of the image's configuration; done is
// false for one that changes files.
func (s *stage) configure(c instructions.Command) (done bool, err error) {
	config := &s.config.Config
	created := ""
	switch c := c.(type) {
	case *instructions.EnvCommand:
		created = "ENV"
		for _, e := range c.Env {
			created += " " + e.String()
			s.env = s.env.with(e.Key, e.Value)
			config.Env = environ(config.Env).with(e.Key, e.Value)
		}
	case *instructions.LabelCommand:
		created = "LABEL"
		for _, l := range c.Labels {
			created += " " + l.String()
			if config.Labels == nil {
				config.Labels = map[string]string{}
			}
			config.Labels[l.Key] = l.Value
		}
	case *instructions.MaintainerCommand:
		s.config.Author = c.Maintainer
		created = "MAINTAINER " + c.Maintainer
	case *instructions.OnbuildCommand:
		config.OnBuild = append(config.OnBuild, c.Expression)
		created = "ONBUILD " + c.Expression
	case *instructions.CmdCommand:
		config.Cmd = s.commandLine(c.ShellDependantCmdLine)
		config.ArgsEscaped = true
		s.cmdSet = true
		created = fmt.Sprintf("CMD %q", config.Cmd)
	case *instructions.EntrypointCommand:
		config.Entrypoint = s.commandLine(c.ShellDependantCmdLine)
		if !s.cmdSet {
			config.Cmd = nil // the base's goes with the base's entry point
		}
		created = fmt.Sprintf("ENTRYPOINT %q", config.Entrypoint)
	case *instructions.HealthCheckCommand:
		config.Healthcheck = &v1.HealthConfig{Test: c.Health.Test, Interval: c.Health.Interval, Timeout: c.Health.Timeout,
			StartPeriod: c.Health.StartPeriod, Retries: c.Health.Retries}
		created = fmt.Sprintf("HEALTHCHECK %+v", *config.Healthcheck)
	case *instructions.ExposeCommand:
		ports, err := s.ports(c.Ports)
		if err != nil {
			return true, err
		}
		for _, p := range ports {
			if config.ExposedPorts == nil {
				config.ExposedPorts = map[string]struct{}{}
			}
			config.ExposedPorts[p] = struct{}{}
		}
		created = fmt.Sprintf("EXPOSE %v", ports)
	case *instructions.UserCommand:
		config.User = c.User
		created = "USER " + c.User
	case *instructions.VolumeCommand:
		for _, v := range c.Volumes {
			if v == "" {
				return true, fmt.Errorf("VOLUME: a path is empty")
			}
			if config.Volumes == nil {
				config.Volumes = map[string]struct{}{}
			}
			config.Volumes[v] = struct{}{}
		}
		created = fmt.Sprintf("VOLUME %v", c.Volumes)
	case *instructions.StopSignalCommand:
		if err := checkSignal(c.Signal); err != nil {
			return true, err
		}
		config.StopSignal = c.Signal
		created = "STOPSIGNAL " + c.Signal
	case *instructions.ShellCommand:
		config.Shell = c.Shell
		created = fmt.Sprintf("SHELL %v", c.Shell)
	case *instructions.ArgCommand:
		if created, err = s.declare(c); err != nil {
			return true, err
		}
	default:
		return false, nil
	}
	s.history(created, true)
	return true, nil
}

// realTime are the signals that have no name of their own.
var realTime = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^SIGRT(MIN(\+([1-9]|1[0-5]))?|MAX(-([1-9]|1[0-4]))?)$`)
})

func checkSignal(s string) error {
	if !isSignal(s) {
		return fmt.Errorf("STOPSIGNAL %q: want a signal's name or number, such as SIGTERM or 15", s)
	}
	return nil
}

// isSignal says whether Linux has a signal of that name or number.
func isSignal(s string) bool {
	if n, err := strconv.Atoi(s); err == nil {
		return n >= 1 && n <= 64
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
	switch name {
	case "SIGCLD", "SIGPOLL", "SIGPWR", "SIGSTKFLT": // which macOS has not
		return true
	}
	return unix.SignalNum(name) != 0 || realTime().MatchString(name)
}

// declare is ARG: the variable has the value of the call, else the default, else
// that of an ARG before the first FROM.
func (s *stage) declare(c *instructions.ArgCommand) (string, error) {
	created := "ARG"
	for _, a := range c.Args {
		name, err := s.expand(a.Key)
		if err != nil {
			return "", err
		}
		value, ok := s.b.o.Args[name]
		if ok {
			s.b.use(name)
		}
		if !ok && a.Value != nil {
			if value, err = s.expand(*a.Value); err != nil {
				return "", err
			}
			ok = true
		} else if !ok {
			value, ok = s.b.global.get(name)
		}
		created += " " + name
		s.args = append(s.args, name)
		if ok {
			created += "=" + value
			s.env = s.env.with(name, value)
		}
	}
	return created, nil
}

func (s *stage) history(created string, empty bool) {
	s.config.History = append(s.config.History, v1.History{Created: v1.Time{Time: s.b.place.Image.Created}, CreatedBy: created, Comment: "lumina", EmptyLayer: empty})
}

// commandLine is what is run for a shell form or an exec form.
func (s *stage) commandLine(c instructions.ShellDependantCmdLine) []string {
	if !c.PrependShell {
		return c.CmdLine
	}
	shell := s.config.Config.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(shell[:len(shell):len(shell)], strings.Join(c.CmdLine, " "))
}

// ports are those of EXPOSE: PORT[-PORT][/PROTOCOL]. An address and a port of the
// host before it, as in docker run -p, say nothing here.
func (s *stage) ports(list []string) ([]string, error) {
	var ports []string
	for _, p := range list {
		values := s.b.bounded(p, s.env)
		words, err := s.b.o.File.lex().ProcessWords(p, values)
		if err := cmp.Or(s.b.spend(values, 0), wordError(p, err)); err != nil {
			return nil, err
		}
		for _, w := range words {
			r, err := parsePorts(w)
			if err != nil {
				return nil, err
			}
			if len(ports)+int(r.last-r.first) >= maxPorts {
				return nil, fmt.Errorf("EXPOSE has more than %d ports", maxPorts)
			}
			for n := r.first; n <= r.last; n++ {
				ports = append(ports, fmt.Sprintf("%d/%s", n, r.protocol))
			}
		}
	}
	return ports, nil
}

// maxPorts bounds those of an instruction: all of each protocol, and some twice.
const maxPorts = 1 << 18

// portRange are ports of EXPOSE.
type portRange struct {
	first, last uint64
	protocol    string
}

func parsePorts(word string) (portRange, error) {
	bad := fmt.Errorf("EXPOSE %q: want PORT, PORT-PORT, or either with /tcp, /udp or /sctp", word)
	port := word[strings.LastIndexByte(word, ':')+1:]
	port, protocol, ok := strings.Cut(port, "/")
	if !ok {
		protocol = "tcp"
	}
	if protocol = strings.ToLower(protocol); protocol != "tcp" && protocol != "udp" && protocol != "sctp" {
		return portRange{}, bad
	}
	first, last, isRange := strings.Cut(port, "-")
	if !isRange {
		last = first
	}
	from, fromErr := strconv.ParseUint(first, 10, 16)
	to, toErr := strconv.ParseUint(last, 10, 16)
	if fromErr != nil || toErr != nil || from > to {
		return portRange{}, bad
	}
	return portRange{from, to, protocol}, nil
}

// absolute resolves a path of an instruction against the working directory; a
// slash at its end stays.
func (s *stage) absolute(p string) string {
	slash := ""
	if strings.HasSuffix(p, "/") || p == "." || p == "" || strings.HasSuffix(p, "/.") {
		slash = "/"
	}
	if !path.IsAbs(p) {
		p = path.Join("/", s.config.Config.WorkingDir, p)
	}
	if p = path.Clean(p); p == "/" {
		return p
	}
	return p + slash
}
