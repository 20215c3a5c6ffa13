"""Graphs, and functions about functions."""

from __future__ import annotations

import functools
import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Neighbours = dict[Any, list[Any]]


class Graph:
    """A graph of nodes and edges.

    >>> g = Graph()
    >>> g.add_edge("a", "b"); g.add_edge("b", "c")
    >>> g.bfs("a"), g.has_edge("b", "a")
    (['a', 'b', 'c'], True)
    """

    def __init__(self) -> None:
        self.edges = {}

    def add_node(self, node: Any) -> None:
        if node not in self.edges:
            self.edges[node] = []

    def add_edge(self, a: Any, b: Any) -> None:
        self.add_node(a)
        self.add_node(b)
        self.edges[a].append(b)
        self.edges[b].append(a)

    def has_edge(self, a: Any, b: Any) -> bool:
        return b in self.edges.get(a, [])

    def bfs(self, start: Any) -> list[Any]:
        visited = [start]
        queue = [start]
        while queue:
            node = queue.pop(0)
            for neighbor in self.edges[node]:
                if neighbor not in visited:
                    visited.append(neighbor)
                    queue.append(neighbor)
        return visited


class Trie:
    """A tree of words by their letters.

    >>> t = Trie()
    >>> t.insert("cat")
    >>> t.search("cat"), t.search("ca"), t.starts_with("ca")
    (True, False, True)
    """

    def __init__(self) -> None:
        self.root = {}

    def insert(self, word: str) -> None:
        node = self.root
        for char in word:
            node = node.setdefault(char, {})
        node["end"] = True

    def search(self, word: str) -> bool:
        node = self._find(word)
        return node is not None and "end" in node

    def starts_with(self, prefix: str) -> bool:
        return self._find(prefix) is not None

    def _find(self, prefix: str) -> dict[str, Any] | None:
        node = self.root
        for char in prefix:
            if char not in node:
                return None
            node = node[char]
        return node


