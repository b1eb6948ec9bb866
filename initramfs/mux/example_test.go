package mux_test

import (
	"fmt"
	"io"
	"net"

	"github.com/abdul-abdi/lumina/initramfs/mux"
)

// Two streams over one connection. The server answers each.
func ExampleSession() {
	host, guest := net.Pipe()
	client, server := mux.Client(host), mux.Server(guest)
	defer client.Close()
	defer server.Close()

	go func() {
		for {
			stream, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				defer stream.Close()
				b, err := io.ReadAll(stream)
				if err == nil {
					fmt.Fprintf(stream, "got %q", b)
				}
			}()
		}
	}()

	for _, request := range []string{"one", "two"} {
		stream, err := client.Open()
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Fprint(stream, request)
		if err := stream.(*mux.Stream).CloseWrite(); err != nil {
			fmt.Println(err)
			return
		}
		answer, err := io.ReadAll(stream)
		fmt.Println(string(answer), err)
		stream.Close()
	}
	// Output:
	// got "one" <nil>
	// got "two" <nil>
}
