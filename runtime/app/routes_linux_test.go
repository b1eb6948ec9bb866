package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/name"
)

func TestRoutes(t *testing.T) {
	p := newInProcess(t)
	at := func(n string) string { return filepath.Join(p.dir, n) }
	for n, b := range map[string]string{"text.iso": strings.Repeat("no ISO\n", 10000), "note.txt": "hello", "sub/deep.txt": "deep"} {
		if err := os.MkdirAll(filepath.Dir(at(n)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at(n), []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mbr := make([]byte, 1<<20)
	mbr[510], mbr[511] = 0x55, 0xAA
	if err := os.WriteFile(at("disk.raw"), mbr, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(p.home, "desktop-vms", "damaged"), 0o700); err != nil {
		t.Fatal(err)
	}
	long := `{"text":"` + strings.Repeat("x", maxBody) + `"}`
	used := map[string]bool{"POST /api/sessions": true} // the routes that did something
	s := patterns(t)
	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string // in the answer
	}{
		{"GET", "state", "", 200, `"name":"box"`},
		{"GET", "usage", "", 200, `"cpu_seconds":1`},
		{"GET", "systems", "", 200, "windows-11-amd64"},
		{"GET", "hardware", "", 200, `{"no_secure_boot":"no keys"}`},
		{"GET", "hardware?arch=arm64", "", 200, "no TPM for it"},
		{"GET", "hardware?arch=mips", "", 400, "want amd64 or arm64"},
		{"GET", "media", "", 200, "["},
		{"GET", "files?dir=" + p.dir, "", 200, `"text.iso"`},
		{"GET", "files?dir=sub", "", 400, "want a whole path"},
		{"GET", "files?dir=/none", "", 404, "no such file"},
		{"POST", "media/check", `{"file":"` + at("text.iso") + `"}`, 200, "not an ISO 9660 image"},
		{"POST", "media/check", `{"file":"` + at("text.iso") + `","arch":"mips"}`, 400, "want amd64 or arm64"},
		{"POST", "media/check", `{"file":1}`, 400, `\"file\" cannot be a number`},
		{"POST", "media/check", `[1]`, 400, "cannot be"},
		{"POST", "media/find", `{"name":"x.iso","size_bytes":1,"head_sha256":"00"}`, 200, `"file":""`},
		{"POST", "media/find", `{"nome":"x"}`, 400, "unknown field"},
		{"PUT", "media/new.iso", driversISO(), 200, `"name":"new.iso"`},
		{"PUT", "media/rubbish.iso", "content", 400, "not an ISO 9660 image"},
		{"PUT", "media/rubbish.img", "content", 400, "disk"},
		{"PUT", "media/new.txt", "content", 400, "want an .iso"},
		{"PUT", "media/.hidden.iso", "content", 400, "want an .iso"},
		{"PUT", "media/..%2f..%2fx.iso", "content", 400, "want an .iso"},
		{"POST", "desktops", `{"name":"x","system":"windows-11-amd64","arch":"arm64"}`, 400, "want a file"},
		{"POST", "desktops", `{"name":"x","system":"none"}`, 400, "not in the catalogue"},
		{"POST", "desktops", `{"name":"x","file":"` + at("text.iso") + `"}`, 400, "not an ISO 9660 image"},
		{"POST", "desktops", `{"name":"x","system":"debian-12-amd64","drivers":"text.iso"}`, 400, "want the whole path"},
		{"POST", "desktops", `{"name":"x","system":"debian-12-amd64","drivers":"` + at("text.iso") + `"}`, 400, "second ISO"},
		{"POST", "desktops", `{"name":"x","system":"debian-12-amd64","drivers":"/none.iso"}`, 400, "no such file"},
		{"POST", "desktops", `{"name":"x","system":"debian-12-amd64","secure_boot":true}`, 400, "no keys"},
		{"POST", "desktops", `{"name":"x","system":"debian-12-arm64","tpm":true}`, 400, "no TPM for it"},
		{"POST", "desktops", `{"name":"x","arch":"mips","file":"/x.iso"}`, 400, "want amd64 or arm64"},
		{"POST", "desktops", `{"name":"x","system":"debian-12-amd64","cpus":-1}`, 400, "not below 0"},
		{"POST", "desktops", `{"name":"x","system":"debian-12-amd64","cpus":10000,"network":"wan"}`, 400, "; "},
		{"POST", "desktops", `{"name":"` + strings.Repeat("n", name.MaxLength+1) + `","system":"debian-12-amd64"}`, 400, "desktop name"},
		{"POST", "desktops", `{"name":"box","system":"debian-12-amd64"}`, 409, "already exists"},
		{"POST", "desktops", `{"name":"forced","force":true,"network":"none","file":"` + at("disk.raw") + `"}`, 200, `"kind":"create"`},
		{"POST", "desktops/box/boot", "", 409, "running already"},
		{"POST", "desktops/none/boot", "", 404, "no such desktop"},
		{"POST", "desktops/still/boot", `{"iso":"/none.iso"}`, 404, "no such file"},
		{"POST", "desktops/box/reset", "", 204, ""},
		{"POST", "desktops/still/reset", "", 409, "not running"},
		{"POST", "desktops/box/keys", `{"keys":["ctrl+alt+delete"]}`, 204, ""},
		{"POST", "desktops/box/keys", `{"keys":["hyper+x"]}`, 400, "hyper"},
		{"POST", "desktops/still/keys", `{"keys":["a"]}`, 409, "not running"},
		{"POST", "desktops/box/type", `{"text":"hi"}`, 204, ""},
		{"POST", "desktops/box/type", `{"text":"日本"}`, 400, "日本"},
		{"POST", "desktops/box/type", long, 400, "more than 1048576 bytes"},
		{"POST", "desktops/still/change", `{"cpus":2}`, 204, ""},
		{"POST", "desktops/still/change", `{"cpus":0}`, 400, "want 1 to"},
		{"POST", "desktops/still/change", `{"disk_bytes":1}`, 400, "disk of 1 bytes"},
		{"POST", "desktops/still/change", `{"iso":"/none.iso"}`, 400, "no such file"},
		{"POST", "desktops/still/change", `{"network":"wan"}`, 400, "wan"},
		{"POST", "desktops/still/change", `{"name":"box"}`, 409, "already exists"},
		{"POST", "desktops/box/change", `{"cpus":2}`, 409, "running already"},
		{"POST", "desktops/still/clone", `{"name":"copy"}`, 200, `"kind":"clone"`},
		{"POST", "desktops/still/clone", `{"name":"a/b"}`, 400, "desktop name"},
		{"POST", "desktops/none/clone", `{"name":"b"}`, 404, "no such desktop"},
		{"GET", "desktops/box/picture", "", 200, "PNG"},
		{"GET", "desktops/still/picture", "", 404, "no such file"},
		{"GET", "desktops/box/diagnostics", "", 200, "BdsDxe"},
		{"GET", "desktops/none/diagnostics", "", 404, "no such desktop"},
		{"GET", "desktops/box/screen", "", 404, ""}, // it is for WebSockets
		{"GET", "desktops/box/sound", "", 404, ""},
		{"GET", "desktops/box/serial", "", 404, ""},
		{"GET", "desktops/none/serial", "", 404, "no such desktop"},
		{"GET", "desktops/none/sound", "", 404, "no such desktop"},
		{"DELETE", "desktops/box", "", 409, "running already"},
		{"DELETE", "desktops/none", "", 404, "no such desktop"},
		{"DELETE", "desktops/damaged", "", 204, ""},
		{"DELETE", "desktops/damaged", "", 404, "no such desktop"},
		{"POST", "desktops/box/stop", `{"force":"yes"}`, 400, `\"force\" cannot be a string`},
		{"POST", "desktops/box/stop", `{"force":true}`, 204, ""},
		{"POST", "desktops/box/stop", "", 204, ""}, // it has stopped
		{"DELETE", "desktops/box", "", 204, ""},
		{"POST", "desktops/box/restore", "", 204, ""},
		{"POST", "desktops/box/restore", "", 404, "no"},
		{"POST", "desktops/still/boot", "", 204, ""},

		{"POST", "sessions", `{"image":"none"}`, 404, "no such image"},
		{"POST", "sessions", `{"image":"../x"}`, 400, "image name"},
		{"POST", "sessions", `{"image":"img","name":"web"}`, 409, "session of that name"},
		{"POST", "sessions", `{"image":"img","name":"a b"}`, 400, "name"},
		{"POST", "sessions", `{"image":"img","forwards":["x"]}`, 400, "x"},
		{"POST", "sessions", `{"image":"img","memory_bytes":1}`, 400, "at least 64 MB"},
		{"POST", "sessions", `{"image":"img","network":"wan"}`, 400, "wan"},
		{"GET", "sessions/web", "", 200, `"processes":`},
		{"GET", "sessions/none", "", 404, "no such session"},
		{"POST", "sessions/web/forwards", `{"add":["0:70000"]}`, 400, "70000"},
		{"POST", "sessions/web/forwards", `{"remove":[{"protocol":"tcp","host":1,"guest":1}]}`, 409, "not forwarded"},
		{"POST", "sessions/web/forwards", `{}`, 200, "[]"},
		{"POST", "sessions/none/forwards", `{}`, 404, "no such session"},
		{"POST", "sessions/web/kill", `{"id":"1","signal":99}`, 400, "no such signal"},
		{"POST", "sessions/web/kill", `{"id":"99999","signal":15}`, 404, "99999"},
		{"PUT", "sessions/web/files?path=" + at("in.txt"), "sent in", 204, ""},
		{"GET", "sessions/web/files?path=" + at("in.txt"), "", 200, "sent in"},
		{"GET", "sessions/web/files?path=" + at("sub"), "", 200, "deep.txt"},
		{"GET", "sessions/web/files?path=/none/at/all", "", 404, "none"},
		{"GET", "sessions/web/files?path=half", "", 400, "begins with a slash"},
		{"PUT", "sessions/web/files?path=" + p.dir + "/", "x", 400, "with its name"},
		{"PUT", "sessions/none/files?path=/x", "x", 404, "no such session"},
		{"GET", "sessions/none/files?path=/x", "", 404, "no such session"},
		{"POST", "sessions/web/terminals", `{"rows":24,"columns":80}`, 200, `{"id":"1"}`},
		{"POST", "sessions/web/terminals", `{"rows":-1}`, 400, `\"rows\" cannot be a number`},
		{"POST", "sessions/none/terminals", `{}`, 404, "no such session"},
		{"GET", "terminals/1", "", 404, ""},
		{"GET", "terminals/9", "", 404, "there is none"},
		{"DELETE", "terminals/9", "", 404, "there is none"},
		{"DELETE", "sessions/none", "", 404, "no such session"},

		{"GET", "releases", "", 200, `"id":"default"`},
		{"POST", "images/pull", `{"reference":" "}`, 400, "want the reference"},
		{"POST", "images/pull", `{"reference":"none"}`, 200, `"kind":"pull"`},
		{"DELETE", "images/img", "", 409, "in use"}, // by the session
		{"DELETE", "images/none", "", 404, "no such image"},
		{"DELETE", "images/..%2fsessions", "", 400, "image name"},
		{"DELETE", "jobs/99", "", 404, "no such job"},
		{"GET", "none", "", 404, "there is no such request"},
		{"PATCH", "state", "", 404, "there is no such request"},
	} {
		t.Run(fmt.Sprintf("%s %.40s %.60s", tt.method, tt.path, tt.body), func(t *testing.T) {
			status, b := p.call(tt.method, tt.path, tt.body)
			if status != tt.status || !strings.Contains(string(b), tt.want) {
				t.Errorf("%d %.400s, want %d with %q", status, b, tt.status, tt.want)
			}
			if status < 300 {
				used[s.of(t, tt.method, tt.path)] = true
				return
			}
			var e struct{ Error string }
			if tt.want != "" && (json.Unmarshal(b, &e) != nil || e.Error == "" || strings.ContainsAny(e.Error, "\n\r")) {
				t.Errorf("the error is no line in JSON: %q", b)
			}
		})
	}

	t.Run("a job", func(t *testing.T) {
		var st State
		for len(st.Jobs) == 0 || slices.ContainsFunc(st.Jobs, func(j Job) bool { return j.State == "running" }) {
			_, b := p.call("GET", "state", "")
			if err := json.Unmarshal(b, &st); err != nil {
				t.Fatal(err)
			}
		}
		for _, j := range st.Jobs {
			if j.Kind == "pull" && (j.State != "failed" || j.Error != "no such image; anywhere") || j.Kind != "pull" && j.State != "done" {
				t.Errorf("%+v", j)
			}
			if status, b := p.call("DELETE", "jobs/"+j.ID, ""); status != 204 {
				t.Errorf("%d %s", status, b)
			}
		}
		used["DELETE /api/jobs/{id}"] = true
	})
	t.Run("WebSockets", func(t *testing.T) {
		for path, want := range map[string]string{
			"desktops/still/serial": "BdsDxe", "desktops/still/screen": "RFB 003.008\n", "desktops/still/sound": `{"rate":48000,"channels":2}`, "terminals/1": `{"end":`,
		} {
			ws := dial(t, p.page, path)
			_, b, err := ws.Read(t.Context())
			if err != nil || !strings.HasPrefix(string(b), want) {
				t.Errorf("%s: %q, %v, want %q", path, b, err, want)
			}
			if path == "desktops/still/sound" {
				if kind, b, err := ws.Read(t.Context()); err != nil || kind != websocket.MessageBinary || !bytes.Equal(b, []byte{1, 2, 3, 4}) {
					t.Errorf("the sound is %v, %v", b, err)
				}
			}
			if path == "desktops/still/serial" { // a desktop that runs nowhere takes no keys, and says so
				if err := ws.Write(t.Context(), websocket.MessageBinary, []byte("x\r")); err != nil {
					t.Error(err)
				}
				for kind := websocket.MessageBinary; err == nil && kind == websocket.MessageBinary; {
					kind, b, err = ws.Read(t.Context())
				}
				if err != nil || !strings.Contains(string(b), `{"error":"desktop`) {
					t.Errorf("typed into a serial port: %q, %v", b, err)
				}
			}
			ws.CloseNow()
			used["GET /api/"+strings.NewReplacer("still", "{id}", "/1", "/{id}").Replace(path)] = true
		}
		// What is typed is run, in the guest.
		ws := dial(t, p.page, "terminals/1")
		defer ws.CloseNow()
		if err := ws.Write(t.Context(), websocket.MessageBinary, []byte("echo $((6*7))-typed\n")); err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		for !strings.Contains(got.String(), "42-typed") {
			_, b, err := ws.Read(t.Context())
			if err != nil {
				t.Fatalf("%v, after %q", err, got.String())
			}
			got.Write(b)
		}
		if status, b := p.call("DELETE", "terminals/1", ""); status != 204 {
			t.Errorf("its end: %d %s", status, b)
		}
		used["DELETE /api/terminals/{id}"] = true
		// A desktop that does not run says so, in the reason of its end.
		ws = dial(t, p.page, "desktops/box/screen")
		_, _, err := ws.Read(t.Context())
		var closed websocket.CloseError
		if !errors.As(err, &closed) || !strings.Contains(closed.Reason, "not running") {
			t.Errorf("a screen that is off: %v", err)
		}
	})
	t.Run("a process", func(t *testing.T) {
		status, b := p.call("POST", "sessions/web/terminals", `{}`)
		if status != 200 {
			t.Fatalf("%d %s", status, b)
		}
		for deadline := time.Now().Add(time.Minute); ; {
			_, b := p.call("GET", "sessions/web", "")
			var in Inside
			if err := json.Unmarshal(b, &in); err != nil {
				t.Fatal(err)
			}
			if i := slices.IndexFunc(in.Processes, func(p runtime.Process) bool { return p.Exit == nil }); i >= 0 {
				// That of the terminal before may be about to end.
				if status, b := p.call("POST", "sessions/web/kill", `{"id":"`+in.Processes[i].ID+`","signal":9}`); status == 204 {
					used["POST /api/sessions/{sid}/kill"] = true
					break
				} else if status != 404 {
					t.Fatalf("%d %s", status, b)
				}
			}
			if time.Now().After(deadline) {
				t.Fatalf("no process: %s", b)
			}
		}
	})
	events(t, Addresses{Page: p.page})("state")
	used["GET /api/events"] = true
	for _, tt := range []struct{ method, path string }{{"DELETE", "sessions/web"}, {"DELETE", "images/img"}, {"POST", "quit"}} {
		if status, b := p.call(tt.method, tt.path, ""); status != 204 {
			t.Errorf("%v: %d %s", tt, status, b)
		}
		used[s.of(t, tt.method, tt.path)] = true
	}
	for _, pattern := range s.patterns {
		if strings.Contains(pattern, "/api/") && !used[pattern] {
			t.Errorf("%s is not tried", pattern)
		}
	}
}

// patterns are the routes of an app.
func patterns(t *testing.T) *router {
	t.Helper()
	s, err := newServer(t.Context(), Options{Home: t.TempDir()}, page, "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.library.close)
	return s.mux
}

// of is the route of a request.
func (m *router) of(t *testing.T, method, path string) string {
	t.Helper()
	r, err := http.NewRequest(method, "/api/"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, pattern := m.Handler(r)
	return pattern
}

// Whoever lacks one thing that the page has gets nothing from any route, and does
// nothing there.
func TestRoutesAreGuarded(t *testing.T) {
	a, o, _ := start(t, nil)
	host := strings.Split(a.Page, "/")[2]
	if _, err := desktop.NewStore(o.Home).Create(t.Context(), firmware{}, desktop.Manifest{Name: "x", Architecture: "amd64"}, ""); err != nil {
		t.Fatal(err)
	}
	wildcard := regexp.MustCompile(`\{[^}]+\}`)
	n := 0
	for _, pattern := range patterns(t).patterns {
		method, path, _ := strings.Cut(wildcard.ReplaceAllString(pattern, "x"), " ")
		ours := strings.TrimSuffix(a.Page, "/") + path
		stranger := "http://" + host + "/ABCDEFGHIJKLMNOPQRSTUVWXYZ" + path
		for what, tt := range map[string]struct {
			url  string
			head map[string]string
		}{
			"another token": {stranger, nil},
			"no token":      {"http://" + host + path, nil},
			"another name":  {ours, map[string]string{"Host": "rebound.example.test:" + strings.Split(host, ":")[1]}},
			"another site":  {ours, map[string]string{"Origin": "https://example.test"}},
			"its frame":     {ours, map[string]string{"Sec-Fetch-Site": "same-site"}},
			"its WebSocket": {ours, map[string]string{"Origin": "http://example.test", "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}},
		} {
			r := request(t, method, tt.url, "", tt.head)
			b, err := io.ReadAll(r.Body)
			if err != nil || r.StatusCode != http.StatusNotFound || string(b) != "404 page not found\n" {
				t.Errorf("%s %s: %d %q, %v", what, pattern, r.StatusCode, b, err)
			}
			n++
		}
	}
	if n < 200 {
		t.Errorf("only %d requests were tried", n)
	}
	if _, err := desktop.NewStore(o.Home).Find("x"); err != nil {
		t.Errorf("a stranger has done something: %v", err)
	}
	if r := request(t, "GET", a.Page, "", nil); r.StatusCode != 200 {
		t.Errorf("the app has ended: %d", r.StatusCode)
	}
}

// The documentation has every route, and no other.
func TestRoutesAreDocumented(t *testing.T) {
	doc, err := fs.ReadFile(os.DirFS("../../docs"), "app.md")
	if err != nil {
		t.Fatal(err)
	}
	var have, want []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(GET|POST|PUT|DELETE) ([^` ?]+)").FindAllStringSubmatch(string(doc), -1) {
		have = append(have, m[1]+" /api/"+m[2])
	}
	for _, pattern := range patterns(t).patterns {
		if strings.Contains(pattern, "/api/") {
			want = append(want, pattern)
		}
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("docs/app.md has %q\nthe app has %q", have, want)
	}
}
