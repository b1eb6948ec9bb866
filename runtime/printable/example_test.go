package printable_test

import (
	"fmt"

	"github.com/abdul-abdi/lumina/runtime/printable"
)

// An escape sequence of a guest is shown, not obeyed.
func ExampleLine() {
	fmt.Println(printable.Line("kernel\x1b[2J panic\nsecond line"))
	// Output: kernel\x1b[2J panic\nsecond line
}
