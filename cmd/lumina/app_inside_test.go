package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// testAppInside looks at a session from the panel beside its terminals: forwards,
// processes, files up and down, what was denied. run types a line into the terminal, whose
// rows are the expression shown.
func testAppInside(t *testing.T, a *appPage, run func(string), shown string) {
	const panel = "document.querySelector('.inside')"
	focus := func() {
		t.Helper()
		a.click(t, "the terminal", "document.querySelector('.term')")
	}
	t.Run("files", func(t *testing.T) {
		// A file that is dropped lands in the directory; the page cannot know its path here.
		a.eval(t, `(() => { const files = new DataTransfer(); files.items.add(new File(['dropped here\n'], 'günther & co.txt'));
			for (const kind of ['dragover', 'drop']) document.querySelector('.term').dispatchEvent(new DragEvent(kind, {dataTransfer: files, bubbles: true, cancelable: true})) })()`)
		a.wait(t, "that it has arrived", "[...document.querySelectorAll('.toast')].some((e) => e.textContent.includes('günther & co.txt is in /root/'))")
		focus()
		run("clear; cat /root/g*.txt; mkdir -p /srv/tree/sub; echo deep-$((40 + 2)) >/srv/tree/sub/leaf")
		a.wait(t, "what is in it", shown+".includes('dropped here')")
		path := func(to string) {
			t.Helper()
			a.eval(t, panel+".querySelector('[spellcheck]').focus(), document.activeElement.select()")
			a.typed(t, to)
			a.wait(t, "the path", panel+".querySelector('[draggable]').href.endsWith(encodeURIComponent('"+to+"'))")
		}
		// Dragged out of the browser, a file is what the browser downloads from there.
		path("/root/günther & co.txt")
		dragged, _ := a.eval(t, "(() => { const files = new DataTransfer(); "+panel+".querySelector('[draggable]').dispatchEvent(new DragEvent('dragstart', {dataTransfer: files, bubbles: true})); return files.getData('DownloadURL') })()").(string)
		at, ok := strings.CutPrefix(dragged, "application/octet-stream:günther & co.txt:")
		if !ok {
			t.Fatalf("what is dragged is %q", dragged)
		}
		r, err := http.Get(at)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if got, err := io.ReadAll(r.Body); err != nil || string(got) != "dropped here\n" {
			t.Errorf("what is dragged out is %q, %v", got, err)
		}
		// A directory is downloaded as an archive.
		dir := t.TempDir()
		if err := a.call(t, "Browser.setDownloadBehavior", map[string]any{"behavior": "allow", "downloadPath": dir}, nil); err != nil {
			t.Fatal(err)
		}
		path("/srv/tree/")
		a.click(t, "Download", panel+".querySelector('[draggable]')")
		until(t, "the archive", func() bool {
			b, err := os.ReadFile(filepath.Join(dir, "tree.zip"))
			return err == nil && strings.HasPrefix(string(b), "PK") && strings.Contains(string(b), "sub/leaf")
		})
		path("/none")
		a.click(t, "Download", panel+".querySelector('[draggable]')")
		a.wait(t, "why it cannot be had", "[...document.querySelectorAll('.toast')].some((e) => e.textContent.includes('/none'))")
	})
	t.Run("a forward", func(t *testing.T) {
		focus()
		run(`clear; perl -MIO::Socket::INET -e '$l = IO::Socket::INET->new(LocalPort => 8123, Listen => 5); while ($c = $l->accept) { while (<$c>) { last if /^\r/ } print $c "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nserved-" . 6 * 7; close $c }' &`)
		a.click(t, "the port", panel+".querySelector('[aria-label=\"Port to forward\"]')")
		a.typed(t, "8123")
		a.click(t, "Forward", named(".inside button", "Forward"))
		a.wait(t, "the forward", panel+".textContent.includes('→ 8123')")
		// As somebody does who clicks it: another page.
		to, _ := a.eval(t, "(() => { const l = [..."+panel+".querySelectorAll('a')].find((e) => e.textContent.includes('127.0.0.1:')); return l.target === '_blank' ? l.href : '' })()").(string)
		until(t, "its port answers", func() bool {
			r, err := http.Get(to)
			return err == nil && r.Body.Close() == nil && r.StatusCode == http.StatusOK
		})
		page := a.another(t, to)
		page.wait(t, "the guest's page", "document.body.innerText.trim() === 'served-42'")
		page.ask(t, "GET", "close/"+page.tab)
		if r := a.lumina(t, "ps"); !strings.Contains(r.stdout, `"guest":8123`) && !strings.Contains(a.lumina(t, "session", "list").stdout, `"guest":8123`) {
			t.Errorf("the command line has %s", r.stdout)
		}
		a.click(t, "its cross", named(".inside button", "Close the forward"))
		a.wait(t, "that it has gone", "!"+panel+".textContent.includes('→ 8123')")
		if _, err := http.Get(to); err == nil {
			t.Error("its port still answers")
		}
	})
	t.Run("processes, and what was denied", func(t *testing.T) {
		sid, _ := a.eval(t, "location.hash.split('/')[2]").(string)
		a.lumina(t, "exec", sid, "--detach", "sleep 7777").succeeded(t)
		a.wait(t, "the process", panel+".textContent.includes('sleep 7777')")
		a.click(t, "its end", "[..."+panel+".querySelectorAll('li')].find((e) => e.textContent.includes('sleep 7777')).querySelector('button')")
		a.wait(t, "how it ended", "[..."+panel+".querySelectorAll('li')].find((e) => e.textContent.includes('sleep 7777'))?.textContent.includes('exit 143') ?? true")
		a.lumina(t, "exec", sid, `perl -MIO::Socket::INET -e 'IO::Socket::INET->new(PeerAddr => "169.254.169.254:80", Timeout => 5)'`)
		a.wait(t, "the denied connection", panel+".textContent.includes('169.254.169.254')")
		a.axe(t, "what is inside")
	})
}
