package kvmlab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/builder/buildertest"
)

// stockRecipe makes a Debian with its own kernel. Its packages are only unpacked, which
// needs no program of theirs to run here: an initial RAM disk with what the kernel needs
// for the root, on ext4, and an init that leaves the rest to the second disk.
const stockRecipe = `set -eu
root=$DIR/root ram=$DIR/ram out=$DIR/stock
mmdebstrap --quiet --architectures="$ARCH" --variant=extract bookworm "$root" \
	--include="linux-image-$ARCH,base-files,bash,bsdutils,busybox-static,coreutils,dash,e2fsprogs,findutils,grep,iproute2,mount,procps,sed,util-linux,$QEMU"
(cd "$root" && mkdir -p dev mnt proc root run sys tmp var/tmp && chmod 1777 tmp var/tmp)
ln -sf ../bin/busybox "$root/sbin/modprobe" # kmod's needs an index that busybox does not make
[ -e "$root/bin/sh" ] || ln -s bash "$root/bin/sh"
echo root:x:0:0:root:/root:/bin/sh >"$root/etc/passwd"
printf 'root:x:0:\nkvm:x:110:\n' >"$root/etc/group"
printf '#!/bin/sh\nmount -o ro /dev/vdb /mnt\nexec sh /mnt/boot\n' >"$root/lab-init"
chmod 755 "$root/lab-init"
version=$(ls "$root/lib/modules")
busybox depmod -b "$root" "$version"
mkdir -p "$ram/bin" "$ram/lib/modules/$version/kernel" "$ram/dev" "$ram/proc" "$ram/sys" "$ram/root" "$out"
(cd "$root/lib/modules/$version/kernel" && cp -r --parents drivers/virtio drivers/block/virtio_blk.ko fs/ext4 fs/jbd2 fs/mbcache.ko lib crypto "$ram/lib/modules/$version/kernel")
busybox depmod -b "$ram" "$version"
cp "$root/bin/busybox" "$ram/bin"
ln -s busybox "$ram/bin/sh"
cat >"$ram/init" <<'END'
#!/bin/sh
busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
for module in virtio_pci virtio_blk crc32c_generic ext4; do busybox modprobe "$module"; done
busybox mount -t ext4 /dev/vda /root
for dir in dev proc sys; do busybox mount -o move "/$dir" "/root/$dir"; done
exec busybox switch_root /root /lab-init
END
chmod 755 "$ram/init"
(cd "$ram" && find . | cpio --quiet -o -H newc) >"$out/initrd"
cp "$root"/boot/vmlinuz-* "$out/kernel"
mke2fs -q -t ext4 -d "$root" "$out/root" 8G
`

// stockMachines are QEMU's arguments for a host of each architecture. Nothing checks
// the timer of amd64's kernel against a busy machine.
var stockMachines = map[string]struct{ qemu, inside, args, kernel string }{
	"amd64": {"qemu-system-x86_64", "qemu-system-x86", "-machine q35 -cpu max", "console=ttyS0 no_timer_check"},
	// With the instructions that sign pointers as QEMU computes them, not as CPUs do,
	// which takes most of its time.
	"arm64": {"qemu-system-aarch64", "qemu-system-arm", "-machine virt,virtualization=on,gic-version=3 -cpu max,pauth-impdef=on", "console=ttyAMA0"},
}

// stock is a host that has nothing of lumina: Debian's kernel and programs, on ext4.
type stock struct {
	arch string
	made string // has kernel, initrd, root; kept
	dir  string // what the host gets
}

func newStock(t *testing.T, arch string) *stock {
	t.Helper()
	dir, _ := fill(t, arch)
	inside := stockMachines[arch].inside
	sum := sha256.Sum256([]byte(arch + inside + stockRecipe))
	s := &stock{arch: arch, made: filepath.Join(buildertest.Cache(), fmt.Sprintf("stock-%s-%.6x", arch, sum)), dir: dir}
	if _, err := os.Stat(s.made); err == nil {
		return s
	}
	t.Logf("making the disk of the host")
	if err := os.MkdirAll(buildertest.Cache(), 0o755); err != nil {
		t.Fatal(err)
	}
	work, err := os.MkdirTemp(buildertest.Cache(), "work-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(work)
	command(t, []string{"ARCH=" + arch, "QEMU=" + inside, "DIR=" + work}, "sh", "-c", stockRecipe)
	if err := os.Rename(filepath.Join(work, "stock"), s.made); err != nil {
		t.Fatal(err)
	}
	return s
}

// run is part of [host]. The script's output comes over the serial port, and its exit
// code is the last line of it.
func (s *stock) run(ctx context.Context, t *testing.T, limit time.Duration, script string, args []string, out io.Writer) (code int, err error) {
	boot := `export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin
stty -F /dev/console -opost
exec </dev/null >/dev/console 2>&1
mkdir -p /dev/shm /dev/pts /tmp/lab
mount -t tmpfs tmpfs /dev/shm
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
mount -o bind /mnt /tmp/lab
ln -sf /proc/self/fd /dev/fd
ip link set lo up
[ -e /dev/kvm ] || modprobe kvm_amd
modprobe -a tun overlay
uname -a
sh -c ` + quote(script) + " sh"
	for _, arg := range args {
		boot += " " + quote(arg)
	}
	boot += "\necho \"lab: exit $?\"\nsleep 1\necho b >/proc/sysrq-trigger\n"
	temporary := t.TempDir()
	if err := os.WriteFile(filepath.Join(s.dir, "boot"), []byte(boot), 0o644); err != nil {
		return 0, err
	}
	disk := filepath.Join(temporary, "lab.ext4")
	command(t, nil, "mke2fs", "-q", "-t", "ext4", "-d", s.dir, disk, "2G")
	m := stockMachines[s.arch]
	line := strings.Fields(m.args)
	line = append(line, "-accel", "tcg,thread=multi,tb-size=1024", "-smp", "2", "-m", "3G", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-kernel", filepath.Join(s.made, "kernel"), "-initrd", filepath.Join(s.made, "initrd"),
		"-append", "root=/dev/vda rw init=/lab-init quiet panic=-1 "+m.kernel)
	for i, file := range []string{filepath.Join(s.made, "root"), disk} {
		line = append(line, "-drive", fmt.Sprintf("file=%s,format=raw,if=none,id=disk%d,snapshot=on", file, i), "-device", fmt.Sprintf("virtio-blk-pci,drive=disk%d", i))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the host took longer than %v", limit))
	defer cancel()
	cmd := exec.CommandContext(ctx, m.qemu, line...)
	cmd.Env = append(os.Environ(), "TMPDIR="+temporary)
	cmd.WaitDelay = 10 * time.Second
	var text bytes.Buffer
	cmd.Stdout = io.MultiWriter(out, &text)
	cmd.Stderr = out
	err = errors.Join(cmd.Run(), context.Cause(ctx))
	found := exitLine.FindSubmatch(text.Bytes())
	if err != nil || found == nil {
		return 0, fmt.Errorf("%w: it ended without the tests' exit code: %w", errHost, err)
	}
	return strconv.Atoi(string(found[1]))
}

var exitLine = regexp.MustCompile(`(?m)^lab: exit (\d+)$`)

// quote has a shell take s as it is.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
