package auth

import (
	"container/list"
	"time"
)

// lru is a map of bounded size whose entries are forgotten a certain time
// after they were put, and the longest unused first when it is full. Its
// owner guards it.
type lru[K comparable, V any] struct {
	size    int
	ttl     time.Duration
	entries map[K]*list.Element
	order   *list.List // the last used in front
}

type lruEntry[K comparable, V any] struct {
	key     K
	value   V
	expires time.Time
}

func newLRU[K comparable, V any](size int, ttl time.Duration) *lru[K, V] {
	return &lru[K, V]{size: size, ttl: ttl, entries: make(map[K]*list.Element), order: list.New()}
}

// get returns the value and marks it as used, which does not prolong its life.
func (l *lru[K, V]) get(key K, now time.Time) (V, bool) {
	var none V
	e, ok := l.entries[key]
	if !ok {
		return none, false
	}
	entry := e.Value.(*lruEntry[K, V])
	if !now.Before(entry.expires) {
		l.remove(key)
		return none, false
	}
	l.order.MoveToFront(e)
	return entry.value, true
}

// put sets the value, whose life begins anew.
func (l *lru[K, V]) put(key K, value V, now time.Time) {
	if e, ok := l.entries[key]; ok {
		entry := e.Value.(*lruEntry[K, V])
		entry.value, entry.expires = value, now.Add(l.ttl)
		l.order.MoveToFront(e)
		return
	}
	l.entries[key] = l.order.PushFront(&lruEntry[K, V]{key, value, now.Add(l.ttl)})
	if len(l.entries) > l.size {
		l.remove(l.order.Back().Value.(*lruEntry[K, V]).key)
	}
}

func (l *lru[K, V]) remove(key K) {
	if e, ok := l.entries[key]; ok {
		l.order.Remove(e)
		delete(l.entries, key)
	}
}
