package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/initramfs/mux"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/client"
	"github.com/abdul-abdi/lumina/runtime/polltest"
)

// firmwareBoot is a machine with EFI firmware and nothing of Lumina's.
type firmwareBoot struct {
	cmd     *exec.Cmd
	socket  string // of the agent's port
	session *mux.Session
	console console
	ended   chan error
}

// console is what a machine says.
type console struct {
	mu   sync.Mutex
	said bytes.Buffer
	more chan struct{} // closed and replaced when there is more
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.said.Write(p)
	close(c.more)
	c.more = make(chan struct{})
	return len(p), nil
}

func (c *console) text() (string, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.String(), c.more
}

// bootFirmware boots a disk and greets its agent, see powerOn.
func bootFirmware(t *testing.T, arch, drive string) *firmwareBoot {
	t.Helper()
	b := powerOn(t, arch, drive)
	b.greet(t)
	return b
}

// powerOn boots a disk of an architecture; drive says how it is attached, the
// words of QEMU's command line after -drive.
func powerOn(t *testing.T, arch, drive string) *firmwareBoot {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent")
	args := map[string][]string{
		"amd64": {"qemu-system-x86_64", "-M", "q35", "-cpu", "max,erms=off,fsrm=off",
			"-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE.fd", "-drive", "if=pflash,format=raw,snapshot=on,file=/usr/share/OVMF/OVMF_VARS.fd"},
		"arm64": {"qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a57",
			"-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/AAVMF/AAVMF_CODE.fd", "-drive", "if=pflash,format=raw,snapshot=on,file=/usr/share/AAVMF/AAVMF_VARS.fd"},
	}[arch]
	args = append(args, "-accel", "tcg", "-m", "1G", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=agent,server=on,wait=off,path="+socket,
		"-device", "virtserialport,chardev=agent,name="+protocol.PortName)
	args = append(append(args, "-drive"), strings.Fields(drive)...)
	b := &firmwareBoot{cmd: exec.Command(args[0], args[1:]...), socket: socket, console: console{more: make(chan struct{})}, ended: make(chan error, 1)}
	b.cmd.Stdout, b.cmd.Stderr = &b.console, &b.console
	stdin, err := b.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		t.Fatalf("%v; install qemu-system-x86, qemu-system-arm, ovmf and qemu-efi-aarch64", err)
	}
	done := make(chan struct{})
	go func() { b.ended <- b.cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		_ = b.cmd.Process.Kill()
		<-done
		stdin.Close()
		if t.Failed() {
			said, _ := b.console.text()
			t.Logf("the console's end:\n%s", said[max(0, len(said)-3000):])
		}
	})
	return b
}

// greet begins the conversation with the agent, which may not be there yet.
func (b *firmwareBoot) greet(t *testing.T) {
	t.Helper()
	// QEMU makes the socket as it starts.
	var conn net.Conn
	polltest.Until(t, func() (err error) {
		conn, err = net.Dial("unix", b.socket)
		return err
	})
	t.Cleanup(func() { conn.Close() })
	if err := protocol.SendHello(conn); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(90 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := protocol.ReceiveHello(conn); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	b.session = mux.Client(conn)
}

// wait waits for a text on the console.
func (b *firmwareBoot) wait(t *testing.T, text string) {
	t.Helper()
	limit := time.After(90 * time.Second)
	for {
		said, more := b.console.text()
		if strings.Contains(said, text) {
			return
		}
		select {
		case <-more:
		case err := <-b.ended:
			t.Fatalf("the machine ended (%v) before its console said %q", err, text)
		case <-limit:
			t.Fatalf("the console never said %q", text)
		}
	}
}

func (b *firmwareBoot) exec(t *testing.T, command string) string {
	t.Helper()
	conn, err := b.session.Open()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	var out bytes.Buffer
	exit, err := client.Exec(ctx, conn, &protocol.Exec{Args: []string{command}, Shell: true, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}},
		client.Stdio{Stdout: &out, Stderr: &out}, client.Control{})
	if err != nil || exit.Code != 0 {
		t.Fatalf("%s: %+v, %v, %s", command, exit, err, out.String())
	}
	return out.String()
}

// shutdown ends the machine in order.
func (b *firmwareBoot) shutdown(t *testing.T) {
	t.Helper()
	conn, err := b.session.Open()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := client.Shutdown(ctx, conn); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-b.ended:
		if err != nil {
			t.Fatalf("the machine ended with %v", err)
		}
	case <-ctx.Done():
		t.Fatal("the machine is still there a minute after it was shut down")
	}
}

