package runtime

import (
	"errors"
	"strings"
	"testing"
)

// A panic's reason is told, not the functions that were on the stack.
func TestErrorTellsWhyTheKernelPanicked(t *testing.T) {
	console := "Run /init as init process\nKernel panic - not syncing: Attempted to kill init! exitcode=0x00000009\nCPU: 0 PID: 1\nCall Trace:\n" +
		strings.Repeat(" <TASK>\n ? panic+0x2e6/0x300\n", 10)
	got := (&Error{Kind: VMCrashed, Err: errors.New("the VM ended"), Console: console}).Error()
	if !strings.Contains(got, "Attempted to kill init") || strings.Contains(got, "<TASK>") {
		t.Errorf("%s", got)
	}
	if got := (&Error{Err: errors.New("x"), Console: "Call Trace:\nhello"}).Error(); !strings.Contains(got, "hello") {
		t.Errorf("%s", got)
	}
}

// A fault's place is told, not the registers between it and the panic.
func TestErrorTellsWhereTheKernelFailed(t *testing.T) {
	// What only sounds like a fault is none.
	const before = "DEBUG: probing\n[    0.9] traps: prog general protection fault ip:1 sp:2\nRun /init as init process\n"
	registers := strings.Repeat("[    1.2] RAX: 0000000000000000 RBX: ffffc90002c48078\n", 20)
	for name, fault := range map[string]string{
		"amd64": "[    1.1] BUG: kernel NULL pointer dereference, address: 0000000000000010\n[    1.1] #PF: supervisor read access in kernel mode\n[    1.1] Oops: 0000 [#1] SMP\n[    1.1] RIP: 0010:ext4_fill_super+0x10/0x20\n",
		"arm64": "[    1.1] Internal error: Oops: 0000000096000004 [#1] SMP\n[    1.1] pc : ext4_fill_super+0x10/0x20\n",
	} {
		console := before + fault + registers + "[    1.3] Kernel panic - not syncing: Fatal exception in interrupt\n[    1.3] Kernel Offset: disabled\n"
		got := (&Error{Kind: VMCrashed, Err: errors.New("the VM ended"), Console: console}).Error()
		for _, want := range []string{strings.TrimSpace(strings.SplitN(fault, "\n", 2)[0]), "ext4_fill_super", "Fatal exception in interrupt"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q lacks %q", name, got, want)
			}
		}
		if strings.Contains(got, "RAX") || strings.Contains(got, "Run /init") || strings.Contains(got, "DEBUG") || strings.Contains(got, "traps") {
			t.Errorf("%s: %q has what does not tell why", name, got)
		}
	}
}
