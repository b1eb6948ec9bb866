package confine

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// x32 is a bit of the calls of a second set, with 32-bit pointers.
const x32 = 0x40000000

// limit refuses the calls of the second set.
func (p *program) limit() {
	p.jumpBits(x32, 0, 1)
	p.fail(unix.ENOSYS)
}

// refusedHere and opensHere are the calls that only older architectures have.
var (
	refusedHere = []bits{
		{unix.SYS_CHMOD, 1, special},
		{unix.SYS_CREAT, 1, special},
		{unix.SYS_MKDIR, 1, special},
		{unix.SYS_MKNOD, 1, special | device},
	}
	opensHere = []open{{unix.SYS_OPEN, 1, 2}}
)
