package delivery

// queue is first in, first out. Its room is used again, also when it never runs empty. The zero value is empty.
type queue[T any] struct {
	items []T // from first on
	first int
}

func (q *queue[T]) empty() bool { return q.first == len(q.items) }

// front is the next item. There must be one.
func (q *queue[T]) front() *T { return &q.items[q.first] }

func (q *queue[T]) push(item T) {
	if len(q.items) == cap(q.items) && q.first > len(q.items)/2 {
		n := copy(q.items, q.items[q.first:])
		clear(q.items[n:])
		q.items, q.first = q.items[:n], 0
	}
	q.items = append(q.items, item)
}

// pop takes the next item. There must be one.
func (q *queue[T]) pop() (item T) {
	item, *q.front() = *q.front(), item
	if q.first++; q.empty() {
		q.items, q.first = q.items[:0], 0
		if cap(q.items) > 16 { // idle queues are many
			q.items = nil
		}
	}
	return item
}
