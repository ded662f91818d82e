// Package failpoint names the steps of the program at which a fault campaign may
// end or hold up a process: between two things that have to survive being torn
// apart. In the programs that are released it is nothing at all: Here is empty
// unless the build tag failpoint is set.
//
// With the tag, a process that has WHIMBREL_FAILPOINTS=DIR in its environment looks
// at each step for a file DIR/STEP. If that says "kill" the process removes it
// and kills itself, as kill -9 would. If it says "pause", the file is renamed to
// STEP.reached and the process stays there, in this goroutine, until somebody removes
// that: so that others can be killed at a step of this one.
package failpoint
