package reference_test

import (
	"fmt"

	"github.com/abdul-abdi/lumina/builder/reference"
)

// What a reference is can be told from its form.
func ExampleParse() {
	for _, s := range []string{"debian:12", "registry.example.test/team/tools:v1", "oci:./layout:latest", "mmdebstrap:bookworm", "Debian:12"} {
		r, err := reference.Parse(s)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(r.Kind, r.Rest)
	}
	// Output:
	// docker index.docker.io/library/debian:12
	// docker registry.example.test/team/tools:v1
	// oci ./layout:latest
	// mmdebstrap bookworm
	// "Debian:12" is not an image reference: names in a registry are lower-case: write debian:12
}
