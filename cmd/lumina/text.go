package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/abdul-abdi/lumina/runtime/printable"
)

// What people read goes through here, as a table, a line or a note: whatever is in
// it, names of a guest or an image among them, stays one cell or one line of text.

// table is rows of cells in columns.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer, columns ...any) *table {
	t := &table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	t.row(columns...)
	return t
}

func (t *table) row(cells ...any) {
	text := make([]string, len(cells))
	for i, c := range cells {
		text[i] = printable.Line(fmt.Sprint(c))
	}
	fmt.Fprintln(t.w, strings.Join(text, "\t"))
}

// print writes the table.
func (t *table) print() error { return t.w.Flush() }

// printLine prints one line.
func printLine(w io.Writer, format string, a ...any) error {
	_, err := fmt.Fprintln(w, printable.Line(fmt.Sprintf(format, a...)))
	return err
}

// note tells the user something beside the result.
func (env *environment) note(format string, a ...any) {
	_ = printLine(env.stderr, "lumina: "+format, a...)
}
