package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/runtime/desktop"
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
	a := &appPage{home: filepath.Join(t.TempDir(), "home")}
	if err := os.Mkdir(a.home, 0o700); err != nil {
		t.Fatal(err)
	}
	// A part of a state directory may be a link to another disk.
	if err := os.Symlink(filepath.Join(home, "images"), filepath.Join(a.home, "images")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "app", "--no-browser")
	cmd.Env = append(os.Environ(), "LUMINA_HOME="+a.home, "LUMINA_TEMPLATE=0", "HOME="+t.TempDir())
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
		for _, kind := range []string{"desktop", "session"} {
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
	return a
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
	a.wait(t, what, "(() => { const e = "+element+"; return !!e && !e.disabled && e.getClientRects().length > 0 })()")
	at, ok := a.eval(t, "(() => { const e = "+element+"; e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] })()").([]any)
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
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if shot := a.canvas(t); shot != nil && ok(newScreen(decode(t, string(shot)))) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the page does not show %s", what)
		}
	}
}

// axe says what is wrong with the page for who cannot see it, or has no pointer.
func (a *appPage) axe(t *testing.T, where string) {
	t.Helper()
	script := readFile(t, "../../runtime/app/page/node_modules/axe-core/axe.min.js")
	if err := a.call(t, "Runtime.evaluate", map[string]any{"expression": string(script)}, nil); err != nil {
		t.Fatal(err)
	}
	for _, scheme := range []string{"light", "dark"} {
		if err := a.call(t, "Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]string{"name": "prefers-color-scheme", "value": scheme}}}, nil); err != nil {
			t.Fatal(err)
		}
		found := a.eval(t, `axe.run().then((r) => r.violations.map((v) => v.id + ": " + v.nodes.map((n) => n.target + " " + n.failureSummary).join("; ")).join("\n"))`)
		if found != "" {
			t.Errorf("%s, %s: %v", where, scheme, found)
		}
	}
}

