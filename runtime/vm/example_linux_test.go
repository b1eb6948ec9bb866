package vm_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/client"
	"github.com/abdul-abdi/lumina/runtime/vm"
	"github.com/abdul-abdi/lumina/runtime/vm/vmtest"
)

// Any driver is used like this one, which is in memory. A machine that powered itself
// off has ended, and says so.
func ExampleDriver() {
	ctx := context.Background()
	var driver vm.Driver = &vmtest.Fake{}
	dir, err := os.MkdirTemp("", "lumina-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	spec, err := vmtest.Spec(dir) // kernel, initramfs and disks
	if err != nil {
		fmt.Println(err)
		return
	}
	machine, err := driver.Start(ctx, spec)
	if err != nil {
		fmt.Println(err)
		return
	}
	conn, err := machine.Dial(ctx)
	if err == nil {
		_, err = client.Configure(ctx, conn, &protocol.Configure{Hostname: "example"})
	}
	fmt.Println("configured:", err)
	if conn, err = machine.Dial(ctx); err == nil {
		_ = client.Shutdown(ctx, conn) // the end may come before its answer
	}
	<-machine.Done()
	fmt.Println("ended:", errors.Is(machine.Err(), vm.ErrEnded))
	// Output:
	// configured: <nil>
	// ended: true
}
