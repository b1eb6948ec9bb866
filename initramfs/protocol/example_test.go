package protocol_test

import (
	"bytes"
	"fmt"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// A frame is written and read. The reader checks its length and type.
func ExampleReader_Expect() {
	var stream bytes.Buffer
	if err := protocol.NewWriter(&stream).Message(protocol.FrameReply, protocol.Started{ID: "4"}); err != nil {
		fmt.Println(err)
		return
	}
	var started protocol.Started
	err := protocol.NewReader(&stream).Expect(protocol.FrameReply, &started)
	fmt.Println(started.ID, err)
	// Output: 4 <nil>
}
