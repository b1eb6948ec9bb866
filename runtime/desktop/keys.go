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

// An American keyboard: what its keys print, alone and with shift.
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
			return nil, fmt.Errorf("key %q is none: want a character of an American keyboard in lower case, or of: %v; several at once are joined by +", part, namedKeys)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// chords are the keys that type a text, each with shift where it needs that.
func chords(text string) ([][]vm.Key, error) {
	var all [][]vm.Key
	for _, r := range text {
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
		default:
			return nil, fmt.Errorf("no key of an American keyboard types %q", r)
		}
	}
	return all, nil
}
