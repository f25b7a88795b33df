package chaos

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
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
	return func(_ context.Context, e *environment, target string) (func(context.Context) error, error) {
		pid := e.services[target].pid()
		end, err := shift(pid, by)
		if pid == 0 || errors.Is(err, fs.ErrNotExist) { // it has ended by itself: the next one has a clock of its own
			return nil, nil
		}
		return func(context.Context) error {
			if err := end(); err != nil && e.services[target].pid() == pid {
				return err
			}
			return nil
		}, err
	}
}

// shift changes what a Go program gets from clock_gettime(CLOCK_REALTIME). It calls the kernel's vDSO for it, whose code
// each process has a copy of its own, by an address that it keeps in a variable. So where the vDSO has the function time,
// which Go programs do not use, comes one that makes the system call and adds to what it gives, and the variable gets its
// address.
func shift(pid int, by time.Duration) (end func() error, err error) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	memory, err := os.OpenFile(filepath.Join(proc, "mem"), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, memory.Close())
		}
	}()
	program, err := os.Readlink(filepath.Join(proc, "exe"))
	if err != nil {
		return nil, err
	}
	vdso, data, err := mappings(proc, program)
	if err != nil {
		return nil, err
	}
	image, err := vdso.read(memory)
	if err != nil {
		return nil, err
	}
	ours, theirs, err := functions(image, "__vdso_time", "__vdso_clock_gettime")
	if err != nil {
		return nil, err
	}
	variables, err := data.read(memory)
	if err != nil {
		return nil, err
	}
	address := binary.LittleEndian.AppendUint64(nil, vdso.from+theirs.Value)
	at := bytes.Index(variables, address)
	if at < 0 || at != bytes.LastIndex(variables, address) {
		return nil, errors.New("the program keeps the address of the clock at no place, or at several")
	}
	variable := int64(data.from) + int64(at)
	code := []byte{
		0xb8, 0xe4, 0, 0, 0, // mov eax, 228: clock_gettime
		0x0f, 0x05, // syscall
		0x85, 0xff, // test edi, edi: which clock
		0x75, 0x07, // jnz over the next instruction
		0x48, 0x81, 0x06, 0, 0, 0, 0, // add qword [rsi], seconds
		0xc3, // ret
	}
	binary.LittleEndian.PutUint32(code[14:], uint32(int32(by/time.Second)))
	if ours.Size < uint64(len(code)) {
		return nil, fmt.Errorf("%s has %d bytes only", ours.Name, ours.Size)
	}
	if _, err := memory.WriteAt(code, int64(vdso.from+ours.Value)); err != nil {
		return nil, err
	}
	if _, err := memory.WriteAt(binary.LittleEndian.AppendUint64(nil, vdso.from+ours.Value), variable); err != nil {
		return nil, err
	}
	return func() error {
		_, err := memory.WriteAt(address, variable)
		return errors.Join(err, memory.Close())
	}, nil
}

// mapping is a part of a process's memory.
type mapping struct{ from, to uint64 }

func (m mapping) read(memory io.ReaderAt) ([]byte, error) {
	image := make([]byte, m.to-m.from)
	_, err := memory.ReadAt(image, int64(m.from))
	return image, err
}

// mappings returns where a process has its vDSO, and where the program has its variables.
func mappings(proc, program string) (vdso, data mapping, err error) {
	maps, err := os.ReadFile(filepath.Join(proc, "maps"))
	if err != nil {
		return vdso, data, err
	}
	for line := range strings.Lines(string(maps)) {
		fields := append(strings.Fields(line), "") // those that are zero at first have no name
		var m mapping
		if _, err := fmt.Sscanf(fields[0], "%x-%x", &m.from, &m.to); err != nil {
			return vdso, data, err
		}
		switch writable := fields[1] == "rw-p"; {
		case fields[5] == "[vdso]":
			vdso = m
		case writable && fields[5] == program && data.to == 0:
			data = m
		case writable && fields[5] == "" && data.to == m.from:
			data.to = m.to
		}
	}
	if vdso.to == 0 || data.to == 0 {
		err = fmt.Errorf("the process has no vDSO, or no variables: %w", fs.ErrNotExist)
	}
	return vdso, data, err
}

// functions looks two of them up in a shared object.
func functions(object []byte, first, second string) (f, s elf.Symbol, err error) {
	file, err := elf.NewFile(bytes.NewReader(object))
	if err != nil {
		return f, s, err
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return f, s, err
	}
	for _, symbol := range symbols {
		switch symbol.Name {
		case first:
			f = symbol
		case second:
			s = symbol
		}
	}
	if f.Name == "" || s.Name == "" {
		err = fmt.Errorf("there is no %s, or no %s", first, second)
	}
	return f, s, err
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
		end, err := shift(cmd.Process.Pid, by)
		require.NoError(t, err)
		require.NoError(t, until(ctx, 10*time.Second, "other time of day", func() error { return ahead(by) }))
		require.NoError(t, end())
		require.NoError(t, until(ctx, 10*time.Second, "same time of day", func() error { return ahead(0) }))
	}
}
