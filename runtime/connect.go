package runtime

import (
	"fmt"
	"net"
	"os"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// Member is what a VM is in a network of VMs.
type Member struct {
	Name    string // its host name
	MAC     string
	Address string // with the length of the network's prefix
	Hosts   []Host
	// Descriptor is that of its port of the switch in this process.
	Descriptor uintptr
}

// Host is another VM of the network.
type Host struct{ Name, Address string }

// addMember connects a VM to the switch of its network.
func (p *plan) addMember(m *Member) error {
	mac, err := net.ParseMAC(m.MAC)
	if err != nil {
		return err
	}
	p.port = os.NewFile(m.Descriptor, "network")
	if p.port == nil {
		return fmt.Errorf("descriptor %d is not a port of a switch", m.Descriptor)
	}
	p.spec.Network = &vm.NIC{MAC: mac, Socket: p.port, MTU: network.MTU}
	p.configure.Hostname = m.Name
	for _, h := range m.Hosts {
		p.configure.Hosts = append(p.configure.Hosts, protocol.Host(h))
	}
	p.configure.Network = &protocol.Interface{MAC: m.MAC, Address: m.Address, MTU: network.MTU}
	return nil
}

// addNetwork makes the network of a VM.
func (p *plan) addNetwork(o VMOptions) error {
	if o.Member != nil {
		return p.addMember(o.Member)
	}
	mac := vm.NewMAC()
	var err error
	if p.network, err = o.Network.Open(network.Options{AllowLAN: o.AllowLAN, Announced: o.AnnouncedSockets}, mac); err != nil || p.network == nil {
		return err
	}
	p.spec.Network = &vm.NIC{MAC: mac, Socket: p.network.Device(), MTU: network.MTU}
	p.configure.Network = &protocol.Interface{MAC: mac.String(), Address: network.Address, Gateway: network.Gateway,
		DNS: []string{network.Gateway}, Search: p.network.Search(), MTU: network.MTU}
	return nil
}

// Network reports what the guest has done with its network; nil when it has
// none.
func (v *VM) Network() *network.Report {
	if v.network == nil {
		return nil
	}
	return v.network.Report()
}
