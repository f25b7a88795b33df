package store

// Cache keeps what was used lately within a budget of bytes: entries live in two generations, the younger of which
// takes the place of the older when it holds half of the budget.
type Cache[K comparable, V any] struct {
	young, old map[K]V
	bytes      int // of young
	budget     int
}

// NewCache returns a cache that holds about budget bytes.
func NewCache[K comparable, V any](budget int) *Cache[K, V] {
	return &Cache[K, V]{young: make(map[K]V), budget: budget}
}

// Get returns an entry; one of the old generation becomes young again.
func (c *Cache[K, V]) Get(key K, size func(V) int) (V, bool) {
	v, ok := c.young[key]
	if ok {
		return v, true
	}
	if v, ok = c.old[key]; ok {
		delete(c.old, key)
		c.Put(key, v, size(v))
	}
	return v, ok
}

// Put adds or replaces an entry of about size bytes.
func (c *Cache[K, V]) Put(key K, v V, size int) {
	c.young[key] = v
	c.bytes += size
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
