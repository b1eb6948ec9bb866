package vz

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/cpio"
	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/initramfs"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
	kernelconfig "github.com/abdul-abdi/lumina/kernel-config"
	"github.com/abdul-abdi/lumina/runtime/client"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/vm"
	"github.com/abdul-abdi/lumina/runtime/vm/vmtest"
	"github.com/abdul-abdi/lumina/runtime/volume"
)

// bench is a driver over the simulation, and an image for its machines.
type bench struct {
	sim    *simulation
	driver *Driver
	target vmtest.Target
}

func newBench(t *testing.T) *bench { return newBenchOf(t, "amd64") }

// newBenchOf is that of a Mac of an architecture.
func newBenchOf(t *testing.T, arch string) *bench {
	t.Helper()
	if testing.Short() {
		t.Skip("it boots VMs")
	}
	layout := buildertest.DebianFor(t, arch)
	store := image.NewStore(filepath.Join(t.TempDir(), "images"))
	b := &bench{sim: &simulation{log: t.Logf, hold: 300 * time.Millisecond, arm64: arch == "arm64"}}
	b.driver = &Driver{framework: b.sim, cacheDir: t.TempDir()}
	if _, err := builder.Create(t.Context(), builder.Options{
		Name: "debian", Reference: "oci:" + layout + ":latest", Architecture: arch, Store: store, CacheDir: t.TempDir(), Kernel: macKernel, Initramfs: initramfs.Read,
	}); err != nil {
		t.Fatal(err)
	}
	b.target = vmtest.OfImage(b.driver, store, "debian")
	return b
}

// macKernel is what a Mac boots: one with an Intel CPU the bzImage.
func macKernel(arch string) (builder.Kernel, error) {
	k, err := kernelconfig.OpenEFI(arch)
	if err != nil {
		return builder.Kernel{}, err
	}
	return builder.Kernel{Version: k.Version, CommandLine: kernelconfig.CommandLine(arch), Default: true, Open: k.Open}, nil
}

// The driver keeps the contract of drivers, over a framework that does what
// Apple's does.
func TestSuite(t *testing.T) { vmtest.Run(t, newBench(t).target) }

