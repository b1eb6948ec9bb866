package main

import "syscall"

// maxRSS is a process's peak memory in bytes.
func maxRSS(u *syscall.Rusage) int64 { return u.Maxrss }