// From nothing to an installer by two clicks, and what a person does then.
func TestApp(t *testing.T) {
	needsProgram(t)
	a := newAppPage(t, map[string]string{
		"debian.iso": installer(t),
		"arm.iso":    efiISO(t, map[string][]byte{"BOOTAA64.EFI": noProgram(0xAA64)}),
		// What it has is not looked at: it is not booted.
		"virtio-win.iso": efiISO(t, map[string][]byte{"README.TXT": []byte("drivers")}),
	})
	var f font
	t.Run("two clicks", func(t *testing.T) {
		a.wait(t, "the file at hand that boots", "document.querySelectorAll('.tile').length === 2")
		a.axe(t, "the empty library")
		a.eval(t, "localStorage.setItem('sound', 'on')")
		a.eval(t, "new MutationObserver(() => { if (document.querySelector('.sound[data-heard]')) window.heard = true }).observe(document.body, {subtree: true, childList: true, attributes: true})")
		a.click(t, "the installer", named(".tile", "debian.iso"))
		a.click(t, "the button that makes it", "document.querySelector('#create')")
		a.wait(t, "the desktop's page", "location.hash.startsWith('#/desktop/') && !!document.querySelector('.boot .waterfall')")
		a.axe(t, "a desktop that boots")
		a.wait(t, "the loader's beep, in the page", "window.heard")
		a.shows(t, "the installer's first page", func(s *screen) (ok bool) {
			f, ok = s.learn("Choose the language to be used for the installation process. The selected language will also be the default language for the installed system.")
			return ok
		})
		a.shows(t, "English selected", func(s *screen) bool { return strings.Contains(s.selected(f), "nglish") })
	})
	if t.Failed() {
		return
	}
	t.Run("keys", func(t *testing.T) {
		a.press(t, "ArrowDown", 40)
		a.shows(t, "a key from the browser", func(s *screen) bool { return !strings.Contains(s.selected(f), "nglish") })
	})
	t.Run("loaded again", func(t *testing.T) {
		if err := a.call(t, "Page.reload", nil, nil); err != nil {
			t.Fatal(err)
		}
		a.shows(t, "the same page", func(s *screen) bool { return f.shows(s, "Choose the language") })
		a.press(t, "ArrowUp", 38)
		a.shows(t, "another key", func(s *screen) bool { return strings.Contains(s.selected(f), "nglish") })
	})
	t.Run("a killed tab", func(t *testing.T) {
		killed := a.tab
		a.open(t, a.url)
		a.ask(t, "GET", "close/"+killed)
		a.click(t, "its card", "document.querySelector('.card .open')")
		a.shows(t, "the same page", func(s *screen) bool { return f.shows(s, "Choose the language") })
	})
	t.Run("a crash", func(t *testing.T) {
		for _, p := range processesOf(t, a.home, "qemu-system-") {
			if err := syscall.Kill(p, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		a.wait(t, "that it crashed", "!!document.querySelector('.off .wrong') && document.querySelector('#start').textContent === 'Try again'")
		a.wait(t, "what its serial port wrote", "document.querySelector('.serial').textContent.includes('BdsDxe: starting')")
		a.axe(t, "a desktop that crashed")
		said, _ := a.eval(t, "fetch(location.pathname + 'api/desktops/' + location.hash.split('/')[2] + '/diagnostics').then((r) => r.text())").(string)
		for _, want := range []string{"ms  machine", "ended: ", "BdsDxe: starting", "debian.iso"} {
			if !strings.Contains(said, want) {
				t.Errorf("the diagnostics have no %q: %.3000s", want, said)
			}
		}
	})
	t.Run("deleted and restored", func(t *testing.T) {
		a.click(t, "what else there is", named(".bar button", "More"))
		a.click(t, "Delete", named(".menu button", "Delete"))
		a.click(t, "Undo", named(".toast button", "Undo"))
		a.wait(t, "the desktop", "location.hash === '#/library' && document.querySelectorAll('.card').length === 1")
		if r := a.lumina(t, "desktop", "ls", "--json"); !strings.Contains(r.stdout, `"debian"`) {
			t.Errorf("the command line has %s", r.stdout)
		}
	})
	t.Run("a wrong ISO", func(t *testing.T) {
		a.click(t, "New", named(".top .button", "New"))
		a.click(t, "the ISO", named(".tile", "arm.iso"))
		a.wait(t, "why it is refused", "document.querySelector('.wrong.box').textContent.includes('it is for arm64 (BOOTAA64.EFI), the guest is amd64') && document.querySelector('#create').disabled")
		a.axe(t, "the wizard")
	})
	t.Run("a wish for everything", func(t *testing.T) { testAppWizard(t, a) })
	t.Run("a stranger's page", func(t *testing.T) { testAppStranger(t, a) })
	t.Run("a terminal", func(t *testing.T) { testAppTerminal(t, a) })
}

// testAppWizard sets all that the wizard has, and looks at what comes of it.
func testAppWizard(t *testing.T, a *appPage) {
	a.click(t, "to emulate it", named(".wrong.box button", "Emulate arm64"))
	a.wait(t, "that it may be made", "!document.querySelector('#create').disabled && document.querySelector('.panel .box').textContent.includes('it is emulated')")
	a.click(t, "Windows", named(".tile", "Windows 11"))
	a.wait(t, "what Windows 11 asks for", "document.querySelector('#tpm').checked && document.querySelector('#secure').checked && document.querySelector('#drivers').value.endsWith('/virtio-win.iso') && document.querySelector('#create').disabled")
	a.click(t, "the installer", named(".tile", "debian.iso"))
	a.wait(t, "what it asks for", "!document.querySelector('#tpm').checked && !document.querySelector('details').open && document.querySelector('#drivers').value === ''")
	a.click(t, "the name", "document.querySelector('form input[type=text]')")
	a.eval(t, "document.activeElement.select()")
	a.typed(t, "everything")
	// A slider goes by its steps.
	for _, s := range []struct{ name, to string }{{"CPUs", "1"}, {"Memory", "1.5"}, {"Disk", "16"}} {
		slider := "[...document.querySelectorAll('.slider')].find((e) => e.textContent.startsWith('" + s.name + "')).querySelector('input')"
		if a.eval(t, slider+".focus(), document.activeElement.type") != "range" {
			t.Fatalf("there is no slider %s", s.name)
		}
		a.press(t, "Home", 36)
		a.wait(t, "the least of "+s.name, slider+".value === "+slider+".min")
		for step := 0; a.eval(t, slider+".value") != s.to; step++ {
			if step == 3 {
				t.Fatalf("%s is %v, want %s", s.name, a.eval(t, slider+".value"), s.to)
			}
			was, _ := a.eval(t, slider+".value").(string)
			a.press(t, "ArrowRight", 39)
			a.wait(t, "more of "+s.name, slider+".value !== '"+was+"'")
		}
	}
	a.click(t, "only some of the network", named(".radio", "only"))
	a.click(t, "what of it", "document.querySelector('[aria-label=\"What it may reach\"]')")
	a.typed(t, "deb.debian.org:80")
	a.click(t, "what else there is", "document.querySelector('summary')")
	a.click(t, "the second ISO", "document.querySelector('#drivers')")
	drivers, _ := a.eval(t, "[...document.querySelectorAll('#isos option')].map((o) => o.value).find((f) => f.endsWith('virtio-win.iso'))").(string)
	a.typed(t, drivers)
	a.click(t, "a TPM", "document.querySelector('#tpm')")
	if err := a.call(t, "Page.reload", nil, nil); err != nil {
		t.Fatal(err)
	}
	a.wait(t, "all of it, once it was loaded again", "document.querySelector('#tpm').checked && document.querySelector('details').open && document.querySelector('#drivers').value.endsWith('virtio-win.iso') && document.querySelector('form input[type=text]').value === 'everything'")
	a.axe(t, "the wizard, with everything")
	a.click(t, "the button that makes it", "document.querySelector('#create')")
	a.wait(t, "its page", "location.hash.startsWith('#/desktop/') && document.querySelector('h1').textContent === 'everything'")
	var m desktop.Manifest
	id, _ := a.eval(t, "location.hash.split('/')[2]").(string)
	if err := json.Unmarshal(readFile(t, filepath.Join(a.home, "desktop-vms", id, "manifest.json")), &m); err != nil {
		t.Fatal(err)
	}
	if m.CPUs != 1 || m.Memory != 3<<29 || m.DiskSize != 16<<30 || m.Network != "allow=deb.debian.org:80" || m.Drivers != drivers || !m.TPM || m.SecureBoot {
		t.Errorf("it is %+v", m)
	}
	a.lumina(t, "desktop", "stop", "--force", "everything").succeeded(t)
	a.lumina(t, "desktop", "rm", "--now", "everything").succeeded(t)
	a.wait(t, "that it has gone", "document.querySelector('h1').textContent === 'No such desktop'")
}

// testAppStranger opens a page of somebody else's in the same browser, which even knows
// the app's address.
func testAppStranger(t *testing.T, a *appPage) {
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<!DOCTYPE html><title>stranger</title>") }))
	defer stranger.Close()
	visit := func(url, title string) {
		t.Helper()
		if err := a.call(t, "Page.navigate", map[string]any{"url": url}, nil); err != nil {
			t.Fatal(err)
		}
		a.wait(t, url, "document.readyState === 'complete' && document.title === '"+title+"' && location.href.startsWith('"+url+"')")
	}
	visit(stranger.URL, "stranger")
	for what, do := range map[string]string{
		"asks":               "fetch(%q).then((r) => r.text())",
		"asks without CORS":  "fetch(%q, {mode: 'no-cors'}).then((r) => r.text()).then((x) => { if (!x) throw 0; return x })",
		"sends":              "fetch(%q.replace('state', 'quit'), {method: 'POST', mode: 'no-cors', body: '{}'}).then((r) => r.status || Promise.reject())",
		"opens a connection": "new Promise((ok, no) => { const ws = new WebSocket(%q.replace('http', 'ws').replace('state', 'desktops/debian/screen')); ws.onopen = ok; ws.onerror = no })",
		"shows it":           "new Promise((ok, no) => { const i = new Image(); i.onload = ok; i.onerror = no; i.src = %q.replace('state', 'desktops/debian/picture') })",
		"runs its script":    "new Promise((ok, no) => { const s = document.createElement('script'); s.onload = ok; s.onerror = no; s.src = %q.replace('api/state', 'assets/main.js'); document.head.append(s) })",
	} {
		got := a.eval(t, "("+fmt.Sprintf(do, a.url+"api/state")+").then((x) => 'done ' + x, () => 'refused')")
		if got != "refused" {
			t.Errorf("a stranger %s: %v", what, got)
		}
	}
	// A name for 127.0.0.1, as one that is bound anew has.
	visit(strings.Replace(a.url, "127.0.0.1", "localhost", 1), "")
	if got := a.eval(t, "document.body.innerText.trim()"); got != "404 page not found" {
		t.Errorf("by another name: %v", got)
	}
	visit(a.url, "Lumina")
}

// testAppTerminal does in terminals what people do there.
func testAppTerminal(t *testing.T, a *appPage) {
	if err := tools(); err != nil {
		t.Fatal(err)
	}
	rows := "(document.querySelector('.xterm-rows')?.innerText ?? '').replaceAll('\\u00a0', ' ')"
	if err := a.call(t, "Page.navigate", map[string]any{"url": a.url + "#/library/images"}, nil); err != nil {
		t.Fatal(err)
	}
	// What comes in is counted where the page gets it.
	a.eval(t, `(() => { window.next = 1; const decode = new TextDecoder(); let rest = '';
		window.WebSocket = class extends WebSocket { constructor(to) { super(to); this.addEventListener('message', (e) => {
			if (!to.includes('/terminals/') || typeof e.data === 'string') return;
			window.socket = this;
			const lines = (rest + decode.decode(e.data, {stream: true})).split('\r\n');
			rest = lines.pop();
			for (const l of lines) if (/[0-9]{200}$/.test(l)) window.next = Number(l.slice(-200)) === window.next ? window.next + 1 : NaN;
		}); } } })()`)
	a.click(t, "the terminal of an image", named("button", "Terminal in a new session of tools"))
	a.wait(t, "the prompt", rows+".includes('#')")
	run := func(line string) {
		t.Helper()
		a.typed(t, line)
		a.press(t, "Enter", 13)
	}
	// What is typed is not what is printed. The page's own beat says whether it stood
	// still, which no load of the host's makes it do for so long.
	a.eval(t, "(() => { window.gap = 0; let was = performance.now(); setInterval(() => { const now = performance.now(); window.gap = Math.max(window.gap, now - was); was = now }, 50) })()")
	run("seq -f '%0200.0f' 50000; echo lines-$((50000 + 7))")
	a.wait(t, "the end of 10 MB", rows+".includes('lines-50007') && "+rows+".includes('0050000')")
	if next := a.eval(t, "window.next"); next != 50001.0 {
		t.Errorf("of 50,000 lines, the page got those before %v", next)
	}
	t.Logf("while 10 MB were printed, the page stood still for %.0f ms at most", a.eval(t, "window.gap"))
	t.Run("a connection that breaks", func(t *testing.T) {
		a.eval(t, "(() => { window.broken = window.socket; window.socket.close() })()")
		run("clear; echo after-$((40 + 2))") // while there is none
		a.wait(t, "what was typed meanwhile, and nothing twice", "window.socket !== window.broken && "+rows+".includes('after-42') && !"+rows+".includes('lines-50007')")
	})
	t.Run("vim", func(t *testing.T) {
		run("vim /tmp/poem")
		a.wait(t, "vim", rows+".includes('\"/tmp/poem\" [New]')")
		a.typed(t, "i")
		a.typed(t, "roses are red")
		a.press(t, "Enter", 13)
		a.typed(t, "violets — ünïcödé")
		a.press(t, "Escape", 27)
		run(":wq")
		a.wait(t, "the prompt, with what was before", rows+".includes('#') && !"+rows+".includes('roses')")
		run("clear; cat /tmp/poem")
		a.wait(t, "what vim wrote", rows+".includes('roses are red') && "+rows+".includes('violets — ünïcödé')")
	})
	t.Run("htop, resized", func(t *testing.T) {
		run("htop")
		a.wait(t, "htop", rows+".includes('Load average')")
		if err := a.call(t, "Emulation.setDeviceMetricsOverride", map[string]any{"width": 1000, "height": 600, "deviceScaleFactor": 1, "mobile": false}, nil); err != nil {
			t.Fatal(err)
		}
		// Its last line is the terminal's.
		a.wait(t, "its keys below", "(() => { const all = [...document.querySelectorAll('.xterm-rows > div')].map((r) => r.innerText.replaceAll('\\u00a0', ' ')); return all.length < 40 && all[all.length - 1].includes('F10Quit') })()")
		a.typed(t, "q")
		run("clear; stty size")
		a.wait(t, "the terminal's size", "(() => { const n = document.querySelectorAll('.xterm-rows > div').length; return new RegExp('^' + n + ' [0-9]+$', 'm').test("+rows+") })()")
		if err := a.call(t, "Emulation.clearDeviceMetricsOverride", nil, nil); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a program on the whole screen, loaded again", func(t *testing.T) {
		run("tput() { printf '\\033['\"$1\"; }; clear; echo before; tput '?1049h'; tput '5;10H'; printf 'full-%s' $((6 * 7)); read -r answer; tput '?1049l'; echo was-$answer")
		a.wait(t, "a program on the whole screen", rows+".includes('full-42') && !"+rows+".includes('before')")
		if err := a.call(t, "Page.reload", nil, nil); err != nil {
			t.Fatal(err)
		}
		a.wait(t, "the same program", rows+".includes('full-42')")
		a.click(t, "the terminal", "document.querySelector('.term')")
		run("back")
		a.wait(t, "its end", rows+".includes('was-back') && "+rows+".includes('before')")
	})
	t.Run("a link and a copy", func(t *testing.T) {
		a.eval(t, "window.opened = '', window.open = (to) => { window.opened = to }, window.copied = '', navigator.clipboard.writeText = async (x) => { window.copied = x }")
		run("clear; echo http://127.0.0.1:9/$((600 + 6))")
		a.wait(t, "the link", rows+".includes('127.0.0.1:9/606')")
		row := "[...document.querySelectorAll('.xterm-rows > div')].find((r) => r.innerText.includes('9/606'))"
		at, ok := a.eval(t, "(() => { const r = "+row+".getBoundingClientRect(); return [r.x + 60, r.y + r.height / 2] })()").([]any)
		if !ok {
			t.Fatal("it is nowhere")
		}
		mouse := func(kind string, clicks int) {
			t.Helper()
			if err := a.call(t, "Input.dispatchMouseEvent", map[string]any{"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": clicks}, nil); err != nil {
				t.Fatal(err)
			}
		}
		mouse("mouseMoved", 0)
		a.wait(t, "that it can be clicked", "!!document.querySelector('.xterm-cursor-pointer')")
		mouse("mousePressed", 1)
		mouse("mouseReleased", 1)
		a.wait(t, "where it leads", "window.opened === 'http://127.0.0.1:9/606'")
		for n := 1; n <= 3; n++ { // the third takes the line
			mouse("mousePressed", n)
			mouse("mouseReleased", n)
		}
		for _, kind := range []string{"rawKeyDown", "keyUp"} {
			if err := a.call(t, "Input.dispatchKeyEvent", map[string]any{"type": kind, "key": "C", "code": "KeyC", "windowsVirtualKeyCode": 67, "modifiers": 2 + 8}, nil); err != nil {
				t.Fatal(err)
			}
		}
		a.wait(t, "the copied line", "window.copied.trim() === 'http://127.0.0.1:9/606'")
	})
	t.Run("another tab", func(t *testing.T) {
		a.click(t, "New terminal", named(".tabs button", "New terminal"))
		a.wait(t, "an empty one", "document.querySelectorAll('.tab').length === 2 && "+rows+".includes('#') && !"+rows+".includes('606')")
		run("exit $((3 + 4))")
		a.wait(t, "how it ended", "document.querySelector('.terms').textContent.includes('exit code 7')")
		a.axe(t, "a session")
		a.click(t, "its cross", named(".tab button", "Close terminal 2"))
		a.wait(t, "the first one", "document.querySelectorAll('.tab').length === 1 && "+rows+".includes('606')")
		a.wait(t, "its process", "document.querySelector('.inside code').textContent.includes('terminal')")
	})
	t.Run("it dies", func(t *testing.T) {
		for _, p := range processesOf(t, a.home, "qemu-system-") {
			if err := syscall.Kill(p, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		a.wait(t, "what became of it", "(() => { const e = document.querySelector('.terms .wrong.box'); return !!e && document.querySelector('.bar .dot.bad') !== null })()")
		a.axe(t, "a session that crashed")
		a.click(t, "Remove", named(".bar button", "Remove"))
		a.wait(t, "the library", "location.hash === '#/library'")
	})
}

// processesOf lists the processes of a program that have files of a state directory
// open.
func processesOf(t *testing.T, home, name string) (pids []int) {
	t.Helper()
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range all {
		line, err := os.ReadFile(p + "/cmdline")
		if err != nil || !strings.Contains(string(line), name) {
			continue
		}
		files, _ := filepath.Glob(p + "/fd/*")
		for _, f := range files {
			if to, err := os.Readlink(f); err == nil && strings.HasPrefix(to, home+"/") {
				if pid, err := strconv.Atoi(filepath.Base(p)); err == nil {
					pids = append(pids, pid)
				}
				break
			}
		}
	}
	return pids
}
