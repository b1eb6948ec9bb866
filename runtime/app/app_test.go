package app

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/coder/websocket"

	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// firmware is a driver without machines.
type firmware struct{ vm.DesktopDriver }

func (firmware) WriteVariables(_ string, _ bool, to *os.File) error {
	_, err := to.WriteString("variables")
	return err
}

var page fs.FS = fstest.MapFS{"index.html": {Data: []byte("<!DOCTYPE html>{{state}}")}, "main.js": {Data: []byte("1")}}

// start serves an app of an empty state directory until the test ends.
func start(t *testing.T, change func(*Options)) (a Addresses, o Options, end func()) {
	t.Helper()
	o = Options{Home: t.TempDir(), Dirs: []string{t.TempDir()}, Driver: firmware{}, Version: "test",
		StartDesktop: func(context.Context, desktop.Options) (*desktop.Client, error) {
			return nil, errors.New("no machines here")
		}}
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, served := make(chan Addresses, 1), make(chan error, 1)
	go func() {
		served <- serve(ctx, o, page, func(a Addresses) error {
			ready <- a
			return nil
		})
	}()
	over := false
	end = func() {
		if !over {
			over = true
			cancel()
			<-served
		}
	}
	t.Cleanup(end)
	return <-ready, o, end
}

func request(t *testing.T, method, url, body string, head map[string]string) *http.Response {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range head {
		if r.Header.Set(k, v); k == "Host" {
			r.Host = v
		}
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response
}

func TestStrangersGetNothing(t *testing.T) {
	a, _, end := start(t, nil)
	host := strings.Split(a.Page, "/")[2]
	port := strings.TrimPrefix(host, "127.0.0.1")
	if port == host {
		t.Fatalf("it is at %s", host)
	}
	for name, tt := range map[string]struct {
		method, url string
		head        map[string]string
		want        int
	}{
		"the page":              {"GET", a.Page, nil, 200},
		"its script":            {"GET", a.Page + "assets/main.js", nil, 200},
		"its own question":      {"GET", a.Page + "api/state", map[string]string{"Origin": "http://" + host, "Sec-Fetch-Site": "same-origin"}, 200},
		"no token":              {"GET", "http://" + host + "/", nil, 404},
		"no token, state":       {"GET", "http://" + host + "/api/state", nil, 404},
		"no token, a wish":      {"POST", "http://" + host + "/api/quit", nil, 404},
		"another token":         {"GET", "http://" + host + "/ABCDEFGHIJKLMNOPQRSTUVWXYZ/", nil, 404},
		"part of the token":     {"GET", a.Page[:len(a.Page)-2] + "/", nil, 404},
		"a name for it":         {"GET", a.Page, map[string]string{"Host": "rebound.example.test" + port}, 404},
		"localhost":             {"GET", a.Page, map[string]string{"Host": "localhost" + port}, 404},
		"another site":          {"GET", a.Page, map[string]string{"Origin": "https://example.test"}, 404},
		"another site's wish":   {"POST", a.Page + "api/quit", map[string]string{"Origin": "https://example.test"}, 404},
		"another port":          {"GET", a.Page + "api/state", map[string]string{"Origin": "http://127.0.0.1:1"}, 404},
		"a sandboxed frame":     {"GET", a.Page, map[string]string{"Origin": "null"}, 404},
		"a picture elsewhere":   {"GET", a.Page + "api/state", map[string]string{"Sec-Fetch-Site": "cross-site"}, 404},
		"a ticket that is none": {"GET", "http://" + host + "/go/ABCDEFGHIJKLMNOPQRSTUVWXYZ", nil, 404},
		"files beside the page": {"GET", a.Page + "assets/%2e%2e/app.go", nil, 404},
		"no such desktop":       {"GET", a.Page + "api/desktops/none/picture", nil, 404},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, tt.method, tt.url, "", tt.head)
			if r.StatusCode != tt.want && !(tt.want == 404 && r.StatusCode >= 300 && r.StatusCode < 400 && strings.Contains(tt.url, "%2e")) {
				t.Errorf("status %d, want %d", r.StatusCode, tt.want)
			}
			if csp := r.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") || r.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("headers %v", r.Header)
			}
		})
	}
	t.Run("a ticket", func(t *testing.T) {
		if r := request(t, "GET", a.Once, "", nil); r.StatusCode != http.StatusSeeOther || "http://"+host+r.Header.Get("Location") != a.Page {
			t.Errorf("the first time: %d, %s", r.StatusCode, r.Header.Get("Location"))
		}
		if r := request(t, "GET", a.Once, "", nil); r.StatusCode != http.StatusNotFound {
			t.Errorf("the second time: %d", r.StatusCode)
		}
	})
	t.Run("WebSockets", func(t *testing.T) {
		for _, origin := range []string{"", "http://example.test", "null"} {
			ws := "ws" + strings.TrimPrefix(a.Page, "http") + "api/terminals/1"
			if _, _, err := websocket.Dial(t.Context(), ws, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}}); err == nil {
				t.Errorf("a page of %q is let in", origin)
			}
		}
	})
	t.Run("another user", func(t *testing.T) {
		if os.Geteuid() != 0 || goruntime.GOOS != "linux" {
			t.Skip("only root can be another user, and only Linux tells whose a connection is")
		}
		// bash speaks for a user who knows the token.
		cmd := exec.Command("bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/"$1"; printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n' "$2" "$1" >&3; cat <&3`,
			"bash", port[1:], strings.TrimPrefix(a.Page, "http://"+host))
		for _, uid := range []uint32{0, 65534} {
			one := exec.Command(cmd.Path, cmd.Args[1:]...)
			one.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
			one.Dir = "/"
			out, _ := one.Output()
			if got := strings.Contains(string(out), "200 OK"); got != (uid == 0) || uid != 0 && len(out) > 0 {
				t.Errorf("user %d is answered: %.80q", uid, out)
			}
		}
	})
	end()
	if _, err := http.Get(a.Page); err == nil {
		t.Error("somebody answers after the end")
	}
	// The next one, at the same place, has another token.
	number, err := strconv.Atoi(port[1:])
	if err != nil {
		t.Fatal(err)
	}
	next, _, _ := start(t, func(o *Options) { o.Port = number })
	for name, tt := range map[string]struct {
		url  string
		want int
	}{"its page": {next.Page, 200}, "the page of before": {a.Page, 404}, "its state": {a.Page + "api/state", 404}, "its ticket": {a.Once, 404}} {
		if r := request(t, "GET", tt.url, "", nil); r.StatusCode != tt.want {
			t.Errorf("after the end, %s: %d, want %d", name, r.StatusCode, tt.want)
		}
	}
}

