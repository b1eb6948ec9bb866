package recipe_test

import (
	"fmt"
	"strings"

	"github.com/abdul-abdi/lumina/builder/recipe"
)

// A recipe is YAML; what is wrong in one is named with its line.
func ExampleParse() {
	r, err := recipe.Parse(strings.NewReader("base: debian:12\npackages: [git]\nrun: [git --version]\n"), "tools.yaml")
	fmt.Println(r.Base, r.Packages, r.Run, err)
	_, err = recipe.Parse(strings.NewReader("base: debian:12\npackage: [git]\n"), "tools.yaml")
	fmt.Println(err)
	// Output:
	// debian:12 [git] [git --version] <nil>
	// tools.yaml:2: package: there is no such field; "packages" may be meant; see recipes/schema.json
}
