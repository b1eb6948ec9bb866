package main

import "syscall"

// maxRSS is a process's peak memory in bytes; Linux counts in KiB.
func maxRSS(u *syscall.Rusage) int64 { return u.Maxrss << 10 }
