package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// appPage is the app in Chromium, with a state directory of its own in which there is
// nothing but an image.
type appPage struct {
	*browser
	url, home string
}

func newAppPage(t *testing.T, files map[string]string) *appPage {
	t.Helper()
	a := newApp(t, files)
	a.browser = newBrowser(t, a.url)
	return a
}

// newApp is one without a browser.
func newApp(t *testing.T, files map[string]string) *appPage {
	t.Helper()
	here := filepath.Join(t.TempDir(), "home")
	if err := os.Mkdir(here, 0o700); err != nil {
		t.Fatal(err)
	}
	// A part of a state directory may be a link to another disk.
	if err := os.Symlink(filepath.Join(home, "images"), filepath.Join(here, "images")); err != nil {
		t.Fatal(err)
	}
	a, _ := startApp(t, here, files)
	return a
}

// startApp serves the app of a state directory, to the end of the test if nothing ends it
// before.
func startApp(t *testing.T, here string, files map[string]string, env ...string) (*appPage, *exec.Cmd) {
	t.Helper()
	a := &appPage{home: here}
	cmd := exec.Command(program, "app", "--no-browser")
	cmd.Env = append(append(os.Environ(), "LUMINA_HOME="+here, "LUMINA_TEMPLATE=0", "HOME="+t.TempDir()), env...)
	cmd.Dir = t.TempDir()
	for name, from := range files {
		if err := os.Symlink(from, filepath.Join(cmd.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState != nil {
			return
		}
		for _, kind := range []string{"desktop", "session"} {
			if here == home {
				break // others have theirs there
			}
			var rows []struct{ ID, SID string }
			_ = json.Unmarshal([]byte(a.lumina(t, kind, "list", "--json").stdout), &rows)
			for _, r := range rows {
				a.lumina(t, kind, "stop", "--force", r.ID+r.SID)
			}
		}
		_ = cmd.Process.Signal(syscall.SIGINT)
		if code := waitCode(t, cmd); code != 128+int(syscall.SIGINT) {
			t.Errorf("the app ended with %d", code)
		}
	})
	var page struct {
		URL string `json:"url"`
	}
	if err := json.NewDecoder(out).Decode(&page); err != nil {
		t.Fatal(err)
	}
	a.url = page.URL
	return a, cmd
}

// lumina calls the program for the app's state directory.
func (a *appPage) lumina(t *testing.T, args ...string) result {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "LUMINA_HOME="+a.home)
	return finish(t, cmd)
}

// eval is what an expression is in the page; nil while there is no page.
func (a *appPage) eval(t *testing.T, expression string) any {
	t.Helper()
	var r struct {
		Result struct {
			Value any `json:"value"`
		} `json:"result"`
		Exception json.RawMessage `json:"exceptionDetails"`
	}
	if err := a.call(t, "Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}, &r); err != nil {
		return nil
	}
	if r.Exception != nil {
		return nil // the page is not as far yet
	}
	return r.Result.Value
}

// wait waits until an expression holds in the page.
func (a *appPage) wait(t *testing.T, what, expression string) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); a.eval(t, expression) != true; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within two minutes; the page is at %v and says %.2000v", what, a.eval(t, "location.hash"), a.eval(t, "document.body.innerText"))
		}
	}
}

// click clicks at the middle of the element that an expression is, once it can be
// clicked.
func (a *appPage) click(t *testing.T, what, element string) {
	t.Helper()
	a.wait(t, what, "(() => { const e = "+element+"; return !!e && !e.disabled && e.getClientRects().length > 0 && e.checkVisibility({contentVisibilityAuto: true}) })()")
	// Once it stays where it is: the page may be on its way to the full screen.
	at, ok := a.eval(t, `(async () => {
		const e = `+element+`;
		e.scrollIntoView({block: 'center'});
		for (let was, left = 60; left > 0; left--) {
			const r = e.getBoundingClientRect(), at = [r.x + r.width / 2, r.y + r.height / 2];
			if (String(at) === was) return at;
			was = String(at);
			await Promise.race([new Promise(requestAnimationFrame), new Promise((done) => setTimeout(done, 50))]);
		}
	})()`).([]any)
	if !ok {
		t.Fatalf("%s: it is nowhere", what)
	}
	for _, kind := range []string{"mousePressed", "mouseReleased"} {
		if err := a.call(t, "Input.dispatchMouseEvent", map[string]any{"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func named(selector, text string) string {
	return fmt.Sprintf("[...document.querySelectorAll(%q)].find((e) => (e.getAttribute('aria-label') ?? e.textContent).includes(%q))", selector, text)
}

// typed types a text into what has the focus.
func (a *appPage) typed(t *testing.T, text string) {
	t.Helper()
	if err := a.call(t, "Input.insertText", map[string]any{"text": text}, nil); err != nil {
		t.Fatal(err)
	}
}

// shows waits until the screen in the page is as wished.
func (a *appPage) shows(t *testing.T, what string, ok func(*screen) bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Minute)
	for {
		asked := time.Now()
		if shot := a.canvas(t); shot != nil && ok(newScreen(decode(t, string(shot)))) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the page does not show %s: it is at %v and says %.2000v; %s", what, a.eval(t, "location.hash"), a.eval(t, "document.body.innerText"), desktopStates(t, a.home, stacksOf))
		}
		time.Sleep(pause(asked))
	}
}

// axe says what is wrong with the page for who cannot see it, or has no pointer: light and
// dark, which differ in their colours only, and as narrow as on a telephone.
func (a *appPage) axe(t *testing.T, where string) {
	t.Helper()
	if a.eval(t, "typeof axe") != "object" {
		script := readFile(t, "../../runtime/app/page/node_modules/axe-core/axe.min.js")
		if err := a.call(t, "Runtime.evaluate", map[string]any{"expression": string(script)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	look := func(scheme, rules string) {
		t.Helper()
		if err := a.call(t, "Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]string{"name": "prefers-color-scheme", "value": scheme}}}, nil); err != nil {
			t.Fatal(err)
		}
		found := a.eval(t, `axe.run(`+rules+`).then((r) => r.violations.map((v) => v.id + ": " + v.nodes.map((n) => n.target + " " + n.failureSummary).join("; ")).join("\n"))`)
		if found != "" {
			t.Errorf("%s, %s: %v", where, scheme, found)
		}
	}
	if err := a.call(t, "Page.bringToFront", nil, nil); err != nil {
		t.Fatal(err)
	}
	look("dark", `{runOnly: ["color-contrast"]}`)
	look("light", "")
	a.width(t, 400)
	look("light", "")
	if wide, _ := a.eval(t, "document.documentElement.scrollWidth").(float64); wide > 400 {
		t.Errorf("%s: the page of 400 pixels is %v wide", where, wide)
	}
	a.width(t, 0)
}

// width makes the window as wide as that, in pixels; 0: as it was.
func (a *appPage) width(t *testing.T, pixels int) {
	t.Helper()
	method, params := "Emulation.clearDeviceMetricsOverride", map[string]any(nil)
	if pixels > 0 {
		method, params = "Emulation.setDeviceMetricsOverride", map[string]any{"width": pixels, "height": 860, "deviceScaleFactor": 1, "mobile": false}
	}
	if err := a.call(t, method, params, nil); err != nil {
		t.Fatal(err)
	}
	if pixels > 0 { // once it is drawn so
		a.wait(t, "the width", fmt.Sprintf("innerWidth === %d && new Promise((ok) => { requestAnimationFrame(() => requestAnimationFrame(() => ok(true))); setTimeout(ok, 500, true) })", pixels))
	}
}
