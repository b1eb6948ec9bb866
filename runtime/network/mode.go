package network

import (
	"fmt"
	"net"
	"strings"
)

// Mode is what a guest can reach, as the caller says it: ModeNone, ModeNAT, or
// "allow=LIST" for what [Allow] takes.
type Mode string

// The modes.
const (
	// ModeNone is nothing: the guest has its loopback.
	ModeNone Mode = "none"
	// ModeNAT is outbound connections to the internet: the default.
	ModeNAT Mode = "nat"
)

const allowPrefix = "allow="

// Check says what is wrong with a mode.
func (m Mode) Check() error {
	_, err := m.policy(false)
	return err
}

// policy is what the mode allows; nil for no network.
func (m Mode) policy(allowLAN bool) (*Policy, error) {
	var p Policy
	var err error
	switch list, allow := strings.CutPrefix(string(m), allowPrefix); {
	case m == ModeNone:
		return nil, nil
	case m == ModeNAT:
		p = NAT(allowLAN)
	case allow:
		p, err = Allow(list, allowLAN)
	default:
		err = fmt.Errorf("network %q: want %s, %s, or %sHOST[:PORT],…", m, ModeNAT, ModeNone, allowPrefix)
	}
	return &p, err
}

// Open makes the network of a guest with this MAC address; nil for no network.
func (m Mode) Open(o Options, mac net.HardwareAddr) (*Network, error) {
	policy, err := m.policy(o.AllowLAN)
	if err != nil || policy == nil {
		return nil, err
	}
	return New(*policy, mac, o)
}
