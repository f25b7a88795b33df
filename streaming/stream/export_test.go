package stream

// WithSpace has a server believe that its disk has so much space.
func WithSpace(o ServerOptions, space func() (free, total uint64)) ServerOptions {
	o.space = func(string) (uint64, uint64, error) {
		free, total := space()
		return free, total, nil
	}
	return o
}
