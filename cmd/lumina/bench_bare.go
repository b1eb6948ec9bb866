package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// bootBare boots an image's kernel with the least possible init, which powers
// off at once, and waits for that: the floor under every boot of the image.
func bootBare(ctx context.Context, r *runtime.Runtime, name string) error {
	img, err := r.Images.Open(name)
	if err != nil {
		return err
	}
	defer img.Close()
	kernel, err := img.Open(image.Kernel)
	if err != nil {
		return err
	}
	defer kernel.Close()
	// It has a name until it is booted: not every driver takes files without.
	initramfs, err := os.CreateTemp("", "lumina-")
	if err != nil {
		return err
	}
	defer os.Remove(initramfs.Name())
	defer initramfs.Close()
	if err := writeBareInitramfs(initramfs, img.Architecture); err != nil {
		return err
	}
	m, err := r.Driver.Start(ctx, vm.Spec{
		Arch: img.Architecture, Kernel: kernel, Initramfs: initramfs,
		CommandLine: img.Kernel.CommandLine, CPUs: runtime.DefaultCPUs, Memory: runtime.DefaultMemory,
	})
	if err != nil {
		return err
	}
	<-m.Done()
	if err := m.Err(); err != vm.ErrEnded {
		return err
	}
	return nil
}

func writeBareInitramfs(to io.Writer, arch string) error {
	program, err := bareInit(arch)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	w := cpio.Newc.Writer(&b)
	if err := cpio.WriteRecords(w, []cpio.Record{cpio.Directory("proc", 0o755), cpio.StaticFile("init", string(program), 0o755)}); err != nil {
		return err
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return err
	}
	_, err = to.Write(b.Bytes())
	return err
}

// bareInit is an ELF program that calls reboot(2) to power off or, where the driver
// says so on the kernel's command line, to reset: a machine without power management
// ends with that, and another driver's would start again.
func bareInit(arch string) ([]byte, error) {
	var code []byte
	var machine uint16
	switch arch {
	case "amd64":
		machine = 62
		code = []byte{
			0xb8, 0xa5, 0x00, 0x00, 0x00, // mov eax, SYS_mount
			0x48, 0x8d, 0x3d, 0x63, 0x00, 0x00, 0x00, // lea rdi, "proc"
			0x48, 0x8d, 0x35, 0x61, 0x00, 0x00, 0x00, // lea rsi, "/proc"
			0x48, 0x89, 0xfa, // mov rdx, rdi: the file system's type
			0x45, 0x31, 0xd2, // xor r10d, r10d
			0x45, 0x31, 0xc0, // xor r8d, r8d
			0x0f, 0x05, // syscall
			0xb8, 0x02, 0x00, 0x00, 0x00, // mov eax, SYS_open
			0x48, 0x8d, 0x3d, 0x50, 0x00, 0x00, 0x00, // lea rdi, "/proc/cmdline"
			0x31, 0xf6, // xor esi, esi: O_RDONLY
			0x0f, 0x05, // syscall
			0x89, 0xc7, // mov edi, eax
			0x48, 0x8d, 0xb4, 0x24, 0x00, 0xf8, 0xff, 0xff, // lea rsi, [rsp-2048]
			0xba, 0xf8, 0x07, 0x00, 0x00, // mov edx, 2040
			0x31, 0xc0, // xor eax, eax: SYS_read
			0x0f, 0x05, // syscall
			0xba, 0xdc, 0xfe, 0x21, 0x43, // mov edx, LINUX_REBOOT_CMD_POWER_OFF
			0x48, 0x8b, 0x0d, 0x3b, 0x00, 0x00, 0x00, // mov rcx, "ff=reset"
			0xff, 0xc8, // look: dec eax
			0x78, 0x0b, // js end
			0x48, 0x3b, 0x0c, 0x06, // cmp rcx, [rsi+rax]
			0x75, 0xf6, // jne look
			0xba, 0x67, 0x45, 0x23, 0x01, // mov edx, LINUX_REBOOT_CMD_RESTART
			0xbe, 0x69, 0x19, 0x12, 0x28, // end: mov esi, LINUX_REBOOT_MAGIC2
			0xbf, 0xad, 0xde, 0xe1, 0xfe, // mov edi, LINUX_REBOOT_MAGIC1
			0xb8, 0xa9, 0x00, 0x00, 0x00, // mov eax, SYS_reboot
			0x0f, 0x05, // syscall
			0xeb, 0xed, // jmp end
		}
		// The last is the end of protocol.ParamOff.Is(protocol.OffReset).
		code = append(code, "proc\x00/proc\x00/proc/cmdline\x00ff="+protocol.OffReset...)
	case "arm64":
		machine = 183
		for _, instruction := range []uint32{
			0xd2800008 | 142<<5,                            // mov x8, SYS_reboot
			0xd2800000 | 0xdead<<5, 0xf2a00000 | 0xfee1<<5, // mov x0, MAGIC1
			0xd2800001 | 0x1969<<5, 0xf2a00001 | 0x2812<<5, // mov x1, MAGIC2
			0xd2800002 | 0xfedc<<5, 0xf2a00002 | 0x4321<<5, // mov x2, POWER_OFF
			0xd4000001, // svc 0
		} {
			code = binary.LittleEndian.AppendUint32(code, instruction)
		}
	default:
		return nil, fmt.Errorf("architecture %q: %w", arch, vm.ErrUnsupported)
	}
	const base, headers = 0x400000, 64 + 56
	b := make([]byte, headers, headers+len(code))
	le := binary.LittleEndian
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2) // executable
	le.PutUint16(b[18:], machine)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], base+headers) // entry
	le.PutUint64(b[32:], 64)           // program headers
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	segment := b[64:]
	le.PutUint32(segment, 1)     // load
	le.PutUint32(segment[4:], 5) // readable, executable
	le.PutUint64(segment[16:], base)
	le.PutUint64(segment[24:], base)
	le.PutUint64(segment[32:], uint64(headers+len(code)))
	le.PutUint64(segment[40:], uint64(headers+len(code)))
	le.PutUint64(segment[48:], 0x1000)
	return append(b, code...), nil
}
