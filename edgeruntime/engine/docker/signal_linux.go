package docker

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// group is a command in a container and what it has started: the processes of the
// group that it leads, which may outlive it.
type group struct {
	leader    int    // the command's number on this machine
	container string // its id
	told      map[int]syscall.Signal
}

// signal signals those that were not told this before, and says how many there are.
// A leader that is not of the container, because the engine is on another machine
// say, is an error, and is left alone.
//
// The group is not signalled as one, because what its leader starts in the very
// moment is not in it yet and would be missed for good.
func (g *group) signal(s syscall.Signal) (int, error) {
	if in, err := g.contains(g.leader); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	} else if err == nil && !in {
		return 0, errors.New("the engine's processes are not this machine's")
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	n := 0
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !g.leads(pid) {
			continue
		}
		if in, err := g.contains(pid); err != nil || !in {
			continue // it has ended meanwhile, or has the number of one that did
		}
		n++
		if g.told[pid] == s {
			continue
		}
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			return n, err
		}
		if g.told == nil {
			g.told = map[int]syscall.Signal{}
		}
		g.told[pid] = s
	}
	return n, nil
}

// leads tells whether a process is the leader, or of its group, and has not ended;
// proc(5), /proc/PID/stat.
func (g *group) leads(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	var state string
	var parent, pgrp int
	// The name before it is in parentheses, and may have some of its own.
	after := stat[strings.LastIndexByte(string(stat), ')')+1:]
	if _, err := fmt.Sscan(string(after), &state, &parent, &pgrp); err != nil || state == "Z" || state == "X" {
		return false
	}
	return pid == g.leader || pgrp == g.leader
}

func (g *group) contains(pid int) (bool, error) {
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if errors.Is(err, syscall.ESRCH) {
		err = os.ErrNotExist
	}
	return strings.Contains(string(groups), g.container), err
}
