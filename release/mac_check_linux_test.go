package release

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What mac-check.sh calls on a Mac, as far as its own lines go: the guest's commands run
// on this host.
var macTools = map[string]string{
	"uname":    `case $1 in -m) echo arm64 ;; *) echo Darwin ;; esac`,
	"sw_vers":  `echo "ProductVersion: 15.5"`,
	"sysctl":   `echo "hw.model: Mac16,1"`,
	"codesign": `echo "<key>com.apple.security.virtualization</key><true/>"`,
	"lumina": `
args=" $* "
last() { eval "echo \"\${$#}\""; }
[ "$1 $2" != "$LUMINA_BREAKS" ] || { echo "it broke" >&2; exit 3; }
guest() { sh -c "$(printf %s "$1" | sed "s|/data/|$LUMINA_HOME/data/|g; s|/shared/|${LUMINA_HOME%/home}/shared/|g; s|/tmp/tree|$LUMINA_HOME/tree|g; s|grep -x.*|true|; s|getent.*|true|")"; }
case $args in
*sysrq*) exit 125 ;;
*' 5s '*) exit 124 ;;
*' inspect CHECK '*) exit 125 ;;
*--forward*) port=${args#*--forward }; mkdir -p "$LUMINA_HOME"; echo "${port%%:*}" >"$LUMINA_HOME/port" ;;
*--detach*) perl -e "$(last "$@" | sed "s/.*perl -MIO::Socket -e '//; s/'; done//; s/8080/$(cat "$LUMINA_HOME/port")/")" -MIO::Socket </dev/null >/dev/null 2>&1 & ;;
' run '* | ' exec '*) guest "$(last "$@")" ;;
*' volume create '*) mkdir -p "$LUMINA_HOME/data" ;;
' cp check:'*) cp -a "$LUMINA_HOME/tree" "$3" ;;
*' cp '*) mkdir -p "$LUMINA_HOME"; cp -a "$2" "$LUMINA_HOME/tree" ;;
*' desktop boot '*) exit 124 ;;
*' doctor '*) exit 1 ;; # something could be better
*' version '*) echo lumina 1 ;;
esac`,
}

// runMacCheck runs release/mac-check.sh as on a Mac, with everything that it can do.
func runMacCheck(t *testing.T, breaks string) (report string, code int) {
	t.Helper()
	tools := t.TempDir()
	for name, script := range macTools {
		if err := os.WriteFile(filepath.Join(tools, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("bash", "mac-check.sh", filepath.Join(tools, "lumina"), "oci:layout")
	cmd.Env = append(os.Environ(), "PATH="+tools+":"+os.Getenv("PATH"), "CHECK_DESKTOP=x.iso", "CHECK_MACOS=1", "LUMINA_BREAKS="+breaks)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// The script that people run on their Macs passes where all is well, and says what is
// not, with what was said, and ends with 1.
func TestMacCheck(t *testing.T) {
	report, code := runMacCheck(t, "none")
	if code != 0 || strings.Count(report, "- [x] ") != 24 || strings.Contains(report, "- [ ]") || !strings.HasSuffix(report, "All steps passed.\n") {
		t.Errorf("all is well: %d, %d steps\n%s", code, strings.Count(report, "- [x] "), report)
	}
	for _, want := range []string{"ProductVersion: 15.5", "hw.model", "com.apple.security.virtualization", "desktop install-macos", "the translator is registered"} {
		if !strings.Contains(report, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	report, code = runMacCheck(t, "bench boot")
	if code != 1 || strings.Count(report, "- [ ] ") != 1 || !strings.Contains(report, "- [ ] **bench boot: exit code 3**") ||
		!strings.Contains(report, "it broke") || !strings.HasSuffix(report, "Some steps failed.\n") {
		t.Errorf("a step fails: %d\n%s", code, report)
	}
}
