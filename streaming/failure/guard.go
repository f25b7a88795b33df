package failure

import "runtime/debug"

// Guard runs f and turns its panic into a Panic failure with its stack: a bug in one component is to end that component
// and not the process.
func Guard(f func() error) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case error:
			err = Panic.Errorf("panic: %w", p).WithDetail("stack", string(debug.Stack()))
		default:
			err = Panic.Errorf("panic: %v", p).WithDetail("stack", string(debug.Stack()))
		}
	}()
	return f()
}

// Go runs f in a goroutine of its own, guarded, since a panic that leaves a goroutine ends the process. How f ended is
// what comes from the channel, which is closed then; nobody needs to wait for it.
func Go(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		defer close(done)
		done <- Guard(f)
	}()
	return done
}
