package runtime

import (
	"testing"

	"github.com/abdul-abdi/lumina/runtime/image"
)

// Sizes that no driver takes are rounded up.
func TestSizesOfAVM(t *testing.T) {
	const odd, whole = 1395864371, 1332 << 20 // 1.3GB
	o := VMOptions{DiskSize: odd, Memory: odd}.withDefaults(&image.Image{})
	if o.DiskSize != whole || o.Memory != whole {
		t.Errorf("a disk of %d bytes, memory of %d; want %d", o.DiskSize, o.Memory, whole)
	}
}
