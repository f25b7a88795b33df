//go:build !linux && !darwin

package stream

import "errors"

func spaceOn(string) (free, total uint64, err error) { return 0, 0, errors.ErrUnsupported }
