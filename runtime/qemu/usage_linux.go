package qemu

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

// clockTick is the unit of times in /proc: USER_HZ, which is 100 on every architecture
// that QEMU runs on.
const clockTick = time.Second / 100

// Usage is part of [vm.Meter].
func (p *process) Usage() (vm.Usage, error) { return usageOf(int(p.pid.Load())) }

// usageOf reads what a process takes (proc(5)).
func usageOf(pid int) (vm.Usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return vm.Usage{}, err
	}
	// After the name, which may have anything in it: state is the third field, utime the
	// 14th, stime the 15th, rss the 24th.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 22 {
		return vm.Usage{}, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields)+2)
	}
	number := func(field int) (n int64) {
		if err == nil {
			n, err = strconv.ParseInt(string(fields[field-3]), 10, 64)
		}
		return n
	}
	u := vm.Usage{CPU: time.Duration(number(14)+number(15)) * clockTick, Memory: number(24) * int64(os.Getpagesize())}
	return u, err
}
