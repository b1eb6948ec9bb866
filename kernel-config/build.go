package kernelconfig

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// inputs are what build.sh reads beside the kernel's source.
//
//go:embed build.sh version common.config amd64.config arm64.config patches
var inputs embed.FS

// full is the fragment of the full flavour: the drivers of clouds, other
// hypervisors and bare machines, KVM and tracing. No program carries that kernel,
// which is as large as all of the others together: Build makes it.
//
//go:embed full.config
var full string

// Full returns the fragment of options with which Build makes the full flavour of
// an architecture's kernel. own is what an image's own kernel has, and wins.
func Full(arch, own string) (fragment string, err error) {
	if arch != "amd64" {
		return "", fmt.Errorf("the kernel with every driver is there for amd64, not for %q", arch)
	}
	if own == "" {
		return full, nil
	}
	return full + "\n" + own, nil
}

// killGrace is how long a build that is cancelled has to remove what it was
// writing: half an object file would be taken for a whole one by the next.
const killGrace = 5 * time.Second

// Built is a kernel of one's own, in the two forms of Open and OpenEFI.
type Built struct{ Kernel, EFI Kernel }

// Build makes the kernel of an architecture with one more fragment of options,
// which win over Lumina's. It needs Linux, the kernel's source and a compiler;
// what it made before is taken from build.sh's cache, in the directory cache;
// ~/.cache/lumina when that is empty. progress gets what build.sh says.
func Build(ctx context.Context, arch, fragment, cache string, progress io.Writer) (*Built, error) {
	if runtime.GOOS != "linux" {
		return nil, fmt.Errorf("building a kernel: it needs Linux, this is %s; make the image there and pull it here", runtime.GOOS)
	}
	if err := CheckFragment(fragment); err != nil {
		return nil, fmt.Errorf("building a kernel: %w", err)
	}
	dir, err := os.MkdirTemp("", "lumina-kernel-")
	if err != nil {
		return nil, fmt.Errorf("building a kernel: %w", err)
	}
	defer os.RemoveAll(dir)
	own := filepath.Join(dir, "own.config")
	err = os.CopyFS(dir, inputs)
	if err == nil {
		err = os.WriteFile(own, []byte(fragment), 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("building a kernel: %w", err)
	}
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, fmt.Errorf("building a kernel: %w", err)
		}
		cache = filepath.Join(home, ".cache", "lumina")
	}
	// Compressing takes half a minute: build.sh does it only where there is not yet
	// what it would leave.
	kept := filepath.Join(cache, "kernel", fmt.Sprintf("packed-%s-%x", arch, sha256.Sum256([]byte(fragment))))
	cmd := exec.CommandContext(ctx, "bash", filepath.Join(dir, "build.sh"), arch)
	cmd.Env = append(os.Environ(), "LUMINA_CACHE="+cache, "LUMINA_KERNEL_FRAGMENT="+own, "LUMINA_KERNEL_OUT="+filepath.Join(kept, "out"))
	if err := runGroup(ctx, cmd, progress); err != nil {
		return nil, fmt.Errorf("building a kernel: %w", err)
	}
	files, built := os.DirFS(kept), new(Built)
	if built.Kernel, err = open(files, arch, false); err == nil {
		built.EFI, err = open(files, arch, true)
	}
	if err != nil {
		return nil, fmt.Errorf("building a kernel: %w", err)
	}
	return built, nil
}

// runGroup runs a program in a process group of its own, all of which ends with
// ctx. Its error has the last that the program said.
func runGroup(ctx context.Context, cmd *exec.Cmd, progress io.Writer) error {
	var last tail
	cmd.Stderr = io.MultiWriter(progress, &last)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	signal := func(s syscall.Signal) error { return syscall.Kill(-cmd.Process.Pid, s) }
	cmd.Cancel = func() error { return signal(syscall.SIGTERM) }
	cmd.WaitDelay = killGrace
	err := cmd.Run()
	if ctx.Err() != nil {
		if cmd.Process != nil {
			endGroup(signal)
		}
		return context.Cause(ctx)
	}
	var ended *exec.ExitError
	if errors.As(err, &ended) && len(last) > 0 {
		return errors.New(last.words())
	}
	return err
}

// endGroup waits until nobody of a group that was told to end is there any more.
// They are no children of this process, so it has to look.
func endGroup(signal func(syscall.Signal) error) {
	for began := time.Now(); signal(0) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > killGrace {
			_ = signal(syscall.SIGKILL)
			return
		}
	}
}

// tail keeps the end of what is written.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	const size = 2 << 10
	*t = append(*t, p...)
	*t = bytes.Clone((*t)[max(0, len(*t)-size):])
	return len(p), nil
}

// words are the last that build.sh said itself: it begins them with "kernel: ".
func (t tail) words() string {
	text := strings.TrimSpace(string(t))
	if i := strings.LastIndex("\n"+text, "\nkernel: "); i >= 0 {
		text = text[i+len("kernel: "):]
	}
	return text
}

// fragmentLine is an option. The kernel's makefiles read the values: a string
// has nothing that means something to them, and names no file of this host.
var fragmentLine = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(CONFIG_[A-Za-z0-9_]+=(y|-?[0-9]+|0x[0-9a-fA-F]+|"[A-Za-z0-9 ._,:=+-]*")|# CONFIG_[A-Za-z0-9_]+ is not set)$`)
})

// FragmentError says what is wrong with a line of a fragment.
type FragmentError struct {
	Line int // from 0
	Text string
}

func (e *FragmentError) Error() string {
	return fmt.Sprintf("%.80q is not an option; write CONFIG_NAME=y, a number or a \"string\", or # CONFIG_NAME is not set", e.Text)
}

// CheckFragment looks whether each line is an option, a comment or empty. Its
// error is a *FragmentError.
func CheckFragment(fragment string) error {
	for n, line := range strings.Split(fragment, "\n") {
		comment := strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "# CONFIG_")
		if strings.TrimSpace(line) != "" && !comment && !fragmentLine().MatchString(line) {
			return &FragmentError{Line: n, Text: line}
		}
	}
	return nil
}
