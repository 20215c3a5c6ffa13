"""Stacks, queues, lists, caches."""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any


class Stack:
    """A stack: last in, first out.

    >>> s = Stack()
    >>> s.push(1); s.push(2)
    >>> s.pop(), s.peek(), s.size(), s.is_empty()
    (2, 1, 1, False)
    """

    def __init__(self) -> None:
        self.items = []

    def push(self, item: Any) -> None:
        self.items.append(item)

    def pop(self) -> Any:
        if self.is_empty():
            raise IndexError("pop from empty stack")
        return self.items.pop()

    def peek(self) -> Any:
        if self.is_empty():
            raise IndexError("peek at empty stack")
        return self.items[-1]

    def is_empty(self) -> bool:
        return len(self.items) == 0

    def size(self) -> int:
        return len(self.items)


class Stack__short:
    """A stack of items.

    >>> s = Stack__short()
    >>> s.push(1); s.push(2)
    >>> s.pop(), s.peek(), len(s), s.is_empty()
    (2, 1, 1, False)
    """

    def __init__(self) -> None:
        self.items = []

    def push(self, item: Any) -> None:
        self.items.append(item)

    def pop(self) -> Any:
        return self.items.pop()

    def peek(self) -> Any:
        return self.items[-1]

    def is_empty(self) -> bool:
        return not self.items

    def __len__(self) -> int:
        return len(self.items)


class Queue:
    """A queue: first in, first out.

    >>> q = Queue()
    >>> q.enqueue(1); q.enqueue(2)
    >>> q.dequeue(), q.peek(), q.size(), q.is_empty()
    (1, 2, 1, False)
    """

    def __init__(self) -> None:
        self.items = []

    def enqueue(self, item: Any) -> None:
        self.items.append(item)

    def dequeue(self) -> Any:
        if self.is_empty():
            raise IndexError("dequeue from empty queue")
        return self.items.pop(0)

    def peek(self) -> Any:
        if self.is_empty():
            raise IndexError("peek at empty queue")
        return self.items[0]

    def is_empty(self) -> bool:
        return len(self.items) == 0

    def size(self) -> int:
        return len(self.items)


class Queue__deque:
    """A queue of items.

    >>> q = Queue__deque()
    >>> q.enqueue(1); q.enqueue(2)
    >>> q.dequeue(), len(q), q.is_empty()
    (1, 1, False)
    """

    def __init__(self) -> None:
        self.items = deque()

    def enqueue(self, item: Any) -> None:
        self.items.append(item)

    def dequeue(self) -> Any:
        return self.items.popleft()

    def is_empty(self) -> bool:
        return not self.items

    def __len__(self) -> int:
        return len(self.items)


class MinStack:
    """A stack that knows its smallest item.

    >>> s = MinStack()
    >>> s.push(2); s.push(1); s.push(3)
    >>> s.minimum(), s.pop(), s.top()
    (1, 3, 1)
    """

    def __init__(self) -> None:
        self.items = []
        self.minimums = []

    def push(self, item: int) -> None:
        self.items.append(item)
        if not self.minimums or item <= self.minimums[-1]:
            self.minimums.append(item)

    def pop(self) -> int:
        item = self.items.pop()
        if item == self.minimums[-1]:
            self.minimums.pop()
        return item

    def top(self) -> int:
        return self.items[-1]

    def minimum(self) -> int:
        return self.minimums[-1]


class PriorityQueue:
    """A queue that gives the item of the lowest priority number first.

    >>> q = PriorityQueue()
    >>> q.push("b", 2); q.push("a", 1)
    >>> q.pop(), q.is_empty()
    ('a', False)
    """

    def __init__(self) -> None:
        self.heap = []
        self.count = 0

    def push(self, item: Any, priority: float) -> None:
        heapq.heappush(self.heap, (priority, self.count, item))
        self.count += 1

    def pop(self) -> Any:
        return heapq.heappop(self.heap)[-1]

    def is_empty(self) -> bool:
        return len(self.heap) == 0


class Deque:
    """A queue with two ends.

    >>> d = Deque()
    >>> d.add_front(1); d.add_rear(2)
    >>> d.remove_front(), d.remove_rear(), d.is_empty()
    (1, 2, True)
    """

    def __init__(self) -> None:
        self.items = []

    def add_front(self, item: Any) -> None:
        self.items.insert(0, item)

    def add_rear(self, item: Any) -> None:
        self.items.append(item)

    def remove_front(self) -> Any:
        return self.items.pop(0)

    def remove_rear(self) -> Any:
        return self.items.pop()

    def is_empty(self) -> bool:
        return len(self.items) == 0


