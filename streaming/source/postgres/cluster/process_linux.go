package cluster

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const capDACOverride = 1 // CAP_DAC_OVERRIDE of linux/capability.h

// account is whom the server runs as. Postgres refuses to run as root, so root hands it to the user postgres.
type account struct {
	uid, gid int
	change   bool
}

func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return account{}, fmt.Errorf("running as root needs a user named postgres to run the server as: %w", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return account{}, fmt.Errorf("reading the id of user postgres: %w", err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return account{}, fmt.Errorf("reading the group of user postgres: %w", err)
	}
	return account{uid, gid, true}, nil
}

// own gives dir and all below it to the account.
func (a account) own(dir string) error {
	if !a.change {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, a.uid, a.gid)
	})
}

// attributes make a process run as the account. If the way to dir is closed to the account, as with directories
// below /root, the process may ignore file modes.
func (a account) attributes(dir string, signal syscall.Signal) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Setpgid:   true, // a Ctrl-C at the terminal is ours to handle
		Pdeathsig: signal,
	}
	if !a.change {
		return attr
	}
	attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		if info, err := os.Stat(parent); err == nil && info.Mode().Perm()&1 == 0 {
			attr.AmbientCaps = []uintptr{capDACOverride}
		}
		if parent == filepath.Dir(parent) {
			return attr
		}
	}
}

// serves reports whether the process is a Postgres server on dir, which is its working directory.
func serves(pid int, dir string) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil || !strings.HasPrefix(filepath.Base(exe), "postgres") {
		return false
	}
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	return err == nil && cwd == dir
}
