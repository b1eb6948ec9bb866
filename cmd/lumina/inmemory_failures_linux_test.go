package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime/vm/vmtest"
)

// Who gets JSON when a command succeeds gets it when the command fails, whichever command
// that is; who asks for text gets text.
func TestInMemoryFailuresAreJSON(t *testing.T) {
	m := newInMemory(t, &vmtest.Fake{})
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "text")
	network := filepath.Join(t.TempDir(), "net.yaml")
	write(t, network, "sessions: [{name: a, image: other, pull: never}]")
	recipe := filepath.Join(t.TempDir(), "recipe.yaml")
	write(t, recipe, "base: debian:12")
	const nobody = "127.0.0.1:1/a:1" // no registry listens there
	failures := []struct {
		args string
		home bool // the state directory is not a directory
	}{
		{"run --image other --pull never true", false},
		{"exec none true", false}, {"logs none id", false}, {"kill none id", false}, {"cp none:/x " + t.TempDir(), false}, {"ps none", false},
		{"ps", true}, {"clean", true}, {"app --no-browser", true}, {"pull", false},
		{"pool run --image other --pull never true", false},
		{"session start --image other --pull never", false}, {"session stop none", false}, {"session forward none 80", false}, {"session list", true},
		{"network run " + network, false},
		{"recipe check " + recipe, true},
		{"images list", true}, {"images df", true}, {"images prune --all", true}, {"images catalog", false},
		{"images create x --from " + nobody, false}, {"images pull " + nobody + " x", false}, {"images push img " + nobody, false},
		{"images copy " + nobody + " " + nobody, false}, {"images inspect other", false}, {"images remove other", false},
		{"images export other --output " + t.TempDir() + "/x.raw", false}, {"images save other oci:" + t.TempDir() + "/x", false}, {"images load x oci:" + t.TempDir(), false},
		{"volume list", true}, {"volume create x", true}, {"volume inspect x", false}, {"volume remove x", false},
		{"desktop list", true}, {"desktop boot x", false}, {"desktop clone x y", false}, {"desktop exec x true", false}, {"desktop key x a", false},
		{"desktop remove x", false}, {"desktop rename x y", false}, {"desktop reset x", false}, {"desktop restart x", false}, {"desktop restore x", false},
		{"desktop screenshot x " + t.TempDir() + "/x.png", false}, {"desktop set x --cpus 2", false}, {"desktop stop x", false}, {"desktop type x y", false},
		{"desktop click x 1 1", false}, {"desktop open x", false}, {"desktop app --no-browser", true},
	}
	// The commands that are in no row.
	left := []string{
		"version",                          // cannot fail
		"doctor",                           // what fails is in its result
		"desktop catalog",                  // is built in
		"desktop create", "release keygen", // whose faults are bad usage, mostly
		"desktop install-macos",                                                                    // needs a Mac
		"release publish",                                                                          // needs a service
		"bench boot", "bench create", "bench exits", "bench history", "bench run", "bench session", // developers' own
		"completion", "help", "man", superviseCommand, superviseDesktopCommand, templateCommand, // print what is no result
	}
	var walk func(c *cobra.Command, path string)
	walk = func(c *cobra.Command, path string) {
		for _, sub := range c.Commands() {
			walk(sub, strings.TrimSpace(path+" "+sub.Name()))
		}
		if c.HasSubCommands() || slices.ContainsFunc(left, func(l string) bool { return path == l || strings.HasPrefix(path, l+" ") }) {
			return
		}
		for _, tt := range failures {
			if tt.args == path || strings.HasPrefix(tt.args, path+" ") {
				return
			}
		}
		t.Errorf("lumina %s is in no row", path)
	}
	walk(newRootCommand(m.environment(nil, nil, nil)), "")

	home := m.env["LUMINA_HOME"]
	for _, tt := range failures {
		m.env["LUMINA_HOME"] = home
		if tt.home {
			m.env["LUMINA_HOME"] = file
		}
		for _, format := range []string{"LUMINA_FORMAT=json", "LUMINA_OUTPUT=ndjson", "LUMINA_FORMAT=text"} {
			name, value, _ := strings.Cut(format, "=")
			m.env[name] = value
			r := m.lumina(strings.Fields(tt.args)...)
			delete(m.env, name)
			if value == "text" {
				if r.code != exitFailure || r.stdout != "" || !strings.HasPrefix(r.stderr, "lumina: ") {
					t.Errorf("%s lumina %s: exit code %d, %q, %q", format, tt.args, r.code, r.stdout, r.stderr)
				}
				continue
			}
			var e map[string]any
			if err := json.Unmarshal([]byte(r.stdout), &e); err != nil || r.code != exitFailure {
				t.Errorf("%s lumina %s: exit code %d, %v: %q, %q", format, tt.args, r.code, err, r.stdout, r.stderr)
				continue
			}
			_, hasTime := e["duration_ms"].(float64)
			if message, _ := e["message"].(string); e["error"] != "connection_failed" || message == "" || !hasTime || e["exit_code"] != nil {
				t.Errorf("%s lumina %s: %s", format, tt.args, r.stdout)
			}
			if r.stderr != "" && !strings.Contains(r.stderr, e["message"].(string)) {
				t.Errorf("%s lumina %s: %s, but %s", format, tt.args, r.stdout, r.stderr)
			}
		}
	}
	m.env["LUMINA_HOME"] = home

	// What is not JSON when all is well is none when it fails, and --json is LUMINA_FORMAT.
	if r := m.lumina("desktop", "screenshot", "x", "-"); r.code != exitFailure || r.stdout != "" {
		t.Errorf("a picture on the standard output: exit code %d, %q", r.code, r.stdout)
	}
	m.env["LUMINA_FORMAT"] = "text"
	for _, args := range []string{"ps --json none", "exec --json none true", "images inspect --json none", "--json volume rm none", "run --json --image other --pull never true"} {
		if r := m.lumina(strings.Fields(args)...); r.code != exitFailure || r.Error != "connection_failed" {
			t.Errorf("lumina %s: exit code %d, %q", args, r.code, r.stdout)
		}
	}
	for args, want := range map[string]string{"images ls --json": `[{"name":"img"`, "images -q": "img\n", "images -aq": "img\n", "images ls -aq": "img\n", "volume rm -f none": "", "images rm -f none other": "", "volume ls -q": "", "version --json": `{"arch"`} {
		if r := m.lumina(strings.Fields(args)...).succeeded(t); !strings.HasPrefix(r.stdout, want) || want == "" && r.stdout != "" {
			t.Errorf("lumina %s: %s", args, r.stdout)
		}
	}
	// A faulty file that the user wrote is bad usage, whichever command reads it.
	for _, args := range []string{"network run", "recipe check", "images create x --recipe", "images create x --file", "run --image img true --env-file"} {
		write(t, file, "te=xt\x00")
		if r := m.lumina(append(strings.Fields(args), file)...); r.code != exitUsage || r.stdout != "" || !strings.Contains(r.stderr, "file:1: ") && !strings.Contains(r.stderr, file) {
			t.Errorf("lumina %s FILE: exit code %d, %q, %q", args, r.code, r.stdout, r.stderr)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Error(err)
	}
}

