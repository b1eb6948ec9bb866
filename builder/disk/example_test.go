package disk_test

import (
	"fmt"

	"github.com/abdul-abdi/lumina/builder/disk"
)

// Where a disk is to boot says what file it has to be.
func ExampleFindPlace() {
	p, err := disk.FindPlace("azure")
	fmt.Println(p.Name, p.Formats, err)
	fmt.Println(disk.CheckPath("tools.vhd", p), disk.CheckPath("tools.qcow2", p) != nil)
	// Output:
	// azure [.vhd] <nil>
	// <nil> true
}
