package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/cosign"
	"github.com/abdul-abdi/lumina/builder/reference"
	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/share"
	"github.com/abdul-abdi/lumina/runtime/volume"
)

// vmFlags are the flags of every command that starts a VM.
type vmFlags struct {
	image string
	pull  string
	// verifyKey is a file, trust what is in it, once options has read it.
	verifyKey string
	trust     *cosign.PublicKey
	maxSize   byteSize // of an image that is fetched
	memory    byteSize
	disk      byteSize
	cpus      cpuCount
	network   string
	lan       bool
	volumes   []string
	hostname  string
	init      initFlag
	nested    bool
	boot      bootTime
	// noTemplate also comes from LUMINA_TEMPLATE=0.
	noTemplate bool
}

func (f *vmFlags) register(c *cobra.Command, env *environment) {
	flags := c.Flags()
	flags.StringVar(&f.image, "image", defaultImage, "image to boot: a local image, or a reference as for images create --from, such as debian:12")
	flags.StringVar(&f.pull, "pull", string(builder.PullMissing), "when to fetch it: missing, always or never")
	flags.StringVar(&f.verifyKey, "verify-key", "", "accept only registry images signed with this public key (cosign)")
	flags.Var(&f.maxSize, "max-size", "refuse images that take more space than this, such as 20GB (default half of the free space)")
	flags.VarP(&f.memory, "memory", "m", "memory of the VM (default $LUMINA_MEMORY or 1GB)")
	flags.Var(&f.cpus, "cpus", "CPUs of the VM (default $LUMINA_CPUS or 2)")
	flags.Var(&f.disk, "disk-size", "size of the VM's own disk (default $LUMINA_DISK_SIZE or 16GB)")
	flags.StringVar(&f.network, "network", "", "what the VM can reach: nat, none, or allow=HOST[:PORT],*.HOST,CIDR,… A name allows TLS and HTTP/1 to it; a name with another protocol's port, such as github.com:22, allows that port of its address (default $LUMINA_NETWORK or nat)")
	flags.BoolVar(&f.lan, "allow-lan", false, "also allow private addresses; this host's own are never reachable")
	flags.Bool("no-wait-network", false, "no effect, accepted for compatibility: the network is always ready when the VM has booted")
	flags.StringArrayVarP(&f.volumes, "volume", "v", nil, "NAME:PATH[:ro], a volume, made if it does not exist, or DIR:PATH[:ro], a directory of this host (repeatable)")
	flags.StringVarP(&f.hostname, "hostname", "h", "", "the host name of the VM (default a generated one)")
	flags.Bool("help", false, "print this help; so does -h without a name") // cobra's own has -h
	flags.Var(&f.init, "init", "PID 1: lumina, or systemd, the image's own (default the image's choice)")
	flags.BoolVar(&f.nested, "nested", false, "let the guest run VMs itself (nested virtualization); only for guests you trust more than others")
	flags.BoolVar(&f.noTemplate, "no-template", false, "start cold, without a template (also LUMINA_TEMPLATE=0)")
	flags.Var(&f.boot, "boot-timeout", "give up a guest that does not answer for this time, such as 5m (default $LUMINA_BOOT_TIMEOUT, or 1m; 3m with systemd, 5m with volumes)")
	for name, complete := range map[string]cobra.CompletionFunc{
		"image":   completeNames(env, imageStore),
		"pull":    cobra.FixedCompletions([]string{"missing", "always", "never"}, cobra.ShellCompDirectiveNoFileComp),
		"volume":  completeNames(env, volumeStore),
		"init":    cobra.FixedCompletions([]string{image.InitLumina, image.InitSystemd}, cobra.ShellCompDirectiveNoFileComp),
		"network": cobra.FixedCompletions([]string{string(network.ModeNAT), string(network.ModeNone), "allow="}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace),
	} {
		// It fails for flags that do not exist only.
		_ = c.RegisterFlagCompletionFunc(name, complete)
	}
}

// cpuCount is a flag: a number of CPUs; 0 is none given.
type cpuCount int

