package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// mount is a file system in memory whose size can be changed, so that it can be full at no cost.
type mount struct{ path string }

// roomy is the size that nobody fills: streams reserve what they may come to need.
const roomy = "size=400g"

func newMount(path string) (mount, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return mount{}, err
	}
	return mount{path}, syscall.Mount("tmpfs", path, "tmpfs", 0, roomy)
}

// fill leaves room for a few pages more, so that something is written in part.
func (m mount) fill() error {
	var s syscall.Statfs_t
	if err := syscall.Statfs(m.path, &s); err != nil {
		return err
	}
	used := (s.Blocks - s.Bfree) * uint64(s.Bsize)
	return syscall.Mount("tmpfs", m.path, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", used+64<<10))
}

func (m mount) free() error {
	return syscall.Mount("tmpfs", m.path, "tmpfs", syscall.MS_REMOUNT, roomy)
}

// close unmounts it; what is in it is copied beside it when it is to be kept.
func (m mount) close(keep bool) error {
	if keep {
		if out, err := exec.Command("cp", "-a", m.path, m.path+".kept").CombinedOutput(); err != nil {
			return fmt.Errorf("keeping %s: %w: %s", filepath.Base(m.path), err, out)
		}
	}
	return syscall.Unmount(m.path, syscall.MNT_DETACH)
}
