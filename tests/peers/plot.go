package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// The plot has a line for each row of the table and on it a dot for each service, at the ratio of lockfs to it: on a
// logarithmic scale, right of 1 where lockfs is better.

const (
	plotLeft  = 250.0
	plotWidth = 620.0
	plotRight = 150.0
	lineHigh  = 28.0
	plotTop   = 40.0
)

// colours are told apart by people who do not see red and green alike (Okabe and Ito).
var colours = []string{"#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#cc79a7", "#f0e442", "#999999", "#000000"}

type dot struct {
	service int
	ratio   float64
}

// dots are the ratios of a row.
func (r *results) dots(w row) (dots []dot) {
	us, ok := 0.0, false
	for _, s := range r.Services {
		if s.Kind == ours {
			us, ok = r.value(w, s)
		}
	}
	if !ok {
		return nil
	}
	for i, s := range r.Services {
		if v, ok := r.value(w, s); ok && s.Kind != ours && us > 0 && v > 0 {
			dots = append(dots, dot{i, w.ratio(us, v)})
		}
	}
	return dots
}

// plot is the ratios as SVG.
func (r *results) plot() string {
	low, high := -1, 1 // powers of ten
	var shown []row
	for _, w := range rows {
		dots := r.dots(w)
		if len(dots) == 0 {
			continue
		}
		shown = append(shown, w)
		for _, d := range dots {
			low, high = min(low, int(math.Floor(math.Log10(d.ratio)))), max(high, int(math.Ceil(math.Log10(d.ratio))))
		}
	}
	x := func(ratio float64) float64 {
		return plotLeft + plotWidth*(math.Log10(ratio)-float64(low))/float64(high-low)
	}
	bottom := plotTop + lineHigh*float64(len(shown))
	b := &strings.Builder{}
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="13">`+"\n",
		plotLeft+plotWidth+plotRight, max(bottom+30, plotTop+22*float64(len(r.Services))))
	b.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	fmt.Fprintf(b, `<text x="%.0f" y="20">lockfs is so many times as good as (right of 1: better)</text>`+"\n", plotLeft)
	for p := low; p <= high; p++ {
		at, colour := x(math.Pow10(p)), "#dddddd"
		if p == 0 {
			colour = "#000000"
		}
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.0f" x2="%.1f" y2="%.0f" stroke="%s"/><text x="%.1f" y="%.0f" text-anchor="middle">%s</text>`+"\n",
			at, plotTop-8, at, bottom, colour, at, bottom+18, html.EscapeString(fmt.Sprintf("%g", math.Pow10(p))))
	}
	for i, w := range shown {
		y := plotTop + lineHigh*(float64(i)+0.5)
		fmt.Fprintf(b, `<text x="%.0f" y="%.1f" text-anchor="end">%s</text><line x1="%.0f" y1="%.1f" x2="%.0f" y2="%.1f" stroke="#eeeeee"/>`+"\n",
			plotLeft-10, y+4, html.EscapeString(fmt.Sprintf("%s, %d: %s", w.workload, w.clients, w.what)), plotLeft, y, plotLeft+plotWidth, y)
		for _, d := range r.dots(w) {
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="5" fill="%s"><title>%s: %s</title></circle>`+"\n", x(d.ratio), y, colours[d.service%len(colours)],
				html.EscapeString(r.Services[d.service].Name), html.EscapeString(short(d.ratio)))
		}
	}
	y := plotTop
	for i, s := range r.Services {
		if s.Kind == ours {
			continue
		}
		fmt.Fprintf(b, `<circle cx="%.0f" cy="%.1f" r="5" fill="%s"/><text x="%.0f" y="%.1f">%s</text>`+"\n", plotLeft+plotWidth+25, y, colours[i%len(colours)],
			plotLeft+plotWidth+36, y+4, html.EscapeString(s.Name))
		y += 22
	}
	b.WriteString("</svg>\n")
	return b.String()
}