func (p *cpuCount) String() string {
	if *p == 0 {
		return ""
	}
	return strconv.Itoa(int(*p))
}

func (p *cpuCount) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > runtime.MaxCPUs {
		return fmt.Errorf("want 1 to %d", runtime.MaxCPUs)
	}
	*p = cpuCount(n)
	return nil
}

func (p *cpuCount) Type() string { return "int" }

// initFlag is a flag: who is PID 1.
type initFlag string

func (f *initFlag) String() string { return string(*f) }

func (f *initFlag) Set(s string) error {
	if err := image.CheckInit(s); err != nil || s == "" {
		return fmt.Errorf("want %s or %s; PID 1 reaps orphans without it", image.InitLumina, image.InitSystemd)
	}
	*f = initFlag(s)
	return nil
}

func (f *initFlag) Type() string { return "string" }

// options joins flags and environment; flags win.
func (f *vmFlags) options(env *environment) (runtime.VMOptions, error) {
	o := runtime.VMOptions{Image: f.image, CPUs: int(f.cpus), Memory: int64(f.memory), DiskSize: int64(f.disk),
		Network: network.Mode(f.network), AllowLAN: f.lan, Hostname: f.hostname, Init: string(f.init), Nested: f.nested, NoTemplate: f.noTemplate || env.getenv("LUMINA_TEMPLATE") == "0",
		NoRehearsal: env.getenv("LUMINA_REHEARSE") == "0", AnnouncedSockets: env.getenv("LUMINA_RAW_SOCKETS") == "0"}
	for _, name := range []string{"LUMINA_TEMPLATE", "LUMINA_REHEARSE", "LUMINA_RAW_SOCKETS"} {
		if v := env.getenv(name); v != "" && v != "0" && v != "1" {
			return o, usageError{fmt.Errorf("%s=%q: want 0 or 1", name, v)}
		}
	}
	if err := checkImage(f.image); err != nil {
		return o, usageError{fmt.Errorf("--image: %w", err)}
	}
	if err := builder.PullPolicy(f.pull).Check(); err != nil {
		return o, usageError{fmt.Errorf("--pull %w", err)}
	}
	var err error
	if f.trust, err = verifyingKey(f.verifyKey); err != nil {
		return o, err
	}
	if f.trust != nil && image.CheckName(f.image) != nil {
		if ref, err := reference.Parse(f.image); err != nil || builder.CheckSigned(ref) != nil {
			return o, usageError{fmt.Errorf("--verify-key: --image %q is not of a registry, and only what is in one has signatures", f.image)}
		}
	}
	if f.hostname != "" {
		if err := runtime.CheckHostname(f.hostname); err != nil {
			return o, usageError{err}
		}
	}
	switch o.Network {
	case "bridge", "default": // as docker calls it
		o.Network = network.ModeNAT
	case "":
		o.Network = network.Mode(env.getenv("LUMINA_NETWORK"))
	}
	if o.Network == "" {
		o.Network = network.ModeNAT
	}
	if err := o.Network.Check(); err != nil {
		return o, usageError{err}
	}
	for _, v := range f.volumes {
		parsed, err := parseVolume(v)
		if err != nil {
			return o, usageError{err}
		}
		o.Volumes = append(o.Volumes, parsed)
	}
	if err := runtime.CheckVolumes(o.Volumes); err != nil {
		return o, usageError{err}
	}
	for _, size := range []struct {
		name string
		to   *int64
	}{{"LUMINA_MEMORY", &o.Memory}, {"LUMINA_DISK_SIZE", &o.DiskSize}} {
		if v := env.getenv(size.name); v != "" && *size.to == 0 {
			n, err := parseSize(v)
			if err != nil {
				return o, usageError{fmt.Errorf("%s: %w", size.name, err)}
			}
			*size.to = n
		}
	}
	if o.DiskReserve, err = diskReserve(env); err != nil {
		return o, err
	}
	if v := env.getenv("LUMINA_BOOT_TIMEOUT"); v != "" && f.boot.timeSpan == 0 {
		if err := f.boot.Set(v); err != nil {
			return o, usageError{fmt.Errorf("LUMINA_BOOT_TIMEOUT=%q: %w", v, err)}
		}
	}
	o.BootTimeout = time.Duration(f.boot.timeSpan)
	if v := env.getenv("LUMINA_CPUS"); v != "" && o.CPUs == 0 {
		var n cpuCount
		if err := n.Set(v); err != nil {
			return o, usageError{fmt.Errorf("LUMINA_CPUS=%q: %w", v, err)}
		}
		o.CPUs = int(n)
	}
	if err := o.CheckSize(); err != nil {
		return o, usageError{err}
	}
	return o, nil
}

