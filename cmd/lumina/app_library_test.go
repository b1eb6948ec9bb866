package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// another is another page in the browser of one.
func (a *appPage) another(t *testing.T, url string) *appPage {
	t.Helper()
	b := *a.browser
	other := &appPage{browser: &b, url: url, home: a.home}
	other.open(t, url)
	return other
}

// key presses one with ctrl or without.
func (a *appPage) key(t *testing.T, key string, ctrl bool) {
	t.Helper()
	modifiers, text := 0, key
	switch {
	case ctrl:
		modifiers, text = 2, ""
	case key == "Enter":
		text = "\r"
	}
	for _, kind := range []string{"keyDown", "keyUp"} {
		p := map[string]any{"type": kind, "key": key, "modifiers": modifiers, "windowsVirtualKeyCode": map[string]int{"Enter": 13, "Escape": 27}[key]}
		if kind == "keyDown" && len(text) == 1 {
			p["text"] = text
		}
		if err := a.call(t, "Input.dispatchKeyEvent", p, nil); err != nil {
			t.Fatal(err)
		}
	}
}

const (
	cardNames = "[...document.querySelectorAll('.card .name')].map((e) => e.querySelector('.open, b').firstChild.textContent).join()"
	inDialog  = "document.querySelector('dialog[open] h2')?.textContent"
)

