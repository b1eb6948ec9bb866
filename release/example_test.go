package release_test

import (
	"fmt"

	"github.com/abdul-abdi/lumina/release"
)

// An image of the store can be published by another name.
func ExampleParseSource() {
	s, err := release.ParseSource("tools=default")
	fmt.Println(s.Image, s.Name, err)
	// Output: tools default <nil>
}
