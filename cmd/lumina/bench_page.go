package main

import (
	_ "embed"
	"fmt"
	"html/template"
	"strings"
	"sync"

	"github.com/abdul-abdi/lumina/runtime/outfile"
)

//go:embed bench_page.html
var bootPageSource string

// bootPage is parsed when it is needed: every command would pay for it.
var bootPage = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("boot").Funcs(template.FuncMap{
		"points":  percentilePoints,
		"percent": func(part, whole float64) float64 { return 100 * part / whole },
		"minus":   func(a, b float64) float64 { return a - b },
		"slowest": slowest,
		"total":   func(w waterfall) float64 { return w.Marks[len(w.Marks)-1].To },
	}).Parse(bootPageSource))
})

// writeBootPage writes a page that needs nothing but itself.
func writeBootPage(name string, report *bootReport) error {
	var page strings.Builder
	if err := bootPage().Execute(&page, report); err != nil {
		return err
	}
	return outfile.Write(name, []byte(page.String()), 0o644)
}

// slowest is the right end of the percentiles' axis, in milliseconds.
func slowest(boots []sample) float64 {
	end := 1.0
	for _, b := range boots {
		end = max(end, b.times[len(b.times)-1])
	}
	return end
}

// percentilePoints are those of a polyline in a box of 100 by 100: time to the
// right, percentiles upwards.
func percentilePoints(s sample, end float64) string {
	var points []string
	for i, t := range s.times {
		p := 50.0
		if n := len(s.times); n > 1 {
			p = 100 * float64(i) / float64(n-1)
		}
		points = append(points, fmt.Sprintf("%.2f,%.2f", 100*t/end, 100-p))
	}
	return strings.Join(points, " ")
}
