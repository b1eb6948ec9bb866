package runtime

import (
	"context"
	"fmt"

	"github.com/abdul-abdi/lumina/runtime/client"
	"github.com/abdul-abdi/lumina/runtime/printable"
	"github.com/abdul-abdi/lumina/runtime/share"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// openShares opens the directories that this process serves to a guest.
func openShares(list []vm.Share) ([]*share.Server, error) {
	var servers []*share.Server
	for _, s := range list {
		server, err := share.Open(s.Dir, share.Options{ReadOnly: s.ReadOnly, Among: len(list)})
		if err != nil {
			closeShares(servers)
			return nil, fmt.Errorf("sharing a directory: %w", err)
		}
		servers = append(servers, server)
	}
	return servers, nil
}

func closeShares(servers []*share.Server) {
	for _, s := range servers {
		s.Close()
	}
}

// serveShares serves directories to a machine's guest until the machine ends. It must run
// before the guest is configured, because the configuration mounts them. If a server
// gives up, its directory is gone from the guest.
func (v *VM) serveShares(ctx context.Context, list []vm.Share) error {
	servers, err := openShares(list)
	if err != nil {
		return err
	}
	for i, server := range servers {
		stream, err := v.dial(ctx)
		if err != nil {
			closeShares(servers[i:])
			return err
		}
		go func() {
			defer server.Close()
			conn, err := client.Share(stream, list[i].Tag)
			if err != nil {
				return // the guest ends, or says why it cannot be configured
			}
			defer conn.Close()
			if err := server.Serve(conn); err != nil {
				report := fmt.Sprintf("the directory %s is not shared any more: %v", printable.Line(list[i].Dir), err)
				v.unshared.Store(&report)
			}
		}()
	}
	return nil
}
