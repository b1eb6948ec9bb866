package network_test

import (
	"fmt"

	"github.com/abdul-abdi/lumina/runtime/network"
)

// What a guest can reach, as on the command line.
func ExampleMode_Check() {
	for _, m := range []network.Mode{network.ModeNone, "allow=*.example.test:443,192.0.2.0/24", "everything"} {
		fmt.Println(m.Check())
	}
	// Output:
	// <nil>
	// <nil>
	// network "everything": want nat, none, or allow=HOST[:PORT],…
}