func TestExport(t *testing.T) {
	dir := t.TempDir()
	export := func(t *testing.T, image, file string, args ...string) string {
		t.Helper()
		file = filepath.Join(dir, file)
		lumina(t, append([]string{"images", "export", image, "--disk-size", "64MB", "-o", file}, args...)...).succeeded(t)
		return file
	}
	t.Run("amd64", func(t *testing.T) {
		disk := export(t, "debian", "d.qcow2")
		b := bootFirmware(t, "amd64", "if=virtio,format=qcow2,file="+disk+" -nic user,model=virtio")
		if out := b.exec(t, "uname -m; cat /etc/debian_version; echo kept > /file; test -d /sys/firmware/efi && echo efi"); !strings.HasPrefix(out, "x86_64\n12.") || !strings.HasSuffix(out, "\nefi\n") {
			t.Errorf("it said %q", out)
		}
		// Of QEMU's own DHCP server; the shell waits for it, at most a minute.
		if out := b.exec(t, "i=0; until grep -q nameserver /etc/resolv.conf || [ $i = 600 ]; do i=$((i+1)); sleep 0.1; done; cat /etc/resolv.conf /proc/net/fib_trie /proc/net/if_inet6"); !strings.HasPrefix(out, "nameserver 10.0.2.3\n") || !strings.Contains(out, "10.0.2.15") || !strings.Contains(out, " eth0\n") {
			t.Errorf("the network is %q", out)
		}
		id := b.exec(t, "cat /etc/machine-id")
		b.shutdown(t)
		// What was written is there after a boot, from another kind of disk.
		b = bootFirmware(t, "amd64", "if=none,id=d,format=qcow2,file="+disk+" -device ahci,id=ahci -device ide-hd,drive=d,bus=ahci.0")
		if out := b.exec(t, "cat /file /etc/machine-id"); out != "kept\n"+id {
			t.Errorf("it said %q", out)
		}
		buildertest.Run(t, "qemu-img", "check", "-U", disk)
	})
	t.Run("ISO", func(t *testing.T) {
		iso := export(t, "debian", "d.iso")
		// The root stays where it is: with it in memory, these would not boot.
		for name, drive := range map[string]string{
			"CD":    "if=none,id=cd,media=cdrom,readonly=on,file=" + iso + " -device ahci,id=ahci -device ide-cd,drive=cd,bus=ahci.0",
			"stick": "if=none,id=usb,format=raw,readonly=on,file=" + iso + " -device qemu-xhci -device usb-storage,drive=usb",
		} {
			t.Run(name, func(t *testing.T) {
				b := bootFirmware(t, "amd64", drive+" -m 256M")
				if out := b.exec(t, "echo x > /file; cat /file /etc/debian_version; find / -xdev -type f -exec cat {} + | wc -c"); !strings.HasPrefix(out, "x\n12.") {
					t.Errorf("it said %q", out)
				}
				b.shutdown(t)
			})
		}
	})
	t.Run("arm64", func(t *testing.T) {
		layout := buildertest.DebianFor(t, "arm64")
		lumina(t, "images", "create", "export-arm64", "--from", "oci:"+layout, "--platform", "linux/arm64", "--no-verify").succeeded(t)
		t.Cleanup(func() { lumina(t, "images", "remove", "export-arm64").succeeded(t) })
		for name, drive := range map[string]string{
			"disk": "if=virtio,format=raw,file=" + export(t, "export-arm64", "a.raw"),
			"ISO":  "if=none,id=cd,media=cdrom,readonly=on,file=" + export(t, "export-arm64", "a.iso") + " -device virtio-scsi-pci -device scsi-cd,drive=cd",
		} {
			t.Run(name, func(t *testing.T) {
				b := bootFirmware(t, "arm64", drive)
				if out := b.exec(t, "uname -m; cat /etc/debian_version"); !strings.HasPrefix(out, "aarch64\n12.") {
					t.Errorf("it said %q", out)
				}
			})
		}
	})
	t.Run("systemd", func(t *testing.T) {
		systemdImage(t, "systemd")
		b := powerOn(t, "amd64", "if=virtio,format=vpc,file="+export(t, "systemd", "s.vhd"))
		b.wait(t, "login: ")
		b.greet(t) // the agent has waited for somebody
		if out := b.exec(t, "cat /proc/1/comm; systemctl is-system-running --wait; systemctl --failed --no-legend"); out != "systemd\nrunning\n" {
			t.Errorf("it said %q", out)
		}
		b.shutdown(t)
	})
}

func TestExportRefuses(t *testing.T) {
	dir := t.TempDir()
	there := filepath.Join(dir, "there.raw")
	if err := os.WriteFile(there, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, want string
		code       int
		args       []string
	}{
		{"no file", "-o is missing", 2, nil},
		{"another format", "unknown disk format of", 2, []string{"-o", filepath.Join(dir, "d.img")}},
		{"a format of a place", "add --for", 2, []string{"-o", filepath.Join(dir, "d.ova")}},
		{"another place", `--for: "moon" is not a target that disks are made for: want azure, `, 2, []string{"-o", filepath.Join(dir, "d.raw"), "--for", "moon"}},
		{"a format that a place does not take", "for azure it is .vhd", 2, []string{"-o", filepath.Join(dir, "d.qcow2"), "--for", "azure"}},
		{"no kernel", `"` + there + `" is not a kernel that EFI can start`, 2, []string{"-o", filepath.Join(dir, "d.vhd"), "--for", "azure", "--kernel", there}},
		{"a file that is there", "file exists; --force", 125, []string{"-o", there}},
		{"another init", `init "upstart": want lumina or systemd`, 2, []string{"-o", filepath.Join(dir, "d.raw"), "--init", "upstart"}},
		{"too small", "a writable partition of 4096 bytes", 2, []string{"-o", filepath.Join(dir, "d.raw"), "--disk-size", "4KB"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := lumina(t, append([]string{"images", "export", "debian"}, tt.args...)...)
			if r.code != tt.code || !strings.Contains(r.stderr, tt.want) {
				t.Errorf("exit code %d, stderr %q; want %d and %q", r.code, r.stderr, tt.code, tt.want)
			}
		})
	}
	if b, err := os.ReadFile(there); string(b) != "mine" {
		t.Errorf("the file that was there has %q, %v", b, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	lumina(t, "images", "export", "debian", "-o", there, "--force").succeeded(t)
	f, err := os.Open(there)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head := make([]byte, 520)
	if _, err := io.ReadFull(f, head); err != nil || string(head[512:]) != "EFI PART" {
		t.Errorf("--force left %q, %v", head[512:], err)
	}
}
