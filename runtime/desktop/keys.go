package desktop

import (
	"fmt"
	"slices"
	"strings"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

// namedKeys are keys that print nothing, or not what they are called.
var namedKeys = []vm.Key{
	"enter", "esc", "tab", "space", "backspace", "delete", "insert", "home", "end", "pageup", "pagedown",
	"up", "down", "left", "right", "f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "f10", "f11", "f12",
	"ctrl", "shift", "alt", "altgr", "super", "menu", "capslock", "print",
}

// A US keyboard: what its keys print, alone and with shift.
const (
	plainKeys   = "`1234567890-=[]\\;',./abcdefghijklmnopqrstuvwxyz"
	shiftedKeys = "~!@#$%^&*()_+{}|:\"<>?ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// ParseKeys reads keys that are pressed at once, such as "ctrl+alt+delete" or "a".
func ParseKeys(s string) ([]vm.Key, error) {
	var keys []vm.Key
	for part := range strings.SplitSeq(strings.ToLower(s), "+") {
		k := vm.Key(part)
		if !slices.Contains(namedKeys, k) && (len(part) != 1 || !strings.Contains(plainKeys, part)) {
			return nil, fmt.Errorf("unknown key %q: want a lower-case character of a US keyboard, or one of: %v; join keys that are pressed together with +", part, namedKeys)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// Chord is keys pressed at once that systems know, for a menu of them.
type Chord struct {
	Name string `json:"name"` // for people
	Keys string `json:"keys"` // for [Client.PressNamed]
}

// Chords lists chords that a browser or the host's own system keeps from a page.
func Chords() []Chord {
	all := []Chord{
		{"Ctrl+Alt+Del", "ctrl+alt+delete"}, {"Ctrl+Alt+Backspace", "ctrl+alt+backspace"}, {"Alt+Tab", "alt+tab"}, {"Alt+F4", "alt+f4"},
		{"Super", "super"}, {"Super+L", "super+l"}, {"Super+R", "super+r"}, {"Ctrl+Shift+Esc", "ctrl+shift+esc"}, {"Ctrl+Esc", "ctrl+esc"},
		{"Ctrl+W", "ctrl+w"}, {"Print", "print"}, {"Alt+Print", "alt+print"},
	}
	for i := range 7 {
		all = append(all, Chord{fmt.Sprintf("Ctrl+Alt+F%d", i+1), fmt.Sprintf("ctrl+alt+f%d", i+1)})
	}
	return all
}

// Untypable are the characters of a text, each once, that a US keyboard has no
// keys for.
type Untypable []rune

func (u Untypable) Error() string {
	const most = 10
	text := fmt.Sprintf("no key of a US keyboard types %q", string(u[:min(len(u), most)]))
	if len(u) > most {
		text += fmt.Sprintf(" and %d other characters", len(u)-most)
	}
	return text
}

// CheckText says what of a text [Client.Type] cannot type: an [Untypable], or that it is
// too long.
func CheckText(text string) error {
	_, err := chords(text)
	return err
}

// chords are the keys that type a text, each with shift where it needs that.
func chords(text string) ([][]vm.Key, error) {
	var all [][]vm.Key
	var not Untypable
	for _, r := range strings.ReplaceAll(text, "\r\n", "\n") {
		switch {
		case r == '\n':
			all = append(all, []vm.Key{"enter"})
		case r == '\t':
			all = append(all, []vm.Key{"tab"})
		case r == ' ':
			all = append(all, []vm.Key{"space"})
		case r < 0x80 && strings.ContainsRune(plainKeys, r):
			all = append(all, []vm.Key{vm.Key(r)})
		case r < 0x80 && strings.ContainsRune(shiftedKeys, r):
			i := strings.IndexRune(shiftedKeys, r)
			all = append(all, []vm.Key{"shift", vm.Key(plainKeys[i])})
		case !slices.Contains(not, r):
			not = append(not, r)
		}
	}
	if len(not) > 0 {
		return nil, not
	}
	if len(all) > maxText {
		return nil, fmt.Errorf("a text of %d characters: at most %d are typed at once", len(all), maxText)
	}
	return all, nil
}
