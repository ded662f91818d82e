package mappertest

import "syscall"

// A device that is stopped keeps its connections and answers nothing.
const (
	stopSignal = syscall.SIGSTOP
	contSignal = syscall.SIGCONT
)
