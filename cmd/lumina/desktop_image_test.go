package main

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/runtime/desktop"
)

// execReady runs a command in a desktop as soon as its agent answers.
func execReady(t testing.TB, name, script string) result {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); ; {
		r := lumina(t, "desktop", "exec", name, script)
		if !strings.Contains(r.stdout, "connection_failed") {
			return r
		}
		if time.Now().After(deadline) {
			t.Fatalf("its agent does not answer: %s", r.stdout)
		}
	}
}

// An exported image that is booted as a desktop has a shell on the screen and one on the
// serial port, both of which are seen and take keys, and its agent behind exec, which
// answers again after a reset; the clipboard goes both ways.
func TestDesktopOfImage(t *testing.T) {
	const name = "image"
	disk := filepath.Join(t.TempDir(), "disk.qcow2")
	lumina(t, "images", "export", "debian", "--disk-size", "64MB", "-o", disk).succeeded(t)
	// With two CPUs 2 of 9 resets took longer than the test waits: QEMU went through the
	// translations that each process of the guest had left, which are bounded since.
	createDesktop(t, name, "--disk", disk, "--memory", "512MB", "--cpus", "1", "--network", "none")
	serial := filepath.Join(t.TempDir(), "serial")
	lumina(t, "desktop", "boot", name, "--headless", "--detach", "--serial", serial).succeeded(t)
	if r := execReady(t, name, "id -u; exit 7"); r.code != 7 || !strings.Contains(r.stdout, `"stdout":"0\n"`) {
		t.Errorf("exec: %d %s", r.code, r.stdout)
	}
	lumina(t, "desktop", "type", name, "tty >/root/typed; sync\n").succeeded(t)
	typed := lumina(t, "desktop", "exec", name, "until [ -s /root/typed ]; do sleep 0.1; done; cat /root/typed").succeeded(t)
	if !strings.Contains(typed.stdout, `"stdout":"/dev/tty1\n"`) {
		t.Errorf("what is typed reaches %s", typed.stdout)
	}
	t.Run("the screen and the serial port", func(t *testing.T) {
		// What a shell prints of it is not what was typed.
		const typed, printed = `printf 'seen-%s\n' $((6 * 7))`, "seen-42"
		lumina(t, "desktop", "type", name, typed+"\n").succeeded(t)
		r := lumina(t, "desktop", "exec", name, "until grep -q "+printed+" /dev/vcs1; do sleep 0.1; done").succeeded(t)
		if said := string(readFile(t, serial)); strings.Contains(said, printed) {
			t.Errorf("the serial port's shell has got the screen's keys: %q, %q", said, r.stdout)
		}
		lumina(t, "desktop", "type", name, "clear; for i in 1 2 3 4 5 6 7 8; do echo 0123456789abcdefghijklmnopqrstuvwxyz; done\n").succeeded(t)
		waitScreen(t, name, "the shell's own text", 3*time.Minute, func(s *screen) bool {
			_, ok := s.learn("0123456789abcdefghijklmnopqrstuvwxyz")
			return ok
		})
		lumina(t, "desktop", "type", "--serial", name, typed+"; tty\n").succeeded(t)
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			said := string(readFile(t, serial))
			if strings.Contains(said, "# "+typed) && strings.Contains(said, printed+"\r\n/dev/ttyS0\r\n") {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the serial port's shell says %q", said)
			}
		}
	})
	t.Run("the clipboard", func(t *testing.T) { testClipboard(t, name) })

	a, _ := startApp(t, home, nil)
	a.browser = newBrowser(t, a.url+"#/desktop/"+name)
	testAppScreen(t, a, name)
	// What is not on the disk yet is lost with a reset.
	lumina(t, "desktop", "exec", name, "sync; touch /run/before").succeeded(t)
	a.click(t, "its power button", named(".bar button", "Power"))
	a.click(t, "Reset", named(".menu button", "Reset"))
	// The agent of before may answer once more.
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		r := execReady(t, name, "test ! -e /run/before && cat /root/typed")
		if r.code == 0 && strings.Contains(r.stdout, "/dev/tty1") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a reset: %d %s", r.code, r.stdout)
		}
	}
	a.click(t, "its power button", named(".bar button", "Power"))
	a.click(t, "Shut down", named(".menu button", "Shut down"))
	a.wait(t, "that it is off", "document.querySelector('.state').textContent === 'off' && !!document.querySelector('#start') && !!document.querySelector('.still img')")
	if row := desktopRowOf(t, name); row.Running {
		t.Error("the command line has it running")
	}
}

