package main

import (
	"bytes"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// lines is a buffer that is written and read at once.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// printed runs a Perl script of testdata in a desktop, until the test's end, and returns
// what it prints after "ready".
func printed(t *testing.T, name, script string) *lines {
	t.Helper()
	cmd := command("desktop", "exec", name, "--", "perl", "-e", string(readFile(t, "testdata/"+script)))
	out := &lines{}
	cmd.Env, cmd.Stdout, cmd.Stderr = append(cmd.Env, "LUMINA_FORMAT=text"), out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	until(t, "it is ready", func() bool { return strings.Contains(out.String(), "ready\n") })
	return out
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within two minutes", what)
		}
	}
}

// testAppScreen does on the page of a desktop, whose screen has a shell, what a person does
// with a screen.
func testAppScreen(t *testing.T, a *appPage, name string) {
	ok := true
	run := func(what string, f func(t *testing.T)) { ok = ok && t.Run(what, f) }
	a.wait(t, "its screen", "document.querySelector('.state')?.textContent === 'running' && !!document.querySelector('#screen canvas')")
	run("a text is typed in", func(t *testing.T) {
		a.click(t, "Paste", named(".bar button", "Paste"))
		a.wait(t, "the dialog", inDialog+" === 'Paste or type a text'")
		a.axe(t, "a text to paste")
		a.click(t, "the text", "document.querySelector('dialog textarea')")
		a.eval(t, "document.querySelector('dialog textarea').select()")
		a.typed(t, "echo 'Typed: ~|{}\"<>' >/root/pasted; sync")
		a.eval(t, "(() => { const e = document.querySelector('dialog textarea'); e.value = e.value.trimEnd() + '\\n'; e.dispatchEvent(new Event('input')) })()")
		a.click(t, "Type it", named("dialog .primary", "Type it"))
		got := lumina(t, "desktop", "exec", name, "until [ -s /root/pasted ]; do sleep 0.1; done; cat /root/pasted").succeeded(t)
		if got.Stdout != "Typed: ~|{}\"<>\n" {
			t.Errorf("it got %q", got.Stdout)
		}
	})
	run("chords", func(t *testing.T) {
		keys := printed(t, name, "keys.pl")
		press := func(what, want string) {
			t.Helper()
			before := len(keys.String())
			a.click(t, "the keys", named(".bar button", "Press keys"))
			a.click(t, what, "[...document.querySelectorAll('.menu button')].find((e) => e.textContent === '"+what+"')")
			until(t, what+", which has "+want, func() bool { return strings.ReplaceAll(keys.String()[before:], "\n", " ") == want })
		}
		for _, c := range [][2]string{
			{"Ctrl+Alt+Del", "29 56 111 "}, {"Ctrl+Alt+F1", "29 56 59 "}, {"Ctrl+Alt+F2", "29 56 60 "}, {"Ctrl+Alt+F3", "29 56 61 "}, {"Alt+Tab", "56 15 "},
			{"Alt+F4", "56 62 "}, {"Super", "125 "}, {"Super+R", "125 19 "}, {"Ctrl+Esc", "29 1 "}, {"Print", "99 "},
		} {
			press(c[0], c[1])
		}
		if n := a.eval(t, "document.querySelectorAll('.menu button').length"); n != 0.0 {
			t.Errorf("the menu is still open: %v", n)
		}
		before := len(keys.String())
		a.click(t, "Ctrl+Alt+Del", named(".bar button", "Ctrl+Alt+Del"))
		until(t, "Ctrl+Alt+Del of the bar", func() bool { return strings.ReplaceAll(keys.String()[before:], "\n", " ") == "29 56 111 " })
		// The page's own keys go to the guest while its screen has them, and to the page again
		// once they are freed.
		a.wait(t, "how to free them", "document.querySelector('.pill')?.textContent.includes('Ctrl+Alt')")
		a.axe(t, "a screen that has the keyboard")
		before = len(keys.String())
		a.press(t, "F1", 112)
		until(t, "a key", func() bool { return keys.String()[before:] == "59\n" })
		for _, k := range []struct {
			kind, key string
			code      int
			modifiers int
		}{{"rawKeyDown", "Control", 17, 2}, {"rawKeyDown", "Alt", 18, 3}, {"keyUp", "Alt", 18, 2}, {"keyUp", "Control", 17, 0}} {
			if err := a.call(t, "Input.dispatchKeyEvent", map[string]any{"type": k.kind, "key": k.key, "code": k.key + "Left", "windowsVirtualKeyCode": k.code, "modifiers": k.modifiers}, nil); err != nil {
				t.Fatal(err)
			}
		}
		a.wait(t, "that they are free", "!document.querySelector('.pill') && !document.activeElement.closest('#screen')")
		a.key(t, "?", false)
		a.wait(t, "the page's own key", inDialog+" === 'Keys'")
		a.key(t, "Escape", false)
		a.wait(t, "the screen", "!document.querySelector('dialog')")
	})
	run("the clipboard, both ways", func(t *testing.T) {
		printed(t, name, "clipboard.pl")
		a.eval(t, "window.copied = '', navigator.clipboard.writeText = async (x) => { window.copied = x }")
		a.click(t, "Paste", named(".bar button", "Paste"))
		a.click(t, "the text", "document.querySelector('dialog textarea')")
		a.typed(t, "grüße")
		a.click(t, "its clipboard", named("dialog button", "Put on its clipboard"))
		a.click(t, "what the guest offers", named(".toast button", "Copy it here"))
		a.wait(t, "the guest's text", "window.copied === 'the guest got grüße'")
	})
	run("its size, and the full screen", func(t *testing.T) {
		wide := "(() => { const c = document.querySelector('#screen canvas'); return Math.round(c.getBoundingClientRect().width) })()"
		a.width(t, 700)
		a.wait(t, "that it fits", wide+" <= 700")
		a.click(t, "1:1", named(".bar button", "1:1"))
		a.wait(t, "each of its pixels", "document.querySelector('#screen').classList.contains('exact') && document.querySelector('#screen canvas').style.width !== '' && (() => { const c = document.querySelector('#screen canvas'); return Math.round(c.getBoundingClientRect().width) === c.width })()")
		a.click(t, "Fit", named(".bar button", "Fit into"))
		a.wait(t, "that it fits again", wide+" <= 700")
		a.width(t, 0)
		a.click(t, "the full screen", named(".bar button", "Full screen"))
		a.wait(t, "the full screen", "document.fullscreenElement === document.documentElement && !!document.fullscreenElement.querySelector('#screen canvas')")
		a.click(t, "the keys, there", named(".bar button", "Press keys"))
		// The page is drawn anew meanwhile, with the machine's use.
		a.wait(t, "their menu, above the screen", "!!document.fullscreenElement && (() => { const m = document.querySelector('.menu'), r = m.getBoundingClientRect(); return m.contains(document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2)) })()")
		a.eval(t, "dispatchEvent(new Event('resize'))")
		a.wait(t, "that it stays", "!!document.querySelector('.menu')")
		a.key(t, "Escape", false)
		a.click(t, "Paste, there", named(".bar button", "Paste"))
		a.wait(t, "its dialog, above the screen", "!!document.fullscreenElement && (() => { const m = document.querySelector('dialog[open]'), r = m.getBoundingClientRect(); return m.contains(document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2)) })()")
		a.click(t, "Close", named("dialog button", "Close"))
		a.click(t, "the window", named(".bar button", "Full screen"))
		a.wait(t, "the window", "!document.fullscreenElement")
	})
	run("a screenshot", func(t *testing.T) {
		dir := t.TempDir()
		if err := a.call(t, "Browser.setDownloadBehavior", map[string]any{"behavior": "allow", "downloadPath": dir}, nil); err != nil {
			t.Fatal(err)
		}
		a.click(t, "Screenshot", named(".bar button", "screenshot"))
		until(t, "the file", func() bool {
			files, _ := filepath.Glob(filepath.Join(dir, name+"-*.png"))
			if len(files) != 1 {
				return false
			}
			img, err := png.Decode(bytes.NewReader(readFile(t, files[0])))
			return err == nil && img.Bounds().Dx() >= 640
		})
	})
}
