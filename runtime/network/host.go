package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
)

// errRefused is wrapped when this process may not connect for a guest.
var errRefused = errors.New("refused")

// Dial connects this process to where a guest of this mode could connect to, and to
// nothing else: for what is done in a guest's name, such as ADD in a Dockerfile. The
// address that is connected to is what is checked, whatever its name resolved to before.
func (m Mode) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	policy, err := m.policy(false)
	if err == nil && policy == nil {
		err = fmt.Errorf("%w: the network is %s", errRefused, ModeNone)
	}
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", address, err)
	}
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %q is not a port", address, portText)
	}
	named := policy.allowsName(host, uint16(port))
	d := net.Dialer{ControlContext: func(_ context.Context, _, to string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(to)
		if err != nil {
			return err
		}
		if why := policy.refuses(a.Addr().Unmap()); why != "" {
			return fmt.Errorf("%w: %s, as for a guest", errRefused, why)
		}
		var own hostAddresses
		switch here, err := own.has(a.Addr().Unmap()); {
		case err != nil:
			return err
		case here:
			return fmt.Errorf("%w: the address is this host's, as for a guest", errRefused)
		case !named && !policy.allowsAddress(a):
			return fmt.Errorf("%w: the network does not allow it", errRefused)
		}
		return nil
	}}
	return d.DialContext(ctx, "tcp4", address)
}
