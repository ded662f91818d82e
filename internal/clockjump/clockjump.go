// Package clockjump makes the wall clock of another process jump, as when its
// machine has no clock of its own or somebody sets it wrong. The process notices
// nothing else: its monotonic clock, its timers and the machine's clock stay
// as they are, and it needs no seam for this. Imported by tests only.
//
// A process reads its clock through code that the kernel maps into it (the vDSO).
// Clock replaces that code, in this one process, by code that asks the kernel
// and adds an offset, which Set changes at any time. This takes Linux on amd64 and
// the right to trace the process, which a parent usually has.
package clockjump

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrUnsupported: clocks cannot be made to jump here.
var ErrUnsupported = errors.New("clocks cannot be made to jump here")

// Clock is the wall clock of one process.
type Clock struct {
	pid    int
	offset int64 // where in the process its offset is
}

// Of takes over the clock of a process. The clock shows what it did until Set.
func Of(pid int) (*Clock, error) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("%w: %s/%s", ErrUnsupported, runtime.GOOS, runtime.GOARCH)
	}
	from, to, err := vdso(pid)
	if err != nil {
		return nil, err
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	defer mem.Close()
	image := make([]byte, to-from)
	if _, err := mem.ReadAt(image, from); err != nil {
		return nil, fmt.Errorf("%w: read the vDSO: %w", ErrUnsupported, err)
	}
	patches, offset, err := patch(image)
	if err != nil {
		return nil, err
	}
	c := &Clock{pid: pid, offset: from + offset}
	// No thread may be in the midst of the code that is replaced.
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return nil, fmt.Errorf("stop process %d: %w", pid, err)
	}
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
	for deadline := time.Now().Add(5 * time.Second); ; {
		outside, err := outsideOf(pid, from, to)
		if err != nil {
			return nil, err
		}
		if outside {
			break
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("process %d does not leave the vDSO", pid)
		}
		_ = syscall.Kill(pid, syscall.SIGCONT) // let it leave
		runtime.Gosched()
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
	for _, p := range patches {
		if _, err := mem.WriteAt(p.code, from+p.at); err != nil {
			return nil, fmt.Errorf("%w: write the vDSO: %w", ErrUnsupported, err)
		}
	}
	return c, nil
}

// Set makes the clock show what the machine's does and so much more, in whole seconds.
func (c *Clock) Set(ahead time.Duration) error {
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", c.pid), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	_, err = mem.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(int64(ahead/time.Second))), c.offset)
	return err
}

// vdso returns where the process has it.
func vdso(pid int) (from, to int64, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(maps)) {
		fields := strings.Fields(line)
		if fields[len(fields)-1] != "[vdso]" {
			continue
		}
		low, high, _ := strings.Cut(fields[0], "-")
		if from, err = strconv.ParseInt(low, 16, 64); err == nil {
			to, err = strconv.ParseInt(high, 16, 64)
		}
		return from, to, err
	}
	return 0, 0, fmt.Errorf("%w: process %d has no vDSO", ErrUnsupported, pid)
}

// outsideOf reports whether all threads of a process stand still, and none between
// two addresses.
func outsideOf(pid int, from, to int64) (bool, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	if err != nil || len(threads) == 0 {
		return false, fmt.Errorf("process %d has ended", pid)
	}
	for _, name := range threads {
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // the thread has ended
		}
		if err != nil {
			return false, fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
		fields := strings.Fields(string(text))
		pc, err := strconv.ParseInt(strings.TrimPrefix(fields[len(fields)-1], "0x"), 16, 64)
		if err != nil || pc >= from && pc < to { // "running" is no number
			return false, nil
		}
	}
	return true, nil
}

type piece struct {
	at   int64
	code []byte
}

// patch makes the code in place of the vDSO's functions that tell the wall time.
// The offset that they add is behind the first of them.
func patch(image []byte) (pieces []piece, offset int64, err error) {
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, 0, fmt.Errorf("the vDSO: %w", err)
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return nil, 0, fmt.Errorf("the vDSO: %w", err)
	}
	at := map[string]elf.Symbol{}
	for _, s := range symbols {
		at[s.Name] = s
	}
	main, ok := at["__vdso_clock_gettime"]
	if !ok {
		return nil, 0, fmt.Errorf("%w: the vDSO tells no time", ErrUnsupported)
	}
	// Aligned, so that a change of it is seen whole.
	offset = int64(main.Value)/8*8 + 40
	for name, assemble := range map[string]func(at func(...byte) []byte) []byte{
		"__vdso_clock_gettime": clockGettime, "__vdso_gettimeofday": gettimeofday, "__vdso_time": timeOf} {
		s, ok := at[name]
		if !ok {
			continue
		}
		code := assemble(nil)
		// Once more, now that the distance to the offset is known.
		code = assemble(func(before ...byte) []byte {
			next := int64(s.Value) + int64(len(before)) + 4
			return binary.LittleEndian.AppendUint32(before, uint32(int32(offset-next)))
		})
		room := int64(s.Size)
		if name == "__vdso_clock_gettime" {
			room = min(room, 32)
			if int64(s.Size) < 56 {
				return nil, 0, fmt.Errorf("%w: the vDSO has no room", ErrUnsupported)
			}
			pieces = append(pieces, piece{offset, make([]byte, 8)})
		}
		if int64(len(code)) > room {
			return nil, 0, fmt.Errorf("%w: %s has %d bytes, %d are needed", ErrUnsupported, name, room, len(code))
		}
		pieces = append(pieces, piece{int64(s.Value), code})
	}
	return pieces, offset, nil
}

// relative appends the distance from the end of an instruction to the offset.
func relative(at func(...byte) []byte, code ...byte) []byte {
	if at == nil {
		return append(code, 0, 0, 0, 0)
	}
	return at(code...)
}

// clockGettime(edi = which, rsi = where to)
func clockGettime(at func(...byte) []byte) []byte {
	code := relative(at,
		0xb8, 0xe4, 0, 0, 0, // mov eax, 228
		0x0f, 0x05, // syscall
		0x85, 0xff, // test edi, edi
		0x75, 0x0a, // jnz to the ret: not the wall clock
		0x48, 0x8b, 0x15) // mov rdx, [offset]
	return append(code,
		0x48, 0x01, 0x16, // add [rsi], rdx
		0xc3) // ret
}

// gettimeofday(rdi = where to, rsi = zone)
func gettimeofday(at func(...byte) []byte) []byte {
	code := relative(at,
		0xb8, 0x60, 0, 0, 0, // mov eax, 96
		0x0f, 0x05, // syscall
		0x48, 0x85, 0xff, // test rdi, rdi
		0x74, 0x0a, // jz to the ret
		0x48, 0x8b, 0x15) // mov rdx, [offset]
	return append(code,
		0x48, 0x01, 0x17, // add [rdi], rdx
		0xc3) // ret
}

// time(rdi = where to as well)
func timeOf(at func(...byte) []byte) []byte {
	code := relative(at,
		0x57,       // push rdi
		0x31, 0xff, // xor edi, edi
		0xb8, 0xc9, 0, 0, 0, // mov eax, 201
		0x0f, 0x05, // syscall
		0x5f,             // pop rdi
		0x48, 0x03, 0x05) // add rax, [offset]
	return append(code,
		0x48, 0x85, 0xff, // test rdi, rdi
		0x74, 0x03, // jz to the ret
		0x48, 0x89, 0x07, // mov [rdi], rax
		0xc3) // ret
}
