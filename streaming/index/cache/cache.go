// Package cache keeps what was used lately within a budget of bytes.
package cache

// Cache holds entries in two generations: the younger one takes the place of the older when it holds half of the budget.
// One goroutine uses it.
type Cache[K comparable, V any] struct {
	young, old map[K]V
	bytes      int // of young
	budget     int
	size       func(V) int
	forget     func(V)
}

// New returns a cache that holds about budget bytes of entries of the given sizes. It tells forget, which may be nil, of
// each that it no longer has.
func New[K comparable, V any](budget int, size func(V) int, forget func(V)) *Cache[K, V] {
	return &Cache[K, V]{young: make(map[K]V), budget: budget, size: size, forget: forget}
}

// Get returns an entry; one of the old generation becomes young again.
func (c *Cache[K, V]) Get(key K) (V, bool) {
	v, ok := c.young[key]
	if ok {
		return v, true
	}
	if v, ok = c.old[key]; ok {
		delete(c.old, key)
		c.young[key] = v
		c.bytes += c.size(v)
	}
	return v, ok
}

// Put adds or replaces an entry.
func (c *Cache[K, V]) Put(key K, v V) {
	if replaced, ok := c.young[key]; ok {
		c.bytes -= c.size(replaced)
		c.tell(replaced)
	} else if replaced, ok := c.old[key]; ok {
		delete(c.old, key)
		c.tell(replaced)
	}
	c.young[key] = v
	c.bytes += c.size(v)
}

// Grow says that a young entry has become larger.
func (c *Cache[K, V]) Grow(size int) { c.bytes += size }

// Delete forgets an entry.
func (c *Cache[K, V]) Delete(key K) {
	if v, ok := c.young[key]; ok {
		delete(c.young, key)
		c.bytes -= c.size(v)
		c.tell(v)
	}
	if v, ok := c.old[key]; ok {
		delete(c.old, key)
		c.tell(v)
	}
}

func (c *Cache[K, V]) tell(v V) {
	if c.forget != nil {
		c.forget(v)
	}
}

// Age drops the old generation when the young one has grown enough.
func (c *Cache[K, V]) Age() {
	if c.bytes <= c.budget/2 {
		return
	}
	c.drop(c.old)
	c.old, c.young, c.bytes = c.young, make(map[K]V), 0
}

func (c *Cache[K, V]) drop(generation map[K]V) {
	if c.forget != nil {
		for _, v := range generation {
			c.forget(v)
		}
	}
}

// Clear forgets everything.
func (c *Cache[K, V]) Clear() {
	c.drop(c.young)
	c.drop(c.old)
	clear(c.young)
	clear(c.old)
	c.bytes = 0
}