// events reads the app's events.
func events(t *testing.T, a Addresses) func(topic string) json.RawMessage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", a.Page+"api/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	return func(topic string) json.RawMessage {
		t.Helper()
		for lines.Scan() {
			if lines.Text() != "event: "+topic {
				continue
			}
			lines.Scan()
			return json.RawMessage(strings.TrimPrefix(lines.Text(), "data: "))
		}
		t.Fatalf("no more events: %v", lines.Err())
		return nil
	}
}

// What another process changes is told: the app keeps nothing of its own.
func TestLibraryIsWatched(t *testing.T) {
	a, o, _ := start(t, nil)
	next := events(t, a)
	var st State
	if err := json.Unmarshal(next("state"), &st); err != nil || len(st.Desktops) != 0 || st.Host.Version != "test" {
		t.Fatalf("at first: %+v, %v", st, err)
	}
	store := desktop.NewStore(o.Home)
	m, err := store.Create(t.Context(), firmware{}, desktop.Manifest{Name: "made elsewhere", Architecture: "amd64"}, "")
	if err != nil {
		t.Fatal(err)
	}
	desktops := func() (all []Desktop) {
		t.Helper()
		if err := json.Unmarshal(next("desktops"), &all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	all := desktops()
	for len(all) == 0 {
		all = desktops() // its directory was not in its place yet
	}
	if all[0].ID != m.ID || all[0].Name != "made elsewhere" || all[0].Running {
		t.Errorf("%+v", all)
	}
	if err := store.Remove(m.ID); err != nil {
		t.Fatal(err)
	}
	for len(all) > 0 {
		all = desktops()
	}
	// One that is damaged is shown with what is wrong.
	if err := os.Mkdir(filepath.Join(o.Home, "desktop-vms", "damaged"), 0o700); err != nil {
		t.Fatal(err)
	}
	for len(all) == 0 {
		all = desktops()
	}
	if all[0].ID != "damaged" || !strings.Contains(all[0].Error, "no manifest.json") {
		t.Errorf("%+v", all)
	}
}

// A wish is refused with its reason before anything is made, and a job goes on without
// its page.
func TestCreateDesktop(t *testing.T) {
	booted := make(chan string, 1)
	a, o, _ := start(t, func(o *Options) {
		o.StartDesktop = func(_ context.Context, d desktop.Options) (*desktop.Client, error) {
			booted <- d.ID
			return nil, errors.New("no machines here")
		}
	})
	text := filepath.Join(o.Dirs[0], "text.iso")
	if err := os.WriteFile(text, []byte(strings.Repeat("no ISO\n", 10000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ body, want string }{
		"no ISO":        {`{"name":"a","file":"` + text + `"}`, "not an ISO 9660 image"},
		"a bad name":    {`{"name":"a/b","file":"` + text + `"}`, "desktop name"},
		"no such file":  {`{"name":"a","file":"/none.iso"}`, `there is no file \"/none.iso\"`},
		"its directory": {`{"name":"a","file":"` + o.Dirs[0] + `"}`, "is a directory: want a file"},
		"a half path":   {`{"name":"a","file":"text.iso"}`, "want the whole path"},
		"nothing":       {`{"name":"a"}`, "want a file"},
		"no download":   {`{"name":"a","system":"windows-11-amd64"}`, "want a file, its ISO"},
		"many CPUs":     {`{"name":"a","system":"debian-12-amd64","cpus":1000}`, "1000"},
		"no JSON":       {`{`, "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, "POST", a.Page+"api/desktops", tt.body, nil)
			b, _ := io.ReadAll(r.Body)
			if r.StatusCode != http.StatusBadRequest || !strings.Contains(string(b), tt.want) {
				t.Errorf("%d %s, want %q", r.StatusCode, b, tt.want)
			}
		})
	}
	if left, _ := filepath.Glob(filepath.Join(o.Home, "desktop-vms", "[^.]*")); len(left) > 0 {
		t.Errorf("there are %q", left)
	}
	next := events(t, a)
	next("state")
	disk := filepath.Join(o.Dirs[0], "disk.raw")
	mbr := make([]byte, 1<<20)
	mbr[510], mbr[511] = 0x55, 0xAA
	if err := os.WriteFile(disk, mbr, 0o600); err != nil {
		t.Fatal(err)
	}
	r := request(t, "POST", a.Page+"api/desktops", `{"name":"a","file":"`+disk+`","force":true}`, nil)
	var job Job
	if err := json.NewDecoder(r.Body).Decode(&job); err != nil || r.StatusCode != 200 {
		t.Fatalf("forced: %d, %v", r.StatusCode, err)
	}
	for job.State == "running" {
		var all []Job
		if err := json.Unmarshal(next("jobs"), &all); err != nil || len(all) != 1 {
			t.Fatalf("%+v, %v", all, err)
		}
		job = all[0]
	}
	if job.State != "done" {
		t.Fatalf("%+v", job)
	}
	if id := <-booted; job.Result != id {
		t.Errorf("%+v, booted %s", job, id)
	}
}

// A page that was closed ends the app after a while, and one that comes back in time
// does not.
func TestLinger(t *testing.T) {
	o := Options{Home: t.TempDir(), Driver: firmware{}, Linger: time.Second}
	ready, served := make(chan Addresses, 1), make(chan error, 1)
	go func() {
		served <- serve(context.Background(), o, page, func(a Addresses) error {
			ready <- a
			return nil
		})
	}()
	a := <-ready
	for range 2 {
		r := request(t, "GET", a.Page+"api/events", "", nil)
		if _, err := bufio.NewReader(r.Body).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
	}
	if err := <-served; err != nil && !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("it ended with %v", err)
	}
	if _, err := net.Dial("tcp", strings.Split(a.Page, "/")[2]); err == nil {
		t.Error("it still listens")
	}
}