// testClipboard pastes a text into a desktop as a viewer does, and gets one of the guest's.
func testClipboard(t *testing.T, name string) {
	script := string(readFile(t, "testdata/clipboard.pl"))
	cmd := command("desktop", "exec", name, "--", "perl", "-e", script)
	cmd.Env = append(cmd.Env, "LUMINA_FORMAT=text")
	started(t, "ready", cmd)
	d, err := desktop.Open(home, name)
	if err != nil {
		t.Fatal(err)
	}
	screen, err := d.Viewer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	if err := screen.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	got, err := clipboard(screen, "from the viewer")
	if err != nil || got != "the guest got from the viewer" {
		t.Errorf("the guest's clipboard: %q, %v", got, err)
	}
	if code := waitCode(t, cmd); code != 0 {
		t.Errorf("the guest's agent ended with %d", code)
	}
}

// Of VNC's extended clipboard (the community's description of RFB, "Extended Clipboard
// Pseudo-Encoding"), as noVNC speaks it.
const (
	extendedClipboard = 0xC0A1E5CE
	clipboardText     = 1 << 0
	clipboardCaps     = 1 << 24
	clipboardRequest  = 1 << 25
	clipboardNotify   = 1 << 27
	clipboardProvide  = 1 << 28
)

// clipboard is a VNC client that has a text in its clipboard, and returns the one that
// the server's guest has then.
func clipboard(conn net.Conn, text string) (got string, err error) {
	defer func() {
		if failed, ok := recover().(error); ok {
			err = failed
		}
	}()
	read := func(n int) []byte {
		b := make([]byte, n)
		if _, err := io.ReadFull(conn, b); err != nil {
			panic(err)
		}
		return b
	}
	number := func() uint32 { return binary.BigEndian.Uint32(read(4)) }
	write := func(parts ...any) {
		var b bytes.Buffer
		for _, p := range parts {
			_ = binary.Write(&b, binary.BigEndian, p)
		}
		if _, err := conn.Write(b.Bytes()); err != nil {
			panic(err)
		}
	}
	say := func(flags uint32, data []byte) {
		write([]byte{6, 0, 0, 0}, int32(-4-len(data)), flags, data)
	}
	read(12)
	write([]byte("RFB 003.008\n"))
	read(int(read(1)[0]))
	write([]byte{1}) // no authentication
	number()
	write([]byte{1})
	read(4 + 16)
	read(int(number()))
	write([]byte{2, 0, 0, 1}, uint32(extendedClipboard))
	for {
		kind := read(4)[0]
		if kind != 3 { // ServerCutText; pictures were not asked for
			return "", fmt.Errorf("the server sends message %d", kind)
		}
		length := -int32(number())
		flags := number()
		data := read(int(length) - 4)
		switch {
		case flags&clipboardCaps != 0: // what it can: now it is told of the text
			say(clipboardNotify|clipboardText, nil)
		case flags&clipboardRequest != 0:
			var b bytes.Buffer
			z := zlib.NewWriter(&b)
			_ = binary.Write(z, binary.BigEndian, uint32(len(text)))
			_, _ = io.WriteString(z, text)
			z.Close()
			say(clipboardProvide|clipboardText, b.Bytes())
		case flags&clipboardNotify != 0:
			say(clipboardRequest|clipboardText, nil)
		case flags&clipboardProvide != 0:
			z, err := zlib.NewReader(bytes.NewReader(data))
			if err != nil {
				return "", err
			}
			all, err := io.ReadAll(z)
			if len(all) < 4 {
				return "", err
			}
			return strings.TrimRight(string(all[4:]), "\x00"), nil
		}
	}
}
