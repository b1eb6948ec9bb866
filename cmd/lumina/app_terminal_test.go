package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

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
	t.Run("what is inside", func(t *testing.T) { testAppInside(t, a, run, rows) })
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
func processesOf(t testing.TB, home, name string) (pids []int) {
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
