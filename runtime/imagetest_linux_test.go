package runtime_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/vm"
	"github.com/abdul-abdi/lumina/runtime/vm/vmtest"
)

// lateReader is a driver whose machines see what is written to a disk later.
type lateReader struct {
	*vmtest.Fake
	started func() // is called by each start
}

func (lateReader) ReadsLate() {}

func (l lateReader) Start(ctx context.Context, spec vm.Spec) (vm.Machine, error) {
	defer l.started()
	return l.Fake.Start(ctx, spec)
}

// The VM of a trial starts while the root of its image is written, and is configured,
// which has it mount that, afterwards.
func TestTrialOfAnImage(t *testing.T) {
	for _, tt := range []struct {
		name string
		fake *vmtest.Fake
		late bool
		want string
	}{
		{name: "root that is written meanwhile", late: true, fake: &vmtest.Fake{}},
		{name: "root that is written", fake: &vmtest.Fake{}},
		{name: "kernel that ends", late: true, fake: &vmtest.Fake{EndBeforeAgent: true}, want: "no init found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fake := tt.fake
			r := open(t, fake)
			whole := make(chan struct{})
			switch {
			case !tt.late:
				close(whole)
			case tt.want == "":
				r.Driver = lateReader{fake, func() { close(whole) }}
			default:
				r.Driver = lateReader{fake, func() {}}
			}
			img, err := r.Images.Open("img")
			if err != nil {
				t.Fatal(err)
			}
			fake.Configuring = func(m *vmtest.Machine) {
				select {
				case <-whole:
				default:
					t.Error("the guest was configured before its root was whole")
				}
			}
			err = r.TestImage(t.Context(), img, whole, runtime.ImageTest{Command: "echo ok", Stdout: "ok"})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("TestImage() = %v, want %q", err, tt.want)
			}
			for _, m := range fake.Machines() {
				if strings.Contains(m.Spec().CommandLine, "lumina.root=later") != tt.late {
					t.Errorf("the command line is %q", m.Spec().CommandLine)
				}
			}
		})
	}
	t.Run("root that is never written", func(t *testing.T) {
		fake := &vmtest.Fake{}
		r := open(t, fake)
		for _, driver := range []vm.Driver{fake, lateReader{fake, func() {}}} {
			r.Driver = driver
			img, err := r.Images.Open("img")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			gone := errors.New("the layer is cut off")
			cancel(gone)
			if err := r.TestImage(ctx, img, make(chan struct{})); !errors.Is(err, gone) {
				t.Errorf("TestImage() = %v, want %v", err, gone)
			}
		}
	})
}
