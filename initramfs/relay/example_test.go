package relay_test

import (
	"fmt"
	"io"
	"net"

	"github.com/abdul-abdi/lumina/initramfs/relay"
)

// What one side writes is what the other reads, and its end arrives as an end.
func ExampleJoin() {
	a, left := net.Pipe()
	right, b := net.Pipe()
	go func() {
		relay.Join(left, right)
		left.Close()
		right.Close()
	}()
	go func() {
		fmt.Fprint(a, "hello")
		a.Close()
	}()
	content, err := io.ReadAll(b)
	b.Close()
	fmt.Println(string(content), err)
	// Output: hello <nil>
}
