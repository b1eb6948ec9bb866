package dockerfile_test

import (
	"fmt"
	"strings"

	"github.com/abdul-abdi/lumina/builder/dockerfile"
)

// Check finds what is wrong before anything is pulled or started.
func ExampleCheck() {
	file, err := dockerfile.Parse(strings.NewReader("FROM debian:12 AS base\nRUN true\n"), "Dockerfile")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(dockerfile.Check(dockerfile.Options{File: file, Target: "base"}, "amd64"))
	fmt.Println(dockerfile.Check(dockerfile.Options{File: file, Target: "bass"}, "amd64"))
	// Output:
	// <nil>
	// Dockerfile: there is no stage "bass" to make; its stages are: base (line 1)
}
