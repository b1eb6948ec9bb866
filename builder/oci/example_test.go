package oci_test

import (
	"fmt"

	"github.com/abdul-abdi/lumina/builder/oci"
)

func ExampleParsePlatform() {
	for _, s := range []string{"linux/amd64", "aarch64", "windows/amd64"} {
		p, err := oci.ParsePlatform(s)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(p.OS, p.Architecture)
	}
	// Output:
	// linux amd64
	// linux arm64
	// platform "windows/amd64": want linux/amd64 or linux/arm64
}

// Where an image can be saved.
func ExampleParseDestination() {
	for _, s := range []string{"oci:./layout:v1", "oci-archive:image.tar"} {
		d, err := oci.ParseDestination(s)
		fmt.Printf("%q %q %q %v\n", d.Kind, d.Path, d.Tag, err)
	}
	// Output:
	// "oci" "./layout" "v1" <nil>
	// "oci-archive" "image.tar" "" <nil>
}
