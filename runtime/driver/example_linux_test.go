package driver_test

import (
	"fmt"

	"github.com/abdul-abdi/lumina/runtime/driver"
)

// An accelerator that there is not is refused before a VM starts.
func ExampleNew() {
	_, err := driver.New(driver.Options{Accelerator: "warp"})
	fmt.Println(err)
	// Output: bad options of the VM driver: accelerator "warp": want kvm, hvf or tcg
}
