package client

import (
	"net"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// Share makes conn, a stream to the agent, the one of what the guest's FUSE asks of a
// directory that it has mounted, and of the answers. It waits until that is mounted. On
// an error conn is closed.
func Share(conn net.Conn, tag string) (net.Conn, error) {
	joined, err := join(conn, &protocol.Request{Version: protocol.Version, Op: protocol.OpShare, Share: &protocol.Share{Tag: tag}})
	if err != nil {
		conn.Close()
	}
	return joined, err
}