class MinHeap:
    """A heap whose smallest item comes first.

    >>> h = MinHeap()
    >>> for x in (3, 1, 2): h.push(x)
    >>> h.pop(), h.pop(), len(h)
    (1, 2, 1)
    """

    def __init__(self) -> None:
        self.items = []

    def push(self, item: int) -> None:
        self.items.append(item)
        i = len(self.items) - 1
        while i > 0 and self.items[i] < self.items[(i - 1) // 2]:
            parent = (i - 1) // 2
            self.items[i], self.items[parent] = self.items[parent], self.items[i]
            i = parent

    def pop(self) -> int:
        smallest = self.items[0]
        last = self.items.pop()
        if self.items:
            self.items[0] = last
            self._sift_down(0)
        return smallest

    def _sift_down(self, i: int) -> None:
        n = len(self.items)
        while 2 * i + 1 < n:
            child = 2 * i + 1
            if child + 1 < n and self.items[child + 1] < self.items[child]:
                child += 1
            if self.items[i] <= self.items[child]:
                break
            self.items[i], self.items[child] = self.items[child], self.items[i]
            i = child

    def __len__(self) -> int:
        return len(self.items)


def bfs(graph: Neighbours, start: Any) -> list[Any]:
    """Return the nodes of a graph by breadth-first search.

    >>> bfs({"a": ["b", "c"], "b": ["d"], "c": [], "d": []}, "a")
    ['a', 'b', 'c', 'd']
    """
    visited = {start}
    order = []
    queue = deque([start])
    while queue:
        node = queue.popleft()
        order.append(node)
        for neighbor in graph[node]:
            if neighbor not in visited:
                visited.add(neighbor)
                queue.append(neighbor)
    return order


def dfs(graph: Neighbours, start: Any, visited: set[Any] | None = None) -> list[Any]:
    """Return the nodes of a graph by depth-first search.

    >>> dfs({"a": ["b", "c"], "b": ["d"], "c": [], "d": []}, "a")
    ['a', 'b', 'd', 'c']
    """
    if visited is None:
        visited = set()
    visited.add(start)
    order = [start]
    for neighbor in graph[start]:
        if neighbor not in visited:
            order += dfs(graph, neighbor, visited)
    return order


def shortest_path(graph: Neighbours, start: Any, goal: Any) -> list[Any] | None:
    """Return the shortest path between two nodes, or None.

    >>> shortest_path({"a": ["b", "c"], "b": ["d"], "c": [], "d": []}, "a", "d")
    ['a', 'b', 'd']
    """
    queue = deque([[start]])
    visited = {start}
    while queue:
        path = queue.popleft()
        if path[-1] == goal:
            return path
        for neighbor in graph[path[-1]]:
            if neighbor not in visited:
                visited.add(neighbor)
                queue.append(path + [neighbor])
    return None


def dijkstra(graph: dict[Any, dict[Any, float]], start: Any) -> dict[Any, float]:
    """Return the distance of every node from the start.

    >>> dijkstra({"a": {"b": 1, "c": 4}, "b": {"c": 2}, "c": {}}, "a")
    {'a': 0, 'b': 1, 'c': 3}
    """
    distances = {start: 0}
    queue = [(0, start)]
    while queue:
        distance, node = heapq.heappop(queue)
        if distance > distances[node]:
            continue
        for neighbor, weight in graph[node].items():
            candidate = distance + weight
            if neighbor not in distances or candidate < distances[neighbor]:
                distances[neighbor] = candidate
                heapq.heappush(queue, (candidate, neighbor))
    return distances


def topological_sort(graph: Neighbours) -> list[Any]:
    """Return the nodes so that each comes before those it leads to.

    >>> topological_sort({"a": ["b"], "b": ["c"], "c": []})
    ['a', 'b', 'c']
    """
    visited = set()
    order = []

    def visit(node: Any) -> None:
        if node in visited:
            return
        visited.add(node)
        for neighbor in graph[node]:
            visit(neighbor)
        order.append(node)

    for node in graph:
        visit(node)
    return order[::-1]


def has_cycle(graph: Neighbours) -> bool:
    """Return whether a directed graph has a cycle.

    >>> has_cycle({"a": ["b"], "b": ["a"]}), has_cycle({"a": ["b"], "b": []})
    (True, False)
    """
    done, active = set(), set()

    def visit(node: Any) -> bool:
        if node in active:
            return True
        if node in done:
            return False
        active.add(node)
        found = any(visit(neighbor) for neighbor in graph[node])
        active.remove(node)
        done.add(node)
        return found

    return any(visit(node) for node in graph)


def memoize(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that remembers its results.

    >>> memoize(abs)(-1)
    1
    """
    cache = {}

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        if args not in cache:
            cache[args] = function(*args)
        return cache[args]

    return wrapper


def timer(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that prints how long it takes.

    >>> timer(abs)(-1)  # doctest: +ELLIPSIS
    abs took ... seconds
    1
    """

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = func(*args, **kwargs)
        print(f"{func.__name__} took {time.perf_counter() - start:.4f} seconds")
        return result

    return wrapper


def retry(func: Callable[[], Any], attempts: int = 3, delay: float = 1.0) -> Any:
    """Call a function again until it does not fail.

    >>> retry(lambda: 1)
    1
    """
    for attempt in range(attempts):
        try:
            return func()
        except Exception:
            if attempt == attempts - 1:
                raise
            time.sleep(delay)


def compose(*functions: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function that applies functions from the last to the first.

    >>> compose(abs, int)("-3")
    3
    """

    def composed(value: Any) -> Any:
        for function in reversed(functions):
            value = function(value)
        return value

    return composed


def fibonacci_generator() -> Iterator[int]:
    """Yield the Fibonacci numbers.

    >>> g = fibonacci_generator()
    >>> [next(g) for _ in range(5)]
    [0, 1, 1, 2, 3]
    """
    a, b = 0, 1
    while True:
        yield a
        a, b = b, a + b


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of up to size items.

    >>> list(batched([1, 2, 3], 2))
    [[1, 2], [3]]
    """
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