// Several arguments that fail are several lines, one message; a wrong number of them says
// what to write.
func TestInMemoryArguments(t *testing.T) {
	m := newInMemory(t, &vmtest.Fake{})
	r := m.lumina("session", "stop", "none", "other")
	if want := `"message":"session \"none\": no such session; see lumina session list; session \"other\": no such session;`; r.code != exitFailure || !strings.Contains(r.stdout, want) {
		t.Errorf("exit code %d, %s, want %s", r.code, r.stdout, want)
	}
	if lines := strings.Split(strings.TrimSpace(r.stderr), "\n"); len(lines) != 2 || !strings.HasPrefix(lines[0], `lumina: session "none"`) || !strings.HasPrefix(lines[1], `lumina: session "other"`) {
		t.Errorf("stderr: %q", r.stderr)
	}
	for args, want := range map[string]string{
		"images rm":                           "lumina: no argument is given; write lumina images remove NAME",
		"logs only":                           "lumina: one argument is given; write lumina logs SID ID",
		"kill -9 web 2":                       "lumina: unknown shorthand flag: '9' in -9 (write lumina kill --signal SIGNAL SID ID)",
		"images save -o t x":                  "lumina: unknown shorthand flag: 'o' in -o (write lumina images save NAME docker-archive:FILE)",
		"images load -i t":                    "lumina: unknown shorthand flag: 'i' in -i (write lumina images load NAME docker-archive:FILE)",
		"app --port 99999":                    `lumina: invalid argument "99999" for "--port" flag: the number is too large or too small; see`,
		"app --port x":                        `lumina: invalid argument "x" for "--port" flag: want a whole number; see`,
		"cp -v a b:c":                         "lumina: unknown shorthand flag: 'v' in -v (a terminal sees the progress;",
		"cp --exclude x a b":                  "lumina: unknown flag: --exclude (everything is copied; to leave something out: tar -c --exclude=NAME . | lumina exec SID",
		"logs --tail 9 a 1":                   "lumina: unknown flag: --tail (LUMINA_FORMAT=text lumina logs SID ID | tail -n LINES)",
		"session stop --all":                  "lumina: unknown flag: --all (write lumina session stop $(lumina ps -q))",
		"rsync -av a b:c":                     `lumina: unknown command "rsync" for "lumina" (it is lumina cp SRC… DST, where one side is SID:PATH)`,
		"get pods":                            `lumina: unknown command "get" for "lumina" (it is lumina session list, and lumina images list)`,
		"session restart a":                   `lumina: unknown command "restart" for "lumina session" (it is lumina session stop SID and lumina session start`,
		"ssh web":                             `lumina: unknown command "ssh" for "lumina" (it is lumina exec -it SID CMD)`,
		"ls":                                  `lumina: unknown command "ls" for "lumina" (it is lumina session list, and lumina images list)`,
		"images tag a b":                      `lumina: unknown command "tag" for "lumina images" (it is lumina images create NEW --from NAME)`,
		"cp a b":                              `lumina: "a" and "b" are both paths of this host: one side is SID:PATH`,
		"cp a:b web:/tmp/":                    `lumina: "a:b" and "web:/tmp/" are both in sessions: DST is a path of this host then; a file of this host with a colon in its name is ./a:b`,
		"cp":                                  "lumina: no argument is given; write lumina cp SRC… DST",
		"desktop clone a":                     "lumina: one argument is given; write lumina desktop clone ",
		"exec web -":                          `lumina: "-" is no command: a shell reads a script from standard input, lumina exec web sh < SCRIPT`,
		"images load x oci-archive:/none.tar": "lumina: SOURCE: stat /none.tar: no such file or directory",
		"images create x --from oci-archive:/none.tar":   "lumina: --from: stat /none.tar: no such file or directory",
		"run --image img --network allow=http://x/ true": `lumina: allowing "http://x/": it is a URL, where HOST or HOST:PORT is wanted; write "x"`,
		"volume inspect a b":                             "lumina: 2 arguments are given; write lumina volume inspect NAME",
	} {
		r := m.lumina(strings.Fields(args)...)
		if r.code != exitUsage || !strings.HasPrefix(r.stderr, want) || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("lumina %s: exit code %d, %q, want %q", args, r.code, r.stderr, want)
		}
	}
}

