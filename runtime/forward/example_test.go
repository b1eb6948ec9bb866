package forward_test

import (
	"fmt"

	"github.com/abdul-abdi/lumina/runtime/forward"
)

// Port 8080 of this host's loopback leads to the guest's port 80.
func ExampleParse() {
	rules, err := forward.Parse("8080:80")
	fmt.Println(rules, err)
	_, err = forward.Parse("0.0.0.0:8080:80")
	fmt.Println(err != nil)
	// Output:
	// [8080:80] <nil>
	// true
}
