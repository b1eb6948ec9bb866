package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// testBrowser shows a desktop in Chromium: its page has the guest's screen, and
// keys reach the guest.
func testBrowser(t *testing.T, name string, f font) {
	cmd := command("desktop", "open", name)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var page struct {
		URL string `json:"url"`
	}
	if err := json.NewDecoder(out).Decode(&page); err != nil {
		t.Fatal(err)
	}
	b := newBrowser(t, page.URL)

	// The canvas is filled as updates come in: a bounded wait, see waitScreen.
	deadline := time.Now().Add(30 * time.Second)
	for {
		same := 0.0
		if shot := b.canvas(t); shot != nil {
			same = sameness(decode(t, string(shot)), screenshot(t, name))
		}
		if same == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%.1f %% of the page's pixels are those of the guest's screen", 100*same)
		}
		time.Sleep(100 * time.Millisecond)
	}
	b.press(t, "ArrowDown", 40)
	// What follows English depends on the console's font: without one of its own the
	// installer leaves out the languages that the console cannot show.
	waitScreen(t, name, "a key from the browser", 3*time.Minute, func(s *screen) bool {
		selected := s.selected(f)
		return strings.Contains(selected, "speranto") || strings.Contains(selected, "innish")
	})
	b.press(t, "ArrowUp", 38)
	waitScreen(t, name, "another key", 3*time.Minute, func(s *screen) bool { return strings.Contains(s.selected(f), "nglish") })

	base, _, _ := strings.Cut(strings.TrimPrefix(page.URL, "http://"), "/")
	if r, err := http.Get("http://" + base + "/"); err != nil || r.StatusCode != http.StatusNotFound {
		t.Errorf("without the token: %v, %v", r, err)
	}
}

// sameness is the share of pixels that two screens have in common.
func sameness(a, b image.Image) float64 {
	if a.Bounds() != b.Bounds() {
		return 0
	}
	n, size := 0, a.Bounds().Size()
	for y := range size.Y {
		for x := range size.X {
			ar, ag, ab, _ := a.At(x, y).RGBA()
			br, bg, bb, _ := b.At(x, y).RGBA()
			if ar == br && ag == bg && ab == bb {
				n++
			}
		}
	}
	return float64(n) / float64(size.X*size.Y)
}

// browser is a page in Chromium, driven by its DevTools protocol.
type browser struct {
	ctx  context.Context
	page *websocket.Conn
	id   int
	port string // of the protocol's HTTP
	tab  string // the identifier of the page's tab
	pid  int
}

func newBrowser(t testing.TB, url string) *browser {
	t.Helper()
	cmd := exec.Command("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1400,1000",
		"--remote-debugging-port=0", "--user-data-dir="+t.TempDir(), "about:blank")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b := &browser{ctx: t.Context(), pid: cmd.Process.Pid}
	t.Cleanup(func() {
		// Asked, it ends with all of its processes, which write to its directory.
		if b.page == nil || wsjson.Write(context.Background(), b.page, map[string]any{"id": 0, "method": "Browser.close"}) != nil {
			_ = cmd.Process.Kill()
		}
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(stderr)
	for b.port == "" && lines.Scan() {
		if _, rest, ok := strings.Cut(lines.Text(), "DevTools listening on ws://127.0.0.1:"); ok {
			b.port, _, _ = strings.Cut(rest, "/")
		}
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	b.open(t, url)
	return b
}

// ask asks the browser itself.
func (b *browser) ask(t testing.TB, method, what string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(b.ctx, method, fmt.Sprintf("http://127.0.0.1:%s/json/%s", b.port, what), nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response
}

// open shows a page in a tab of its own.
func (b *browser) open(t testing.TB, url string) {
	t.Helper()
	var target struct {
		ID  string `json:"id"`
		URL string `json:"webSocketDebuggerUrl"`
	}
	if err := json.NewDecoder(b.ask(t, http.MethodPut, "new?"+strings.ReplaceAll(url, "#", "%23")).Body).Decode(&target); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.page, _, err = websocket.Dial(b.ctx, target.URL, nil); err != nil {
		t.Fatal(err)
	}
	b.tab = target.ID
	b.page.SetReadLimit(64 << 20)
}

// call calls a method of the DevTools protocol.
func (b *browser) call(t testing.TB, method string, params, result any) error {
	t.Helper()
	b.id++
	if err := wsjson.Write(b.ctx, b.page, map[string]any{"id": b.id, "method": method, "params": params}); err != nil {
		t.Fatal(err)
	}
	for {
		var reply struct {
			ID     int             `json:"id"`
			Result json.RawMessage `json:"result"`
			Error  json.RawMessage `json:"error"`
		}
		if err := wsjson.Read(b.ctx, b.page, &reply); err != nil {
			t.Fatal(err)
		}
		if reply.ID != b.id {
			continue
		}
		if reply.Error != nil {
			return fmt.Errorf("%s: %s", method, reply.Error)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(reply.Result, result)
	}
}

// canvas is what the page shows of the guest's screen, as a PNG; nil for nothing.
func (b *browser) canvas(t *testing.T) []byte {
	t.Helper()
	var r struct {
		Result struct {
			Value string `json:"value"`
		} `json:"result"`
	}
	err := b.call(t, "Runtime.evaluate", map[string]any{"expression": `document.querySelector("#screen canvas")?.toDataURL("image/png") ?? ""`}, &r)
	if err != nil {
		return nil // there is no page yet
	}
	_, data, _ := strings.Cut(r.Result.Value, ",")
	shot, err := base64.StdEncoding.DecodeString(data)
	if err != nil || len(shot) == 0 {
		return nil
	}
	return shot
}

func (b *browser) press(t *testing.T, key string, code int) {
	t.Helper()
	for _, kind := range []string{"rawKeyDown", "keyUp"} {
		if err := b.call(t, "Input.dispatchKeyEvent", map[string]any{"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}, nil); err != nil {
			t.Fatal(err)
		}
	}
}
