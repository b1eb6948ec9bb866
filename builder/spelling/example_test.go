package spelling_test

import (
	"fmt"

	"github.com/abdul-abdi/lumina/builder/spelling"
)

// A misspelt instruction is answered with the one that was probably meant.
func ExampleNearest() {
	fmt.Println(spelling.Nearest("COYP", []string{"ADD", "COPY", "RUN", "USER"}, 1))
	// Output: [COPY]
}
