package runtime_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/initramfs"
	kernelconfig "github.com/abdul-abdi/lumina/kernel-config"
	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/network"
)

// stateDir is that of the examples; without one it is ~/.lumina.
var stateDir string

// inExamples is set in the process that runs the examples.
const inExamples = "LUMINA_TEST_EXAMPLES"

// TestMain runs the examples, which boot real VMs, in a process of their own: the
// guests of the other tests are in this one and wait for all of its children. With
// -short or -list no example runs.
func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(inExamples) != "" {
		os.Exit(runExamples(m))
	}
	wanted, err := regexp.MatchString(flag.Lookup("test.run").Value.String(), "ExampleRuntime")
	listing := flag.Lookup("test.list").Value.String() != ""
	if !testing.Short() && !listing && wanted && err == nil {
		cmd := exec.Command(os.Args[0], "-test.run=^Example")
		cmd.Env = append(os.Environ(), inExamples+"=1")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		err = cmd.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "running the examples:", err)
		os.Exit(1)
	}
	if err := flag.Set("test.skip", "^Example"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// runExamples makes the image that the examples run, as builder's users do.
func runExamples(m *testing.M) int {
	home, err := os.MkdirTemp("", "lumina-")
	if err == nil {
		defer os.RemoveAll(home)
		stateDir = home
		err = makeImage(context.Background(), home)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "preparing the examples:", err)
		return 1
	}
	return m.Run()
}

func makeImage(ctx context.Context, home string) error {
	layout, err := buildertest.Debian("amd64")
	if err != nil {
		return err
	}
	r, err := runtime.Open(runtime.Options{Home: stateDir})
	if err != nil {
		return err
	}
	_, err = builder.Create(ctx, builder.Options{
		Name: "debian", Reference: "oci:" + layout + ":latest", Architecture: "amd64",
		Store: r.Images, CacheDir: filepath.Join(home, "cache"), Initramfs: initramfs.Read,
		Kernel: func(arch string) (builder.Kernel, error) {
			k, err := kernelconfig.Open(arch)
			if err != nil {
				return builder.Kernel{}, err
			}
			return builder.Kernel{Version: k.Version, CommandLine: kernelconfig.CommandLine(arch), Open: k.Open}, nil
		},
	})
	return err
}

// One command in a VM of its own.
func ExampleRuntime_Run() {
	r, err := runtime.Open(runtime.Options{Home: stateDir})
	if err != nil {
		fmt.Println(err)
		return
	}
	result, err := r.Run(context.Background(), runtime.RunOptions{
		VM:      runtime.VMOptions{Image: "debian", Network: network.ModeNone},
		Command: runtime.Command{Shell: "echo $((6*7)); exit 3"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s%d\n", result.Stdout, result.ExitCode)
	// Output:
	// 42
	// 3
}

// Many commands in one VM, which ends with the process that started it.
func ExampleRuntime_Start() {
	ctx := context.Background()
	r, err := runtime.Open(runtime.Options{Home: stateDir})
	if err != nil {
		fmt.Println(err)
		return
	}
	v, err := r.Start(ctx, runtime.VMOptions{Image: "debian", Network: network.ModeNone})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer v.Close()
	for _, command := range []string{"echo kept > /file", "test -e /file"} {
		exit, err := v.Exec(ctx, runtime.Command{Shell: command})
		fmt.Println(exit.Code, err)
	}
	// Output:
	// 0 <nil>
	// 0 <nil>
}
