package qemu

import (
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/abdul-abdi/lumina/runtime/socketpair"
)

// QMP's replies, in the order and the form in which a QEMU that was taken over may send
// them.
func TestMonitor(t *testing.T) {
	for name, tt := range map[string]struct {
		says []string // a line each
		want string   // of the error; "" for none
	}{
		"good":                    {[]string{`{"QMP":{}}`, `{"return":{},"id":1}`, `{"return":{},"id":2}`}, ""},
		"an event between":        {[]string{`{"QMP":{}}`, `{"return":{},"id":1}`, `{"event":"RESUME"}`, `{"return":{},"id":2}`}, ""},
		"a late reply":            {[]string{`{"QMP":{}}`, `{"return":{},"id":1}`, `{"return":{},"id":77}`, `{"return":{},"id":2}`}, ""},
		"an error":                {[]string{`{"QMP":{}}`, `{"return":{},"id":1}`, `{"error":{"desc":"no"},"id":2}`}, "telling QEMU to cont: no"},
		"no JSON":                 {[]string{`{"QMP":{}}`, `{"return":{},"id":1}`, `what?`}, "invalid character"},
		"a line that is too long": {[]string{`{"QMP":{}}`, `{"return":{},"id":1}`, `{"x":"` + strings.Repeat("x", maxMessage) + `"}`}, "buffer full"},
		"no greeting":             {nil, "reading QEMU's greeting: EOF"},
		"an end":                  {[]string{`{"QMP":{}}`, `{"return":{},"id":1}`}, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			ours, file, err := socketpair.New(syscall.SOCK_STREAM)
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			theirs, err := net.FileConn(file)
			file.Close()
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				defer theirs.(*net.UnixConn).CloseWrite()
				for _, line := range tt.says {
					if _, err := io.WriteString(theirs, line+"\n"); err != nil {
						return
					}
				}
			}()
			defer theirs.Close()
			m, err := openMonitor(ours)
			if err == nil {
				err = m.command(nil, "cont", nil)
			}
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
