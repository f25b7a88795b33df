// Package touched keeps what a transaction touches: a few things mostly, and many at times.
package touched

// few is up to how many entries are looked through one by one, which costs less than a map.
const few = 8

// List holds entries in the order in which they were added, and finds them by key. Its zero value is empty. One goroutine
// uses it.
type List[K comparable, V any] struct {
	All []Entry[K, V]
	at  map[K]int // into All, once there are more than few
}

// Entry is something touched.
type Entry[K comparable, V any] struct {
	Key   K
	Value V
}

// Find returns the value of a key, valid until the next Add, or nil.
func (l *List[K, V]) Find(key K) *V {
	if len(l.All) > few {
		if i, ok := l.at[key]; ok {
			return &l.All[i].Value
		}
		return nil
	}
	for i := range l.All {
		if l.All[i].Key == key {
			return &l.All[i].Value
		}
	}
	return nil
}

// Add adds a key that Find has not found, and returns its value, valid until the next Add.
func (l *List[K, V]) Add(key K, value V) *V {
	l.All = append(l.All, Entry[K, V]{key, value})
	switch n := len(l.All); {
	case n == few+1:
		if l.at == nil {
			l.at = make(map[K]int)
		}
		for i := range l.All {
			l.at[l.All[i].Key] = i
		}
	case n > few:
		l.at[key] = n - 1
	}
	return &l.All[len(l.All)-1].Value
}

// Reset removes all entries. What a large transaction needed is not kept.
func (l *List[K, V]) Reset() {
	const usual = 4096
	if cap(l.All) > usual {
		l.All, l.at = nil, nil
		return
	}
	clear(l.All)
	l.All = l.All[:0]
	clear(l.at)
}
