package runtime

import (
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// NetworkMode is what the guest can reach: NetworkNone, NetworkNAT, or
// "allow=LIST" for what package network's Allow takes.
type NetworkMode string

// The network modes.
const (
	// NetworkNone is nothing: the guest has its loopback.
	NetworkNone NetworkMode = "none"
	// NetworkNAT is outbound connections to the internet: the default.
	NetworkNAT NetworkMode = "nat"
)

const allowPrefix = "allow="

// Check says what is wrong with a mode.
func (m NetworkMode) Check() error {
	_, err := m.policy(false)
	return err
}

// policy is what the mode allows; nil for no network.
func (m NetworkMode) policy(allowLAN bool) (*network.Policy, error) {
	var p network.Policy
	var err error
	switch list, allow := strings.CutPrefix(string(m), allowPrefix); {
	case m == NetworkNone:
		return nil, nil
	case m == NetworkNAT:
		p = network.NAT(allowLAN)
	case allow:
		p, err = network.Allow(list, allowLAN)
	default:
		err = fmt.Errorf("network %q: want %s, %s, or %sHOST[:PORT],…", m, NetworkNAT, NetworkNone, allowPrefix)
	}
	return &p, err
}

// Open makes the network of a guest with this MAC address; nil for no network.
func (m NetworkMode) Open(allowLAN bool, mac net.HardwareAddr) (*network.Network, error) {
	policy, err := m.policy(allowLAN)
	if err != nil || policy == nil {
		return nil, err
	}
	return network.New(*policy, mac)
}

// Member is what a VM is in a network of VMs.
type Member struct {
	Name    string // its host name
	MAC     string
	Address string // with the length of the network's prefix
	Hosts   []protocol.Host
	// Descriptor is that of its port of the switch in this process.
	Descriptor uintptr
}

// addMember connects a VM to the switch of its network.
func (p *plan) addMember(m *Member) error {
	mac, err := net.ParseMAC(m.MAC)
	if err != nil {
		return err
	}
	p.port = os.NewFile(m.Descriptor, "network")
	if p.port == nil {
		return fmt.Errorf("descriptor %d is no port of a switch", m.Descriptor)
	}
	p.spec.Network = &vm.Network{MAC: mac, Socket: p.port, MTU: network.MTU}
	p.configure.Hostname, p.configure.Hosts = m.Name, m.Hosts
	p.configure.Network = &protocol.Network{MAC: m.MAC, Address: m.Address, MTU: network.MTU}
	return nil
}

// addNetwork makes the network of a VM.
func (p *plan) addNetwork(o VMOptions) error {
	if o.Member != nil {
		return p.addMember(o.Member)
	}
	mac := vm.NewMAC()
	var err error
	if p.network, err = o.Network.Open(o.AllowLAN, mac); err != nil || p.network == nil {
		return err
	}
	p.spec.Network = &vm.Network{MAC: mac, Socket: p.network.Device(), MTU: network.MTU}
	p.configure.Network = &protocol.Network{MAC: mac.String(), Address: network.Address, Gateway: network.Gateway,
		DNS: []string{network.Gateway}, Search: p.network.Search(), MTU: network.MTU}
	return nil
}

// NetworkReport is what a guest did with its network.
type NetworkReport struct {
	Metrics network.Metrics  `json:"metrics"`
	Denied  []network.Denied `json:"denied"`
	// More is how many further attempts were denied that Denied does not list.
	More int64 `json:"more,omitempty"`
}

// Network reports what the guest has done with its network; nil when it has
// none.
func (v *VM) Network() *NetworkReport {
	if v.network == nil {
		return nil
	}
	r := &NetworkReport{Metrics: v.network.Metrics()}
	r.Denied, r.More = v.network.Denied()
	return r
}

// Since is what r has that before, an earlier report of the same VM, has not.
func (r *NetworkReport) Since(before *NetworkReport) *NetworkReport {
	if r == nil || before == nil {
		return r
	}
	d := &NetworkReport{Metrics: r.Metrics.Sub(before.Metrics), More: r.More - before.More}
	for i, denied := range r.Denied {
		if i < len(before.Denied) { // attempts keep their place
			denied.Count -= before.Denied[i].Count
		}
		if denied.Count > 0 {
			d.Denied = append(d.Denied, denied)
		}
	}
	return d
}