class CircularBuffer:
    """The last items of a stream.

    >>> b = CircularBuffer(2)
    >>> b.append(1); b.append(2); b.append(3)
    >>> b.to_list()
    [2, 3]
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.items = []

    def append(self, item: Any) -> None:
        if len(self.items) == self.capacity:
            self.items.pop(0)
        self.items.append(item)

    def to_list(self) -> list[Any]:
        return list(self.items)


class Node:
    """A node of a linked list.

    >>> Node(1).next is None
    True
    """

    def __init__(self, data: Any) -> None:
        self.data = data
        self.next = None


class LinkedList:
    """A singly linked list.

    >>> l = LinkedList()
    >>> l.append(1); l.append(2); l.prepend(0)
    >>> l.remove(1)
    >>> l.to_list(), len(l)
    ([0, 2], 2)
    """

    def __init__(self) -> None:
        self.head = None

    def append(self, data: Any) -> None:
        node = Node(data)
        if self.head is None:
            self.head = node
            return
        current = self.head
        while current.next:
            current = current.next
        current.next = node

    def prepend(self, data: Any) -> None:
        node = Node(data)
        node.next = self.head
        self.head = node

    def remove(self, data: Any) -> None:
        previous, current = None, self.head
        while current:
            if current.data == data:
                if previous:
                    previous.next = current.next
                else:
                    self.head = current.next
                return
            previous, current = current, current.next

    def reverse(self) -> None:
        previous, current = None, self.head
        while current:
            current.next, previous, current = previous, current, current.next
        self.head = previous

    def to_list(self) -> list[Any]:
        items = []
        current = self.head
        while current:
            items.append(current.data)
            current = current.next
        return items

    def __len__(self) -> int:
        count = 0
        current = self.head
        while current:
            count += 1
            current = current.next
        return count

    def __iter__(self) -> Iterator[Any]:
        current = self.head
        while current:
            yield current.data
            current = current.next


class LRUCache:
    """A cache that forgets what was not used for longest.

    >>> c = LRUCache(2)
    >>> c.put("a", 1); c.put("b", 2)
    >>> c.get("a")
    1
    >>> c.put("c", 3)
    >>> c.get("b") is None
    True
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.cache = OrderedDict()

    def get(self, key: Any) -> Any:
        if key not in self.cache:
            return None
        self.cache.move_to_end(key)
        return self.cache[key]

    def put(self, key: Any, value: Any) -> None:
        if key in self.cache:
            self.cache.move_to_end(key)
        self.cache[key] = value
        if len(self.cache) > self.capacity:
            self.cache.popitem(last=False)


class LRUCache__dict:
    """A cache of a capacity that drops the least recently used key.

    >>> c = LRUCache__dict(2)
    >>> c.put("a", 1); c.put("b", 2)
    >>> c.get("a")
    1
    >>> c.put("c", 3)
    >>> c.get("b") is None
    True
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.cache = {}

    def get(self, key: Any) -> Any:
        if key not in self.cache:
            return None
        value = self.cache.pop(key)
        self.cache[key] = value
        return value

    def put(self, key: Any, value: Any) -> None:
        if key in self.cache:
            self.cache.pop(key)
        elif len(self.cache) >= self.capacity:
            oldest = next(iter(self.cache))
            self.cache.pop(oldest)
        self.cache[key] = value


class PriorityQueue__sorted:
    """A queue in order of priority.

    >>> q = PriorityQueue__sorted()
    >>> q.push("b", 2); q.push("a", 1)
    >>> q.pop(), q.is_empty()
    ('a', False)
    """

    def __init__(self) -> None:
        self.items = []

    def push(self, item: Any, priority: float) -> None:
        self.items.append((priority, item))
        self.items.sort(key=lambda entry: entry[0])

    def pop(self) -> Any:
        return self.items.pop(0)[1]

    def is_empty(self) -> bool:
        return len(self.items) == 0


class HashTable:
    """A table of keys and values with chains.

    >>> t = HashTable()
    >>> t.set("a", 1); t.set("a", 2)
    >>> t.get("a"), t.get("b")
    (2, None)
    """

    def __init__(self, size: int = 16) -> None:
        self.size = size
        self.buckets = [[] for _ in range(size)]

    def _bucket(self, key: Any) -> list[tuple[Any, Any]]:
        return self.buckets[hash(key) % self.size]

    def set(self, key: Any, value: Any) -> None:
        bucket = self._bucket(key)
        for i, (k, _) in enumerate(bucket):
            if k == key:
                bucket[i] = (key, value)
                return
        bucket.append((key, value))

    def get(self, key: Any, default: Any = None) -> Any:
        for k, v in self._bucket(key):
            if k == key:
                return v
        return default


class UnionFind:
    """Sets that can be joined.

    >>> u = UnionFind(3)
    >>> u.union(0, 1)
    >>> u.connected(0, 1), u.connected(0, 2)
    (True, False)
    """

    def __init__(self, n: int) -> None:
        self.parent = list(range(n))

    def find(self, x: int) -> int:
        while self.parent[x] != x:
            self.parent[x] = self.parent[self.parent[x]]
            x = self.parent[x]
        return x

    def union(self, a: int, b: int) -> None:
        self.parent[self.find(a)] = self.find(b)

    def connected(self, a: int, b: int) -> bool:
        return self.find(a) == self.find(b)
