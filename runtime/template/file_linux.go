package template

import "golang.org/x/sys/unix"

const (
	seekData = unix.SEEK_DATA
	seekHole = unix.SEEK_HOLE
)

func changed(st *unix.Stat_t) int64 { return st.Ctim.Nano() }