// Two apps and the command line have one state, and what a person does in the library by
// its keys.
func TestAppLibrary(t *testing.T) {
	needsProgram(t)
	text := filepath.Join(t.TempDir(), "text")
	writeFile(t, text, []byte(strings.Repeat("no ISO\n", 10000)))
	a := newAppPage(t, map[string]string{"starts.iso": startsISO(t), "text.iso": text})
	shifts(t, a)
	if err := a.call(t, "Page.reload", nil, nil); err != nil {
		t.Fatal(err)
	}
	a.wait(t, "the files at hand", "document.querySelectorAll('.empty .tile').length === 2")
	still(t, a)
	t.Run("two apps and a command line", func(t *testing.T) {
		second, cmd := startApp(t, a.home, nil)
		b := a.another(t, second.url)
		iso := startsISO(t)
		for _, name := range []string{"alpha", "beta"} {
			a.lumina(t, "desktop", "create", name, "--iso", iso, "--disk-size", "64MB").succeeded(t)
		}
		both := func(what, want string) {
			t.Helper()
			for _, p := range []*appPage{a, b} {
				p.wait(t, what, cardNames+".split(',').sort().join() === '"+want+"'")
			}
			if r := a.lumina(t, "desktop", "ls"); strings.Count(r.stdout, `"id"`) != len(strings.Split(want, ",")) {
				t.Errorf("%s: the command line has %s", what, r.stdout)
			}
		}
		both("what the command line made", "alpha,beta")
		a.lumina(t, "desktop", "rename", "beta", "gamma").succeeded(t)
		both("the new name", "alpha,gamma")
		b.click(t, "what else there is", named(".card .more", "More for alpha"))
		b.click(t, "Delete", named(".menu button", "Delete"))
		both("what the second app deleted", "gamma")
		b.click(t, "Undo", named(".toast button", "Undo"))
		both("what the second app restored", "alpha,gamma")
		// Nobody asked for it again and again.
		for _, p := range []*appPage{a, b} {
			asked := p.eval(t, "performance.getEntriesByType('resource').map((e) => e.name.split('/api/')[1]).filter((n) => n && !/^(events|media)$/.test(n) && !n.includes('alpha') && !n.startsWith('desktops/')).join()")
			if asked != "" {
				t.Errorf("a page has asked for %v", asked)
			}
		}
		t.Run("the end of one", func(t *testing.T) {
			b.key(t, "q", false)
			b.wait(t, "whether it shall end", inDialog+" === 'Leave the app?'")
			b.axe(t, "a question")
			b.eval(t, "window.close = () => {}") // the tab stays, as one that a user opened
			b.click(t, "Leave", named("dialog .primary", "Leave"))
			if code := waitCode(t, cmd); code != 0 {
				t.Errorf("it ended with %d", code)
			}
			b.wait(t, "that it has ended", "document.querySelector('h1').textContent === 'The app has ended'")
			b.axe(t, "the end")
			// Its address is of no use to another one on the same port.
			port := strings.Split(second.url, "/")[2]
			third, _ := startApp(t, a.home, nil)
			r, err := http.Get(strings.Replace(second.url, port, strings.Split(third.url, "/")[2], 1))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			if got, _ := io.ReadAll(r.Body); r.StatusCode != http.StatusNotFound {
				t.Errorf("its token, later: %d %s", r.StatusCode, got)
			}
			if _, err := http.Get(second.url); err == nil {
				t.Error("it still answers")
			}
			a.wait(t, "the first one, as before", cardNames+".split(',').sort().join() === 'alpha,gamma' && !document.querySelector('.lost')")
		})
	})
	if err := os.Mkdir(filepath.Join(a.home, "desktop-vms", "damaged"), 0o700); err != nil {
		t.Fatal(err)
	}
	a.wait(t, "a damaged one", "!!document.querySelector('.shot.damaged')")
	a.axe(t, "the library")
	t.Run("search, sort and filters", func(t *testing.T) {
		a.key(t, "/", false)
		a.wait(t, "the search", "document.activeElement.id === 'search'")
		a.typed(t, "gam")
		a.wait(t, "what it found", cardNames+" === 'gamma' && document.querySelectorAll('section').length === 1")
		a.typed(t, "zzz")
		a.wait(t, "that it found nothing", "document.querySelector('.empty').textContent.includes('gamzzz')")
		a.axe(t, "a search without result")
		a.click(t, "Show all", named(".empty button", "Show all"))
		a.wait(t, "all", "document.querySelectorAll('.card').length === 3")
		a.eval(t, "(() => { const s = document.querySelector('.sort select'); s.value = 'name'; s.dispatchEvent(new Event('change')) })()")
		a.wait(t, "by name", cardNames+" === 'alpha,damaged,gamma'")
		a.click(t, "a list", named("section button", "List"))
		a.wait(t, "the list", "[...document.querySelectorAll('.pictured')].map((e) => e.textContent.split(',')[0]).join().startsWith('alpha,damaged')")
		a.axe(t, "the library as a list")
		if err := a.call(t, "Page.reload", nil, nil); err != nil {
			t.Fatal(err)
		}
		a.wait(t, "a list by name, once it was loaded again", "document.querySelectorAll('.pictured').length === 3 && document.querySelector('.sort select').value === 'name'")
		still(t, a)
		a.click(t, "cards", named("section button", "Cards"))
		a.click(t, "images alone", named(".filters a", "Images"))
		a.wait(t, "images alone", "document.querySelectorAll('section').length === 1 && document.querySelector('section').textContent.includes('debian')")
		a.axe(t, "images")
		a.key(t, "Escape", false)
		a.wait(t, "all again", "document.querySelectorAll('.card').length === 3")
	})
	t.Run("keys", func(t *testing.T) {
		a.eval(t, "document.activeElement.blur()")
		a.key(t, "?", false)
		a.wait(t, "the keys", inDialog+" === 'Keys'")
		a.axe(t, "the keys")
		a.key(t, "Escape", false)
		a.wait(t, "the library", "!document.querySelector('dialog')")
		a.key(t, "j", false)
		a.wait(t, "the first", "document.activeElement.textContent.startsWith('alpha')")
		a.key(t, "j", false)
		a.wait(t, "the next", "document.activeElement.textContent.startsWith('gamma')")
		a.key(t, "k", false)
		a.key(t, "Enter", false)
		a.wait(t, "its page", "document.querySelector('h1').textContent === 'alpha'")
		a.axe(t, "a desktop that is off")
		a.key(t, "q", false)
		a.wait(t, "the library, where it was left", "location.hash === '#/library' && document.activeElement.textContent.startsWith('alpha')")
		a.key(t, "k", true)
		a.wait(t, "the palette", inDialog+" === 'Commands'")
		a.axe(t, "the palette")
		a.typed(t, "gamma change")
		a.wait(t, "what it found", "[...document.querySelectorAll('.option')].map((e) => e.firstChild.textContent).join() === 'gamma: Change'")
		a.click(t, "it", "document.querySelector('.option')")
		a.wait(t, "the dialog", inDialog+" === 'Change gamma'")
		a.axe(t, "a change")
		a.key(t, "Escape", false)
		a.wait(t, "the library", "!document.querySelector('dialog')")
		a.eval(t, "document.activeElement.blur()")
		a.key(t, "n", false)
		a.wait(t, "the wizard", "location.hash === '#/new' && document.querySelectorAll('.tile').length > 4")
		a.axe(t, "the wizard, at first")
		a.click(t, "a file that boots nothing", named(".tile", "text.iso"))
		a.wait(t, "why", "document.querySelector('.wrong.box')?.textContent.includes('not an ISO 9660 image')")
		a.axe(t, "a refusal")
		a.click(t, "another file", named(".wrong.box button", "Choose another"))
		a.wait(t, "files", inDialog+" === 'Choose a file' && !!document.querySelector('.browse input')")
		a.axe(t, "a choice of files")
		a.key(t, "Escape", false)
		a.wait(t, "the wizard again", "!document.querySelector('dialog')")
	})
	t.Run("an image", func(t *testing.T) {
		a.eval(t, "location.hash = '#/library/images'")
		a.click(t, "Pull", named("section button", "Pull an image"))
		a.wait(t, "the dialog", inDialog+" === 'Pull an image'")
		a.axe(t, "what to pull")
		a.click(t, "the reference", "document.querySelector('dialog input')")
		a.typed(t, "localhost:1/none:latest")
		a.click(t, "Pull", named("dialog .primary", "Pull"))
		a.wait(t, "why it cannot be had", "document.querySelector('.job .wrong')?.textContent.includes('localhost:1')")
		a.axe(t, "a job that failed")
		a.click(t, "its cross", named(".job button", "Dismiss"))
		a.wait(t, "that it has gone", "!document.querySelector('.job')")
		a.eval(t, "window.copied = '', navigator.clipboard.writeText = async (x) => { window.copied = x }")
		a.click(t, "what else there is", named(".more, button", "More for debian"))
		a.axe(t, "a menu")
		a.click(t, "its command", named(".menu button", "Copy lumina run"))
		a.wait(t, "the command", "window.copied === \"lumina run --image debian 'uname -a'\"")
	})
}

// still says what has moved since the page was loaded.
func still(t *testing.T, a *appPage) {
	t.Helper()
	if shifted := a.eval(t, "window.shifted"); shifted != 0.0 {
		t.Errorf("what was to be seen has moved: %v, %v", shifted, a.eval(t, "window.moved"))
	}
}

// shifts has pages count what moves while nobody does anything.
func shifts(t *testing.T, a *appPage) {
	t.Helper()
	const script = `window.shifted = 0; window.moved = []; new PerformanceObserver((l) => { for (const e of l.getEntries()) if (!e.hadRecentInput) { window.shifted += e.value; window.moved.push(...e.sources.map((s) => s.node?.outerHTML?.slice(0, 100))) } }).observe({type: 'layout-shift', buffered: true})`
	if err := a.call(t, "Page.enable", nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := a.call(t, "Page.addScriptToEvaluateOnNewDocument", map[string]any{"source": script}, nil); err != nil {
		t.Fatal(err)
	}
}
