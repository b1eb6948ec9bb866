package viewer

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/coder/websocket"
)

// echo is a desktop that says what it hears.
func echo(context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		_, _ = io.Copy(there, there)
	}()
	return here, nil
}

// client stands for noVNC, which the rules of access do not depend on.
var client = fstest.MapFS{"core/rfb.js": {Data: []byte("export default class {}")}}

func start(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	urls, served := make(chan string, 1), make(chan error, 1)
	go func() {
		served <- serve(ctx, "<test>", client, echo, func(url string) error {
			urls <- url
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-served
	})
	return <-urls
}

func TestStrangersGetNothing(t *testing.T) {
	url := start(t)
	host := strings.Split(url, "/")[2]
	if !strings.HasPrefix(host, "127.0.0.1:") {
		t.Fatalf("it is at %s", host)
	}
	port := host[len("127.0.0.1"):]
	for name, tt := range map[string]struct {
		url, host, origin string
		want              int
	}{
		"the page":            {url, host, "", 200},
		"its script":          {url + "page.js", host, "", 200},
		"noVNC":               {url + "novnc/core/rfb.js", host, "http://" + host, 200},
		"no token":            {"http://" + host + "/", host, "", 404},
		"no token, script":    {"http://" + host + "/page.js", host, "", 404},
		"no token, screen":    {"http://" + host + "/screen", host, "http://" + host, 404},
		"another token":       {"http://" + host + "/ABCDEFGHIJKLMNOPQRSTUVWXYZ/", host, "", 404},
		"part of the token":   {url[:len(url)-2] + "/", host, "", 404},
		"a name for it":       {url, "rebound.example.test" + port, "", 404},
		"localhost":           {url, "localhost" + port, "", 404},
		"another site":        {url, host, "https://example.test", 404},
		"another port":        {url, host, "http://127.0.0.1:1", 404},
		"a sandboxed frame":   {url, host, "null", 404},
		"screen, no browser":  {url + "screen", host, "", 404},
		"files beside it":     {url + "novnc/%2e%2e/viewer.go", host, "", http.StatusTemporaryRedirect}, // to where nothing is
		"screen without more": {url + "screen", host, "http://" + host, http.StatusUpgradeRequired},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequest(http.MethodGet, tt.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = tt.host
			if tt.origin != "" {
				r.Header.Set("Origin", tt.origin)
			}
			response, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != tt.want {
				t.Errorf("status %d, want %d", response.StatusCode, tt.want)
			}
			if tt.want == 200 && (response.Header.Get("Content-Security-Policy") == "" || response.Header.Get("Access-Control-Allow-Origin") != "") {
				t.Errorf("headers %v", response.Header)
			}
		})
	}
}

func TestScreen(t *testing.T) {
	url := start(t)
	host := strings.Split(url, "/")[2]
	ws := "ws" + strings.TrimPrefix(url, "http") + "screen"
	for _, origin := range []string{"", "http://example.test", "null"} {
		if _, _, err := websocket.Dial(t.Context(), ws, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}}); err == nil {
			t.Errorf("a page of %q is let in", origin)
		}
	}
	c, _, err := websocket.Dial(t.Context(), ws, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"http://" + host}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if err := c.Write(t.Context(), websocket.MessageBinary, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, b, err := c.Read(t.Context()); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
}

// What a desktop is called is text on the page.
func TestNameIsEscaped(t *testing.T) {
	h := newHandler(t.Context(), "127.0.0.1:1", "token", "<script>", client, echo)
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:1/token/", nil)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if body := w.Body.String(); w.Code != 200 || strings.Contains(body, "<b><script>") || !strings.Contains(body, "&lt;script&gt;") {
		t.Errorf("%d %s", w.Code, body)
	}
}

// A program that was built without noVNC says so, and how to get it.
func TestNotBuilt(t *testing.T) {
	without := fstest.MapFS{"out/.gitignore": {}}
	if _, err := novnc(without); !errors.Is(err, ErrNotBuilt) || !strings.Contains(err.Error(), "make build") {
		t.Errorf("error %v", err)
	}
}

// Every module that noVNC imports is embedded, with the licences of all of it.
func TestModulesAreComplete(t *testing.T) {
	files, err := novnc(files)
	if errors.Is(err, ErrNotBuilt) && testing.Short() {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"LICENSE.txt", "LICENSE.MPL-2.0", "AUTHORS", "vendor/pako/LICENSE"} {
		if _, err := fs.Stat(files, name); err != nil {
			t.Error(err)
		}
	}
	imports := regexp.MustCompile(`(?m)^(?:import|export)[^;]*?from\s+['"]([^'"]+)['"]`)
	err = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".js") {
			return err
		}
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		for _, m := range imports.FindAllStringSubmatch(string(b), -1) {
			if _, err := fs.Stat(files, path.Join(path.Dir(name), m[1])); err != nil {
				t.Errorf("%s imports %s: %v", name, m[1], err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
