package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/creack/pty"
)

// gap is the least space between two columns.
const gap = 3

// leastColumn is the width below which a column is not squeezed.
const leastColumn = 8

// table is rows under titles. A column whose title ends in "!" is never cut:
// its text is made to be copied.
type table struct {
	titles []string
	rows   [][]string
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// natural is how wide each column would like to be.
func (t *table) natural() []int {
	widths := make([]int, len(t.titles))
	for i := range t.titles {
		widths[i] = utf8.RuneCountInString(t.title(i))
		for _, r := range t.rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(plain(r[i])))
		}
	}
	return widths
}

// squeeze narrows columns until they fit into width (0: any), the widest first.
func (t *table) squeeze(widths []int, width int) []int {
	for width > 0 && total(widths) > width {
		widest := -1
		for i, w := range widths {
			if !strings.HasSuffix(t.titles[i], "!") && w > max(leastColumn, utf8.RuneCountInString(t.title(i))) && (widest < 0 || w > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break // the lines are cut
		}
		widths[widest]--
	}
	return widths
}

func total(widths []int) (sum int) {
	for _, w := range widths {
		sum += w + gap
	}
	return sum - gap
}

func (t *table) title(i int) string { return strings.TrimSuffix(t.titles[i], "!") }

// write writes the table within width, 0 for any; every line begins with
// indent.
func (t *table) write(w io.Writer, width int, indent string) {
	if width > 0 {
		width = max(width-len(indent), 1)
	}
	widths := t.squeeze(t.natural(), width)
	titles := make([]string, len(t.titles))
	for i := range titles {
		titles[i] = t.title(i)
	}
	writeLine(w, widths, titles, width, indent)
	for _, r := range t.rows {
		writeLine(w, widths, r, width, indent)
	}
}

// stream is a table that goes on: rows come one by one, and a column gets wider
// when one needs it.
type stream struct {
	w       io.Writer
	table   *table
	natural []int
}

// startStream writes what is in t already.
func startStream(w io.Writer, t *table) *stream {
	t.write(w, terminalWidth(w), "")
	return &stream{w: w, table: t, natural: t.natural()}
}

func (s *stream) row(cells ...string) {
	for i, c := range cells {
		s.natural[i] = max(s.natural[i], utf8.RuneCountInString(plain(c)))
	}
	width := terminalWidth(s.w)
	writeLine(s.w, s.table.squeeze(slices.Clone(s.natural), width), cells, width, "")
}

func writeLine(w io.Writer, widths []int, cells []string, width int, indent string) {
	var b strings.Builder
	for i, c := range cells {
		c = cut(plain(c), widths[i])
		b.WriteString(c)
		if i < len(cells)-1 {
			b.WriteString(strings.Repeat(" ", max(widths[i]-utf8.RuneCountInString(c), 0)+gap))
		}
	}
	fmt.Fprintln(w, strings.TrimRight(indent+cut(b.String(), width), " "))
}

// cut shortens s to a width, 0 for any, and shows that it did.
func cut(s string, width int) string {
	if width <= 0 || utf8.RuneCountInString(s) <= width {
		return s
	}
	runes := []rune(s)
	return string(runes[:width-1]) + "…"
}

// terminalWidth is how wide lines on w may be: what COLUMNS says, else the
// terminal's width, else 0 for any.
func terminalWidth(w io.Writer) int {
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	_, columns, err := pty.Getsize(f)
	if err != nil {
		return 0 // not a terminal
	}
	return columns
}

// without drops the named columns.
func (t *table) without(titles ...string) {
	for i := len(t.titles) - 1; i >= 0; i-- {
		if !slices.Contains(titles, t.title(i)) {
			continue
		}
		t.titles = slices.Delete(t.titles, i, i+1)
		for r := range t.rows {
			t.rows[r] = slices.Delete(t.rows[r], i, i+1)
		}
	}
}
