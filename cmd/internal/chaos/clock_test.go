package chaos

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// shiftsClocks reports whether clocks can be shifted here.
func shiftsClocks() bool {
	return runtime.GOOS == "linux" && runtime.GOARCH == "amd64" && os.Getuid() == 0
}

// shiftClock has a worker take the time of day for another one, at one stroke and back again, as when somebody sets the
// clock of its machine.
func shiftClock(by time.Duration) func(context.Context, *environment, string) (func(context.Context) error, error) {
	return func(ctx context.Context, e *environment, target string) (func(context.Context) error, error) {
		end, err := shift(ctx, e.services[target].pid(), by)
		if errors.Is(err, fs.ErrNotExist) { // it has ended by itself: the next one has a clock of its own
			return nil, nil
		}
		return end, err
	}
}

// shift changes what a process gets from clock_gettime(CLOCK_REALTIME). Go programs call the kernel's vDSO for it, whose
// code each process has a copy of its own: there the first instructions are replaced by the system call itself and an
// addition.
func shift(ctx context.Context, pid int, by time.Duration) (func(context.Context) error, error) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	from, to, err := vdso(proc)
	if err != nil {
		return nil, err
	}
	memory, err := os.OpenFile(filepath.Join(proc, "mem"), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	image := make([]byte, to-from)
	if _, err := memory.ReadAt(image, int64(from)); err != nil {
		return nil, errors.Join(err, memory.Close())
	}
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, errors.Join(err, memory.Close())
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return nil, errors.Join(err, memory.Close())
	}
	code := []byte{
		0xb8, 0xe4, 0, 0, 0, // mov eax, 228: clock_gettime
		0x0f, 0x05, // syscall
		0x85, 0xff, // test edi, edi: which clock
		0x75, 0x07, // jnz over the next instruction
		0x48, 0x81, 0x06, 0, 0, 0, 0, // add qword [rsi], seconds
		0xc3, // ret
	}
	binary.LittleEndian.PutUint32(code[14:], uint32(int32(by/time.Second)))
	for _, s := range symbols {
		if s.Name != "__vdso_clock_gettime" {
			continue
		}
		if s.Size < uint64(len(code)) {
			return nil, errors.Join(fmt.Errorf("%s has %d bytes only", s.Name, s.Size), memory.Close())
		}
		before := image[s.Value:][:len(code)]
		write := func(ctx context.Context, code []byte) error {
			return paused(ctx, pid, func(pc uint64) bool { return pc >= from && pc < to }, func() error {
				_, err := memory.WriteAt(code, int64(from+s.Value))
				return err
			})
		}
		if err := write(ctx, code); err != nil {
			return nil, errors.Join(err, memory.Close())
		}
		return func(ctx context.Context) error {
			return errors.Join(write(ctx, before), memory.Close())
		}, nil
	}
	return nil, errors.Join(errors.New("the vDSO has no __vdso_clock_gettime"), memory.Close())
}

// vdso returns where a process has it.
func vdso(proc string) (from, to uint64, err error) {
	maps, err := os.ReadFile(filepath.Join(proc, "maps"))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(maps)) {
		if strings.HasSuffix(line, "[vdso]\n") {
			_, err = fmt.Sscanf(line, "%x-%x", &from, &to)
			return from, to, err
		}
	}
	return 0, 0, fmt.Errorf("the process has no vDSO: %w", fs.ErrNotExist)
}

// paused does something while a process stands still with none of its threads at a place, and nothing when it has ended.
// One that was stopped before stays so.
func paused(ctx context.Context, pid int, at func(pc uint64) bool, do func() error) error {
	return until(ctx, 10*time.Second, "moment at which the process may be changed", func() error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil || len(threads) == 0 {
			return err
		}
		if s, err := state(threads[0]); err != nil || s != "T" {
			if err := errors.Join(err, syscall.Kill(pid, syscall.SIGSTOP)); err != nil {
				return err
			}
			defer syscall.Kill(pid, syscall.SIGCONT)
		}
		err = until(ctx, time.Second, "standstill", func() error {
			if threads, err = filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid)); err != nil {
				return err
			}
			for _, thread := range threads {
				if s, err := state(thread); err != nil || s != "T" {
					return fmt.Errorf("%s is in state %q: %w", thread, s, err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, thread := range threads {
			pc, err := counter(thread)
			if err != nil {
				return err
			}
			if at(pc) {
				return errors.New("a thread reads the clock")
			}
		}
		return do()
	})
}

// state returns the letter that the kernel has for the state of a thread.
func state(thread string) (string, error) {
	stat, err := os.ReadFile(filepath.Join(thread, "stat"))
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	return fields[0], nil
}

// counter returns the address of the instruction with which a thread goes on.
func counter(thread string) (pc uint64, err error) {
	call, err := os.ReadFile(filepath.Join(thread, "syscall"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(call))
	return strconv.ParseUint(fields[len(fields)-1], 0, 64)
}

// TestShift: a process whose clock is shifted tells another time until that ends, and goes on.
func TestShift(t *testing.T) {
	if !shiftsClocks() {
		t.Skip("clocks cannot be shifted here")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+roleClock)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() { cancel(); _ = cmd.Wait() }()
	told := bufio.NewScanner(out)
	ahead := func(by time.Duration) error {
		require.True(t, told.Scan(), "it has ended")
		n, err := strconv.ParseInt(told.Text(), 10, 64)
		require.NoError(t, err)
		if off := time.Until(time.Unix(0, n)) - by; off.Abs() > time.Minute {
			return fmt.Errorf("it is off by %s", off)
		}
		return nil
	}
	for _, by := range []time.Duration{10 * time.Minute, -time.Hour} {
		require.NoError(t, ahead(0))
		end, err := shift(ctx, cmd.Process.Pid, by)
		require.NoError(t, err)
		require.NoError(t, until(ctx, 10*time.Second, "other time of day", func() error { return ahead(by) }))
		require.NoError(t, end(ctx))
		require.NoError(t, until(ctx, 10*time.Second, "same time of day", func() error { return ahead(0) }))
	}
}