// What the suite does not ask of every driver.
func TestFramework(t *testing.T) {
	b := newBench(t)
	start := func(t *testing.T, spec vm.Spec) vm.Machine {
		t.Helper()
		m, err := b.driver.Start(context.Background(), spec)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			m.Kill()
			<-m.Done()
		})
		return m
	}
	configure := func(t *testing.T, m vm.Machine, c *protocol.Configure) {
		t.Helper()
		c.Hostname, c.MachineID, c.Seed = "mac", strings.Repeat("0a", 16), []byte("seed")
		conn, err := m.Dial(t.Context())
		if err == nil {
			_, err = client.Configure(t.Context(), conn, c)
		}
		if err != nil {
			t.Fatalf("%v; console: %s", err, m.Console())
		}
	}
	t.Run("a guest that resets ends its machine", func(t *testing.T) {
		m := start(t, b.target.Spec(t))
		configure(t, m, &protocol.Configure{})
		_, _ = vmtest.Shell(t.Context(), m, "echo b >/proc/sysrq-trigger")
		<-m.Done()
		if err := m.Err(); err == vm.ErrEnded || !strings.Contains(err.Error(), "reset") {
			t.Errorf("Err is %v, want that the guest reset", err)
		}
	})
	t.Run("a panic before the agent is told, with its text", func(t *testing.T) {
		m := start(t, b.target.NoAgent(t))
		<-m.Done()
		if err := m.Err(); err == vm.ErrEnded || !strings.Contains(err.Error(), "panicked") {
			t.Errorf("Err is %v", err)
		}
		if !strings.Contains(m.Console(), panicText) {
			t.Errorf("console: %s", m.Console())
		}
	})
	t.Run("an early init that resets is told", func(t *testing.T) {
		spec := b.target.Spec(t)
		spec.Initramfs = resettingInit(t)
		m := start(t, spec) // its kernel resets by a triple fault, see reboot=t
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := m.Dial(ctx)
		if want := "reset before its agent"; err == nil || !errors.Is(err, vm.ErrEnded) || !strings.Contains(err.Error(), want) {
			t.Fatalf("Dial: %v, want %q; console: %s", err, want, m.Console())
		}
	})
	t.Run("a watchdog that resets a guest without an agent is told", func(t *testing.T) {
		m := start(t, b.target.Silent(t))
		limit := time.After(time.Minute)
		// A guest that is reset before its init begins is one that is still starting: what its
		// kernel says of its command line has the text, too.
		for !strings.Contains(strings.ReplaceAll(m.Console(), protocol.ParamBegins.Is(beginsText), ""), beginsText) {
			select {
			case <-limit:
				t.Fatalf("no init; console: %s", m.Console())
			case <-m.Done():
				t.Fatalf("ended before it was reset: %v", m.Err())
			case <-time.After(50 * time.Millisecond):
			}
		}
		if err := m.(*machine).vm.(*simulated).command("system_reset", nil); err != nil {
			t.Fatal(err)
		}
		select {
		case <-m.Done():
		case <-time.After(time.Minute):
			t.Fatalf("it goes on; console: %s", m.Console())
		}
		// Its agent may have been there for a moment, and then its going tells.
		if err := m.Err(); err == vm.ErrEnded || !strings.Contains(err.Error(), "reset before its agent") && !strings.Contains(err.Error(), "agent has gone") {
			t.Errorf("Err is %v", err)
		}
	})
	t.Run("disks that stay locked for a moment are waited for", func(t *testing.T) {
		spec := b.target.Spec(t)
		first := start(t, spec)
		first.Kill()
		<-first.Done()
		second := start(t, spec)
		configure(t, second, &protocol.Configure{})
	})
	t.Run("a disk that stays locked is told, and waiting for it ends with the context", func(t *testing.T) {
		spec := b.target.Spec(t)
		if err := unix.Flock(int(spec.Disks[1].File.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			t.Fatal(err)
		}
		tired := errors.New("out of patience")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, tired)
		defer cancel()
		if m, err := b.driver.Start(ctx, spec); !errors.Is(err, tired) {
			if err == nil {
				m.Kill()
			}
			t.Errorf("%v, want the cause of the context's end", err)
		}
	})
	t.Run("the NIC's socket may be closed after the start", func(t *testing.T) {
		spec := b.target.Spec(t)
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
		defer ours.Close()
		spec.Network = &vm.NIC{MAC: vm.NewMAC(), Socket: theirs, MTU: 1500}
		m := start(t, spec)
		theirs.Close()
		configure(t, m, &protocol.Configure{Network: &protocol.Interface{MAC: spec.Network.MAC.String(), Address: "192.0.2.2/24", MTU: 1500}})
		go func() {
			_, _ = vmtest.Shell(context.Background(), m, "bash -c 'echo x >/dev/udp/192.0.2.1/9'")
		}()
		if err := ours.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		frame := make([]byte, 2000)
		if n, err := ours.Read(frame); err != nil || n < 14 {
			t.Errorf("no frame of the guest came: %d, %v", n, err)
		}
	})
	t.Run("a VM has a volume, whose disk the framework locks, to its end", func(t *testing.T) {
		volumes := volume.NewStore(t.TempDir())
		if err := volumes.Create("data", 64<<20); err != nil {
			t.Fatal(err)
		}
		disk, err := volumes.Open("data")
		if err != nil {
			t.Fatal(err)
		}
		spec := b.target.Spec(t)
		spec.Disks = append(spec.Disks, vm.Disk{File: disk.File, Lock: disk.Lock, Serial: protocol.DiskVolume + "0"})
		m := start(t, spec)
		disk.Close() // the spec's files may be closed
		configure(t, m, &protocol.Configure{Mounts: []protocol.Mount{{Path: "/data", Disk: protocol.DiskVolume + "0"}}})
		if out, err := vmtest.Shell(t.Context(), m, "echo kept >/data/file && cat /data/file"); err != nil || out != "kept\n" {
			t.Errorf("in the volume: %q, %v", out, err)
		}
		// Its clock, which stands still while the host sleeps.
		conn, err := m.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := vmtest.Shell(t.Context(), m, "date -s @1000000000"); err != nil {
			t.Fatal(err)
		}
		if err := client.SetClock(t.Context(), conn); err != nil {
			t.Error(err)
		}
		out, err := vmtest.Shell(t.Context(), m, "date +%s")
		if at, _ := strconv.ParseInt(strings.TrimSpace(out), 10, 64); err != nil || time.Since(time.Unix(at, 0)).Abs() > time.Minute {
			t.Errorf("after its clock was set, it is %q, %v", out, err)
		}
		if other, err := volumes.Open("data"); !errors.Is(err, volume.ErrInUse) {
			if err == nil {
				other.Close()
			}
			t.Errorf("a second VM: %v, want that it is in use", err)
		}
		m.Kill()
		<-m.Done()
		again, err := volumes.Open("data")
		if err != nil {
			t.Fatal(err)
		}
		again.Close()
	})
	t.Run("programs of the other architecture run by the host's translator", func(t *testing.T) {
		spec := b.target.Spec(t)
		spec.Rosetta = true
		if m, err := b.driver.Start(t.Context(), spec); !errors.Is(err, vm.ErrUnsupported) {
			if err == nil {
				m.Kill()
			}
			t.Fatalf("on a host without: %v, want ErrUnsupported", err)
		}
		b.sim.translator = t.TempDir()
		translator, err := exec.LookPath("qemu-aarch64-static")
		if err != nil {
			t.Fatal(err)
		}
		program := t.TempDir()
		source := filepath.Join(program, "main.go")
		if err := os.WriteFile(source, []byte("package main\n\nfunc main() { print(\"translated\") }\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		build := exec.Command("go", "build", "-o", filepath.Join(program, "foreign"), source)
		build.Env = append(os.Environ(), "GOARCH=arm64", "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if out, err := exec.Command("cp", translator, filepath.Join(b.sim.translator, "rosetta")).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		spec.Shares = []vm.Share{{Dir: program, Tag: "share0", ReadOnly: true}}
		m := start(t, spec)
		configure(t, m, &protocol.Configure{Mounts: []protocol.Mount{{Share: "share0", Path: "/program", ReadOnly: true}}})
		out, err := vmtest.Shell(t.Context(), m, "/program/foreign 2>&1; cp /program/foreign /tmp/f && chroot / /tmp/f 2>&1; grep flags /proc/sys/fs/binfmt_misc/rosetta")
		if err != nil || out != "translatedtranslatedflags: POCF\n" && out != "translatedtranslatedflags: OCF\n" {
			t.Errorf("%q, %v", out, err)
		}
	})
}

// resettingInit is an initramfs whose init resets the machine at once (reboot(2)).
func resettingInit(t *testing.T) *os.File {
	t.Helper()
	program := filepath.Join(t.TempDir(), "init")
	gcc := exec.Command("gcc", "-O1", "-static", "-nostdlib", "-x", "c", "-", "-o", program)
	gcc.Stdin = strings.NewReader(`void _start(void) {
	long is;
	for (;;) __asm__ volatile ("syscall" : "=a"(is) : "a"(169), "D"(0xfee1dead), "S"(672274793), "d"(0x01234567) : "rcx", "r11", "memory");
}`)
	if out, err := gcc.CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "initramfs"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	w := cpio.Newc.Writer(f)
	err = cpio.WriteRecordsAndDirs(w, []cpio.Record{cpio.StaticFile("init", string(b), 0o755)})
	if err := errors.Join(err, cpio.WriteTrailer(w)); err != nil {
		t.Fatal(err)
	}
	return f
}

// A guest as a Mac with Apple silicon has it: GICv3, virtio on PCI, a console on hvc0,
// the uncompressed Image.
func TestAppleSilicon(t *testing.T) {
	b := newBenchOf(t, "arm64")
	m, err := b.driver.Start(context.Background(), b.target.Spec(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		m.Kill()
		<-m.Done()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	conn, err := m.Dial(ctx)
	if err == nil {
		_, err = client.Configure(ctx, conn, &protocol.Configure{Hostname: "mac", MachineID: strings.Repeat("0a", 16), Seed: []byte("seed")})
	}
	if err != nil {
		t.Fatalf("%v; console: %s", err, m.Console())
	}
	out, err := vmtest.Shell(ctx, m, "uname -m; grep -q GICv3 /proc/interrupts && echo GICv3; echo kept >/file; cat /file; echo hello >/dev/hvc0")
	if err != nil || out != "aarch64\nGICv3\nkept\n" {
		t.Errorf("%q, %v", out, err)
	}
	if !strings.Contains(m.Console(), "hello") {
		t.Errorf("console: %s", m.Console())
	}
	b.target.Crash(t, m)
	<-m.Done()
	if err := m.Err(); err == vm.ErrEnded || !errors.Is(err, vm.ErrEnded) {
		t.Errorf("Err after a panic is %v", err)
	}
}
