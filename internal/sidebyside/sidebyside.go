// Package sidebyside lets the tests of a package run beside each other on a
// machine with few processors. By default as many parallel tests run at a time
// as there are processors, which is few for tests that wait: for a device that
// is silent, for a timeout, for a line to come back. Imported by tests only.
package sidebyside

import "flag"

// Tests lets up to n parallel tests run at a time, unless -parallel was given.
// Call it in TestMain before the tests are run.
func Tests(n string) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", n) // there is one: this is a test
	}
}
