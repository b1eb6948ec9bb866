package strictyaml_test

import (
	"errors"
	"fmt"

	"github.com/abdul-abdi/lumina/builder/strictyaml"
)

// A field that the type does not have is an error with its line.
func ExampleRead() {
	var recipe struct {
		Name     string   `yaml:"name"`
		Packages []string `yaml:"packages"`
	}
	fmt.Println(strictyaml.Read([]byte("name: web\npackages: [nginx]\n"), &recipe), recipe)

	err := strictyaml.Read([]byte("name: web\npackage: [nginx]\n"), &recipe)
	if e := new(strictyaml.Error); errors.As(err, &e) {
		fmt.Println("line", e.Line)
	}
	// Output:
	// <nil> {web [nginx]}
	// line 2
}
