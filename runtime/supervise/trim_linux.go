package supervise

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// trim lets go of the pages of the program that starting up took, and that waiting
// and carrying bytes do not. They are read again, from the page cache mostly, when
// they are needed after all.
func trim() {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		line := lines.Text()
		var start, end uintptr
		var rights string
		// What could have been written to is no copy of the file any more.
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &start, &end, &rights); n == 3 && strings.HasSuffix(line, " "+program) && rights[1] == '-' {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED)
		}
	}
}
