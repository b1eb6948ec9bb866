package main

import (
	"strings"
	"testing"
)

func event(action, driver, test string) string {
	return `{"Action":"` + action + `","Package":"x/` + driver + `","Test":"` + test + `","Elapsed":0.5}` + "\n"
}

func TestTable(t *testing.T) {
	both := event("pass", "fake", "TestFake/"+rule) + event("run", "vz", "TestSuite/"+rule) + event("pass", "vz", "TestSuite/"+rule) +
		event("pass", "fake", "TestFake/snapshots") + event("pass", "fake", "TestFake/snapshots/damaged") + event("pass", "vz", "TestOther/x")
	for _, tt := range []struct{ name, in, want, err string }{
		{"all", both + event("pass", "vz", "TestSuite/snapshots"), "| snapshots | 0.50 s | 0.50 s |\n", ""},
		{"one is not run", both, "| snapshots | 0.50 s | not run |\n", "1 of 4"},
		{"one is skipped", both + event("skip", "vz", "TestSuite/snapshots"), "| snapshots | 0.50 s | SKIP |\n", "1 of 4"},
		{"one fails", both + event("fail", "vz", "TestSuite/snapshots"), "| snapshots | 0.50 s | FAIL |\n", "1 of 4"},
		{"none", event("pass", "vz", "TestOther/x"), "", "no driver"},
		{"no events", "FAIL\n", "", "reading the events"},
	} {
		var out strings.Builder
		err := table(strings.NewReader(tt.in), &out)
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) || !strings.Contains(out.String(), tt.want) {
			t.Errorf("%s: %v\n%s", tt.name, err, out.String())
		}
	}
}
