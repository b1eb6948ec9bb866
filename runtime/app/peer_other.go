//go:build !linux

package app

import "net"

func allowed(net.Conn, []int) bool { return true }
