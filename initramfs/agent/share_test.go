//go:build linux

package agent

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"

	"github.com/abdul-abdi/lumina/initramfs/mux"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// sharing is a system whose one directory's FUSE is a pipe.
type sharing struct {
	fakeSystem
	device net.Conn
}

func (s sharing) Share(string) (io.ReadWriteCloser, error) { return s.device, nil }

// A directory's messages pass both ways as they are, before the guest is configured, and
// each end is the other's.
func TestShare(t *testing.T) {
	start := func() (fuse, stream net.Conn, r io.Reader) {
		here, there := net.Pipe()
		client, server := mux.Client(here), mux.Server(there)
		t.Cleanup(func() { client.Close() })
		fuse, device := net.Pipe()
		t.Cleanup(func() { fuse.Close() })
		go func() { _ = NewServer(sharing{device: device}, reaper()).Serve(server) }()
		stream, err := client.Open()
		if err != nil {
			t.Fatal(err)
		}
		if err := protocol.NewWriter(stream).Message(protocol.FrameRequest, &protocol.Request{Version: protocol.Version, Op: protocol.OpShare, Share: &protocol.Share{Tag: "share0"}}); err != nil {
			t.Fatal(err)
		}
		reader := protocol.NewReader(stream)
		if err := reader.Expect(protocol.FrameReply, nil); err != nil {
			t.Fatal(err)
		}
		return fuse, stream, reader.Rest()
	}
	message := func(n int) []byte {
		b := bytes.Repeat([]byte{7}, n)
		binary.LittleEndian.PutUint32(b, uint32(n))
		return b
	}
	fuse, stream, r := start()
	for _, n := range []int{40, 100_000, maxShareMessage} {
		go func() { _, _ = fuse.Write(message(n)) }()
		got := make([]byte, n)
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, message(n)) {
			t.Fatalf("a message of %d bytes to the host: %v", n, err)
		}
		// In pieces: the kernel wants each in one.
		go func() {
			_, _ = stream.Write(message(n)[:3])
			_, _ = stream.Write(message(n)[3:])
		}()
		got = make([]byte, maxShareMessage+1)
		if read, err := fuse.Read(got); err != nil || !bytes.Equal(got[:read], message(n)) {
			t.Fatalf("a message of %d bytes from the host: %d, %v", n, read, err)
		}
	}
	stream.Close()
	if _, err := fuse.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the host has gone, the directory's users get %v", err)
	}
	fuse, _, r = start()
	fuse.Close()
	if _, err := io.ReadAll(r); err != nil && err != mux.ErrReset {
		t.Errorf("the directory was unmounted: %v", err)
	}
	// What is not a message ends it, too.
	fuse, stream, _ = start()
	if _, err := stream.Write([]byte{3, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if _, err := fuse.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a message of 3 bytes: %v", err)
	}
}
