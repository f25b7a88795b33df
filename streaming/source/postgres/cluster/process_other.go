//go:build !linux

package cluster

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

type account struct{}

func serverAccount() (account, error) {
	if os.Geteuid() == 0 {
		return account{}, errors.New("on this system a Postgres server cannot be run by root: use another account")
	}
	return account{}, nil
}

func (account) own(string) error { return nil }

func (account) attributes(string, syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// serves reports whether the process is a Postgres server on dir, which its command line names.
func serves(pid int, dir string) bool {
	out, err := exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(out), "postgres") && strings.Contains(string(out), dir)
}
