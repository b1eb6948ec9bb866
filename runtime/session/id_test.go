package session

import (
	"regexp"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/runtime/name"
)

func TestForms(t *testing.T) {
	sid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	valid := regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)
	one := name.UUID()
	for _, s := range []string{
		"", one, strings.ToUpper(one), one[:35], one + "0", strings.ReplaceAll(one, "-", "0"), "g" + one[1:], one[:8] + "0" + one[9:], one[:35] + "\n",
		"a", "A.b_c-d", ".a", "-a", "_a", "a b", "a\n", "a/b", "é", strings.Repeat("a", name.MaxLength), strings.Repeat("a", name.MaxLength+1),
	} {
		if got, want := isSID(s), sid.MatchString(s); got != want {
			t.Errorf("isSID(%q) = %t, want %t", s, got, want)
		}
		if got, want := isName(s), valid.MatchString(s) && len(s) <= name.MaxLength; got != want {
			t.Errorf("isName(%q) = %t, want %t", s, got, want)
		}
	}
}
