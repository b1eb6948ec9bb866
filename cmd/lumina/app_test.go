package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/abdul-abdi/lumina/runtime/desktop"
)

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
		a.click(t, "Try again", named("#start", "Try again"))
		a.wait(t, "its screen, again", "!!document.querySelector('#screen canvas') && !document.querySelector('.off')")
		a.click(t, "its power button", named(".bar button", "Power"))
		a.click(t, "Force off", named(".menu button", "Force off"))
		a.click(t, "that it is meant", named("dialog .primary", "Force off"))
		a.wait(t, "that it is off, and did not crash", "document.querySelector('.state').textContent === 'off' && document.querySelector('#start').textContent === 'Start'")
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
