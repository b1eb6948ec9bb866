package app

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"image"
	"image/png"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/abdul-abdi/lumina/runtime/desktop"
	imagestore "github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/name"
	"github.com/abdul-abdi/lumina/runtime/session"
	"github.com/abdul-abdi/lumina/runtime/vm"
	"github.com/abdul-abdi/lumina/runtime/vm/vmtest"
)

// machines is a driver in memory: of sessions, whose guests run on this host, and of
// desktops.
type machines struct {
	vmtest.Fake
	firmware
}

func (*machines) CheckTPM(arch string) error {
	if arch == "arm64" {
		return errors.New("no TPM for it")
	}
	return nil
}

func (*machines) WriteVariables(_ string, secure bool, to *os.File) error {
	if secure {
		return errors.New("no keys")
	}
	return firmware{}.WriteVariables("", false, to)
}

func (*machines) StartDesktop(ctx context.Context, spec vm.DesktopSpec) (vm.Desktop, error) {
	m := &machine{done: make(chan struct{})}
	context.AfterFunc(ctx, m.Kill)
	_, _ = spec.Serial.Write([]byte("BdsDxe: starting\n"))
	return m, nil
}

// machine is a desktop that does what its buttons say.
type machine struct {
	once sync.Once
	done chan struct{}
}

func (m *machine) Kill()                               { m.once.Do(func() { close(m.done) }) }
func (m *machine) Done() <-chan struct{}               { return m.done }
func (m *machine) Err() error                          { return vm.ErrEnded }
func (m *machine) PowerButton() error                  { m.Kill(); return nil }
func (*machine) Reset() error                          { return nil }
func (*machine) Key(vm.Key, bool) error                { return nil }
func (*machine) Point(int, int, vm.Button, bool) error { return nil }
func (*machine) Usage() (vm.Usage, error)              { return vm.Usage{CPU: time.Second, Memory: 7 << 20}, nil }
func (*machine) Screenshot() (shot []byte, err error) {
	var b bytes.Buffer
	err = png.Encode(&b, image.NewGray(image.Rect(0, 0, 64, 40)))
	return b.Bytes(), err
}

// Viewer is a screen that beeps.
func (*machine) Viewer() (net.Conn, error) {
	here, there := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, there) }()
	go func() { _, _ = there.Write(slices.Concat(welcome(1), acknowledged, audio(audioData, 1, 2, 3, 4))) }()
	return here, nil
}

// inProcess is an app whose machines are in this process, with an image img, a desktop
// box that runs, one that does not, called still, and a session web.
type inProcess struct {
	t    *testing.T
	page string // the app's address
	home string
	dir  string // of files
	sid  string
}

func newInProcess(t *testing.T) *inProcess {
	t.Helper()
	p := &inProcess{t: t, dir: t.TempDir()}
	driver := &machines{}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		all.Wait()
	})
	a, o, _ := start(t, func(o *Options) {
		o.Driver = driver
		o.StartDesktop = func(_ context.Context, d desktop.Options) (*desktop.Client, error) {
			d.Driver = driver
			ready := make(chan error, 1)
			all.Go(func() { _ = desktop.Supervise(ctx, d, func(err error) { ready <- err }) })
			if err := <-ready; err != nil {
				return nil, err
			}
			return desktop.Open(o.Home, d.ID)
		}
		o.StartSession = func(_ context.Context, s session.Options) (*session.Session, error) {
			s.SID, s.Driver = name.UUID(), driver
			ready := make(chan error, 1)
			all.Go(func() { _ = session.Supervise(ctx, s, func(err error) { ready <- err }) })
			switch err := <-ready; {
			case errors.Is(err, imagestore.ErrNotFound):
				return nil, errors.New(err.Error()) // as another process says it
			case err != nil:
				return nil, err
			}
			return session.Open(o.Home, s.SID)
		}
		o.Releases = func(context.Context) ([]Release, error) { return []Release{{ID: "default"}}, nil }
		o.Pull = func(_ context.Context, ref string, _ bool, progress Progress) (string, error) {
			progress("fetch", 1, 2)
			if ref == "none" {
				return "", errors.Join(errors.New("no such image"), errors.New("anywhere"))
			}
			return ref, nil
		}
	})
	p.page, p.home = a.Page, o.Home
	if err := vmtest.InstallImage(t.Context(), p.home, "img", imagestore.Config{WorkingDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"box", "still"} {
		if _, err := desktop.NewStore(p.home).Create(t.Context(), driver, desktop.Manifest{Name: n, Architecture: "amd64", CPUs: 1, Network: "none", DiskSize: 1 << 20}, ""); err != nil {
			t.Fatal(err)
		}
	}
	var web struct{ SID string }
	if status, b := p.call("POST", "sessions", `{"image":"img","name":"web","memory_bytes":67108864,"network":"none"}`); status != 200 || json.Unmarshal(b, &web) != nil {
		t.Fatalf("a session: %d, %s", status, b)
	}
	p.sid = web.SID
	if status, b := p.call("POST", "desktops/box/boot", ""); status != 204 {
		t.Fatalf("a desktop: %d, %s", status, b)
	}
	return p
}

func (p *inProcess) call(method, path, body string) (int, []byte) {
	p.t.Helper()
	r := request(p.t, method, p.page+"api/"+path, body, nil)
	b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		p.t.Fatal(err)
	}
	return r.StatusCode, b
}

// Every request does what it says, and says in one line why it does not.
// driversISO is an ISO that boots nothing, and has nothing in it.
func driversISO() string {
	b := make([]byte, 20*2048)
	primary := b[16*2048:]
	copy(primary, "\x01CD001\x01")
	le, be := binary.LittleEndian, binary.BigEndian
	le.PutUint32(primary[80:], 20) // sectors
	be.PutUint32(primary[84:], 20)
	le.PutUint16(primary[128:], 2048)
	root := primary[156:]
	root[0] = 34
	le.PutUint32(root[2:], 18)
	le.PutUint32(root[10:], 2048)
	root[25], root[32] = 2, 1 // a directory, with a name of one byte
	copy(b[17*2048:], "\xffCD001\x01")
	return string(b)
}

// dial opens a WebSocket as the app's own page does.
func dial(t *testing.T, page, path string) *websocket.Conn {
	t.Helper()
	host := strings.Split(page, "/")[2]
	ws, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(page, "http")+"api/"+path, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"http://" + host}}})
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return ws
}
