// Package doctest finds the fenced blocks in the documentation, so that its
// tests can do what readers are told to do. Only tests import it.
//
// What stands after the language of a block says what is done with it:
//
//	sh test              run in bash, in the order of the document, beside a running `whimbrel up`
//	sh test background   started so, and left running to the document's end
//	yaml                 decoded, when it holds objects
//	… file=NAME          saved under that name where the blocks run; Go files are compiled
//	yaml … simulator     loaded as simulators
package doctest

import (
	"slices"
	"strings"
)

// Block is a fenced block of a document.
type Block struct {
	Line     int // of its first line, from 1
	Language string
	Tags     []string
	Text     string
}

// Has reports whether the block has a tag.
func (b Block) Has(tag string) bool { return slices.Contains(b.Tags, tag) }

// File is the name that the block is to be saved under, "" for none.
func (b Block) File() string {
	for _, t := range b.Tags {
		if name, ok := strings.CutPrefix(t, "file="); ok {
			return name
		}
	}
	return ""
}

// Blocks finds the fenced blocks of a Markdown text.
func Blocks(markdown string) (blocks []Block) {
	var open *Block
	n := 0
	for line := range strings.Lines(markdown) {
		n++
		info, fence := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "```")
		switch {
		case open == nil && fence:
			words := strings.Fields(info)
			open = &Block{Line: n + 1}
			if len(words) > 0 {
				open.Language, open.Tags = words[0], words[1:]
			}
		case open != nil && fence && strings.TrimSpace(info) == "":
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			open.Text += line
		}
	}
	return blocks
}
