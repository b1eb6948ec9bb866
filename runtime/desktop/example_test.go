package desktop_test

import (
	"fmt"

	"github.com/abdul-abdi/lumina/runtime/desktop"
)

// A chord's keys go down in order, and up in reverse.
func ExampleParseKeys() {
	keys, err := desktop.ParseKeys("ctrl+alt+f2")
	fmt.Println(len(keys), err)
	_, err = desktop.ParseKeys("ctrl+hyper")
	fmt.Println(err != nil)
	// Output:
	// 3 <nil>
	// true
}
