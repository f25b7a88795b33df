package stream

// WithSpace has a server believe that its disk has so much space.
func WithSpace(o ServerOptions, space func() (free, total uint64)) ServerOptions {
	o.space = func(string) (uint64, uint64, error) {
		free, total := space()
		return free, total, nil
	}
	return o
}

// Reserves returns what is to stay free of a disk: of logs that yield, and of everything.
func Reserves(total uint64) (yield, last uint64) {
	return yieldReserve.of(total), lastReserve.of(total)
}
