package importer

// LowerBounds lowers the bounds on the input until undo is called.
func LowerBounds() (undo func()) {
	text, stream := maxText, maxStream
	maxText, maxStream = 1<<20, 2<<20
	return func() { maxText, maxStream = text, stream }
}
