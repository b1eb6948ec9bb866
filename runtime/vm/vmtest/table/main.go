// Command table reads what go test -json says of the drivers' suite, and prints a table:
// which rule each driver keeps. It ends with 1 unless every driver keeps every rule, and
// none was skipped. See make suite.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
)

// rule is one that every run of the suite has: see [vmtest.Run].
const rule = "a_machine_answers"

func main() {
	if err := table(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// result is how a test of a driver's went.
type result struct {
	Action, Package, Test string
	Elapsed               float64 // seconds
}

func table(in io.Reader, out io.Writer) error {
	var drivers []string
	var names [][2]string             // of drivers' tests, as they ended
	results := map[[2]string]result{} // by them
	for d := json.NewDecoder(in); ; {
		var r result
		if err := d.Decode(&r); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("reading the events of go test -json: %w", err)
		}
		test, name, ok := strings.Cut(r.Test, "/")
		if !ok || strings.Contains(name, "/") || !slices.Contains([]string{"pass", "fail", "skip"}, r.Action) {
			continue
		}
		driver := path.Base(r.Package) + " " + test
		if name == rule {
			drivers = append(drivers, driver)
		}
		names = append(names, [2]string{driver, name})
		results[[2]string{driver, name}] = r
	}
	var rules []string
	for _, n := range names {
		if slices.Contains(drivers, n[0]) && !slices.Contains(rules, n[1]) {
			rules = append(rules, n[1])
		}
	}
	if len(drivers) == 0 {
		return errors.New("no driver has run the suite")
	}
	fmt.Fprintf(out, "| rule | %s |\n|%s\n", strings.Join(drivers, " | "), strings.Repeat(" --- |", len(drivers)+1))
	missing := 0
	for _, name := range rules {
		fmt.Fprintf(out, "| %s |", strings.ReplaceAll(name, "_", " "))
		for _, driver := range drivers {
			r := results[[2]string{driver, name}]
			switch r.Action {
			case "pass":
				fmt.Fprintf(out, " %.2f s |", r.Elapsed)
			case "":
				missing++
				fmt.Fprint(out, " not run |")
			default:
				missing++
				fmt.Fprintf(out, " %s |", strings.ToUpper(r.Action))
			}
		}
		fmt.Fprintln(out)
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d rules were not kept, or not tried", missing, len(rules)*len(drivers))
	}
	return nil
}
