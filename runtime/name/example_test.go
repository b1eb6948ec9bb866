package name_test

import (
	"fmt"

	"github.com/abdul-abdi/lumina/runtime/name"
)

func ExampleCheck() {
	fmt.Println(name.Check("image", "debian-12"))
	fmt.Println(name.Check("image", "../debian") != nil)
	// Output:
	// <nil>
	// true
}
