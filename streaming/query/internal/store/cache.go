package store

// Cache keeps what was used lately within a budget of bytes: entries live in two generations, the younger of which
// takes the place of the older when it holds half of the budget.
type Cache[K comparable, V any] struct {
	young, old map[K]V
	bytes      int // of young
	budget     int
	size       func(V) int
}

// NewCache returns a cache that holds about budget bytes of entries of the given sizes.
func NewCache[K comparable, V any](budget int, size func(V) int) *Cache[K, V] {
	return &Cache[K, V]{young: make(map[K]V), budget: budget, size: size}
}

// Get returns an entry; one of the old generation becomes young again.
func (c *Cache[K, V]) Get(key K) (V, bool) {
	v, ok := c.young[key]
	if ok {
		return v, true
	}
	if v, ok = c.old[key]; ok {
		delete(c.old, key)
		c.Put(key, v)
	}
	return v, ok
}

// Put adds or replaces an entry. A replaced one that is still in the old generation is hidden by the young one.
func (c *Cache[K, V]) Put(key K, v V) {
	if replaced, ok := c.young[key]; ok {
		c.bytes -= c.size(replaced)
	}
	c.young[key] = v
	c.bytes += c.size(v)
}

// Grow says that a young entry has become larger.
func (c *Cache[K, V]) Grow(size int) { c.bytes += size }

// Delete forgets an entry.
func (c *Cache[K, V]) Delete(key K) {
	delete(c.young, key)
	delete(c.old, key)
}

// Age drops the old generation when the young one has grown enough.
func (c *Cache[K, V]) Age() {
	if c.bytes > c.budget/2 {
		c.old, c.young, c.bytes = c.young, make(map[K]V), 0
	}
}

// Clear forgets everything.
func (c *Cache[K, V]) Clear() {
	clear(c.young)
	clear(c.old)
	c.bytes = 0
}