// diskReserve is LUMINA_DISK_RESERVE, what of the host's disk is kept free.
func diskReserve(env *environment) (int64, error) {
	switch v := env.getenv("LUMINA_DISK_RESERVE"); v {
	case "":
		return 0, nil
	case "0":
		return runtime.NoDiskReserve, nil
	default:
		n, err := parseSize(v)
		if err != nil {
			return 0, usageError{fmt.Errorf("LUMINA_DISK_RESERVE: %w", err)}
		}
		return n, nil
	}
}

// parseVolume reads NAME:PATH or DIR:PATH, each with :ro or without; a directory is
// written with a slash.
func parseVolume(s string) (runtime.Volume, error) {
	rest, readOnly, err := volumeOptions(s)
	if err != nil {
		return runtime.Volume{}, err
	}
	i := strings.LastIndexByte(rest, ':')
	if i <= 0 || !strings.HasPrefix(rest[i+1:], "/") {
		return runtime.Volume{}, fmt.Errorf("--volume %q is not NAME:PATH or DIR:PATH[:ro], with an absolute PATH in the VM", s)
	}
	v := runtime.Volume{Path: path.Clean(rest[i+1:]), ReadOnly: readOnly}
	from := rest[:i]
	if !strings.Contains(from, "/") && from != "." && from != ".." {
		v.Name = from
		return v, volume.CheckName(from)
	}
	if v.Dir, err = filepath.Abs(from); err != nil {
		return v, err
	}
	info, err := os.Stat(v.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%s: no such file or directory; make it first, or name a volume: NAME:%s", v.Dir, v.Path)
	case err == nil && !info.IsDir():
		err = fmt.Errorf("%s is not a directory; copy a file with --copy %s:%s", v.Dir, v.Dir, v.Path)
	case err == nil:
		err = share.Check(v.Dir)
	}
	if err != nil {
		return v, fmt.Errorf("--volume %q: %w", s, err)
	}
	return v, nil
}

// volumeOptions cuts docker's options off a volume: ro and rw, and those that change
// nothing here, as there are no SELinux labels and no caches to choose.
func volumeOptions(s string) (rest string, readOnly bool, err error) {
	i := strings.LastIndexByte(s, ':')
	if i <= 0 || !strings.Contains(s[:i], ":") || strings.HasPrefix(s[i+1:], "/") {
		return s, false, nil
	}
	for o := range strings.SplitSeq(s[i+1:], ",") {
		switch o {
		case "ro":
			readOnly = true
		case "rw", "z", "Z", "cached", "consistent", "delegated":
		default:
			return "", false, fmt.Errorf("--volume %q: no option %q; there are ro and rw", s, o)
		}
	}
	return s[:i], readOnly, nil
}

// obtain makes the image of o one that is here.
func (f *vmFlags) obtain(ctx context.Context, env *environment, home string, o *runtime.VMOptions) error {
	return obtainImage(ctx, env, home, &o.Image, obtaining{builder.PullPolicy(f.pull), f.trust, int64(f.maxSize)})
}

// timeoutOf is the --timeout flag, if it was given, or LUMINA_TIMEOUT; 0 for none.
func timeoutOf(env *environment, flag timeSpan, given bool) (time.Duration, error) {
	if v := env.getenv("LUMINA_TIMEOUT"); v != "" && !given {
		d, err := parseTime(v)
		if err != nil {
			return 0, usageError{fmt.Errorf("LUMINA_TIMEOUT=%w", err)}
		}
		return d, nil
	}
	return time.Duration(flag), nil
}