// --json=false is text for every command, whatever its output is, failures included; so it
// is when the environment asks for JSON.
func TestInMemoryNoJSON(t *testing.T) {
	m := newInMemory(t, &vmtest.Fake{})
	for _, of := range []string{"", "json"} {
		m.env["LUMINA_FORMAT"] = of
		for args, want := range map[string]string{
			"ps --json=false":                         "SID ",
			"images ls --json=false":                  "NAME ",
			"desktop ls --json=false":                 "NAME ",
			"--json=false volume ls":                  "NAME ",
			"run --json=false --image img -- echo hi": "hi\n",
			"exec --json=false none true":             "",
			"ps --json=false none":                    "",
			"images inspect --json=false none":        "",
		} {
			r := m.lumina(strings.Fields(args)...)
			if !strings.HasPrefix(r.stdout, want) || want == "" && r.stdout != "" || (want == "") != (r.code != 0) {
				t.Errorf("LUMINA_FORMAT=%s lumina %s: exit code %d, %q, want %q", of, args, r.code, r.stdout, want)
			}
		}
		if r := m.lumina("ps", "--json=true"); r.stdout != "[]\n" {
			t.Errorf("--json=true: %q", r.stdout)
		}
	}
}

// A state directory whose disk is full: one line says so, says what to do about it, and
// nothing is left behind.
func TestInMemoryFullStateDirectory(t *testing.T) {
	m := newInMemory(t, &vmtest.Fake{})
	home := t.TempDir()
	if err := syscall.Mount("none", home, "tmpfs", 0, "size=128k,mode=0700"); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(home, syscall.MNT_DETACH) })
	m.env["LUMINA_HOME"] = home
	write(t, filepath.Join(home, "filler"), strings.Repeat("x", 100<<10))
	m.env["LUMINA_FORMAT"] = "text"
	r := m.lumina("volume", "create", "data", "--size", "1GB")
	if r.code != exitFailure || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, "no space left on device; the disk with "+home+" is full: lumina images df shows") {
		t.Errorf("exit code %d, %q", r.code, r.stderr)
	}
	if left, err := filepath.Glob(home + "/volumes/*"); err != nil || len(left) != 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}
