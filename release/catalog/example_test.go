package catalog_test

import (
	"errors"
	"fmt"

	"github.com/abdul-abdi/lumina/release/catalog"
)

// A catalogue is checked as a whole when it is read.
func ExampleParse() {
	_, err := catalog.Parse([]byte(`{"schema": 2}`))
	fmt.Println(err)
	fmt.Println(errors.Is(err, catalog.ErrInvalid))
	// Output:
	// not a valid catalog: it has schema 2, this lumina reads 1; update lumina
	// true
}
