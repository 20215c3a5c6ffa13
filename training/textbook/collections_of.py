"""Classes that keep things: carts, lists of tasks, counters, tools around code."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any


class Counter:
    """A counter.

    >>> c = Counter()
    >>> c.increment(); c.increment(); c.decrement()
    >>> c.value
    1
    >>> c.reset(); c.value
    0
    """

    def __init__(self) -> None:
        self.value = 0

    def increment(self) -> None:
        self.value += 1

    def decrement(self) -> None:
        self.value -= 1

    def reset(self) -> None:
        self.value = 0


class ShoppingCart:
    """A shopping cart.

    >>> c = ShoppingCart()
    >>> c.add_item("pen", 2.0, 3); c.add_item("ink", 5.0)
    >>> c.total()
    11.0
    >>> c.remove_item("ink"); c.total()
    6.0
    """

    def __init__(self) -> None:
        self.items = {}

    def add_item(self, name: str, price: float, quantity: int = 1) -> None:
        self.items[name] = (price, quantity)

    def remove_item(self, name: str) -> None:
        if name in self.items:
            del self.items[name]

    def total(self) -> float:
        return sum(price * quantity for price, quantity in self.items.values())


class Inventory:
    """How many there are of each item.

    >>> i = Inventory()
    >>> i.add("pen", 3); i.remove("pen", 1)
    >>> i.get("pen"), i.get("ink")
    (2, 0)
    """

    def __init__(self) -> None:
        self.items = {}

    def add(self, name: str, quantity: int = 1) -> None:
        self.items[name] = self.items.get(name, 0) + quantity

    def remove(self, name: str, quantity: int = 1) -> None:
        if self.items.get(name, 0) < quantity:
            raise ValueError(f"Not enough {name}")
        self.items[name] -= quantity

    def get(self, name: str) -> int:
        return self.items.get(name, 0)


class TodoList:
    """A list of tasks.

    >>> t = TodoList()
    >>> t.add("read"); t.add("write"); t.complete("read")
    >>> t.pending()
    ['write']
    """

    def __init__(self) -> None:
        self.tasks = []

    def add(self, title: str) -> None:
        self.tasks.append({"title": title, "done": False})

    def complete(self, title: str) -> None:
        for task in self.tasks:
            if task["title"] == title:
                task["done"] = True

    def pending(self) -> list[str]:
        return [task["title"] for task in self.tasks if not task["done"]]


class PhoneBook:
    """Names and their numbers.

    >>> b = PhoneBook()
    >>> b.add("Ann", "123"); b.find("Ann"), b.find("Bob")
    ('123', None)
    """

    def __init__(self) -> None:
        self.contacts = {}

    def add(self, name: str, number: str) -> None:
        self.contacts[name] = number

    def find(self, name: str) -> str | None:
        return self.contacts.get(name)

    def remove(self, name: str) -> None:
        self.contacts.pop(name, None)


class Library:
    """Books that can be borrowed.

    >>> l = Library()
    >>> l.add_book("Emma"); l.borrow("Emma"), l.borrow("Emma")
    (True, False)
    >>> l.give_back("Emma"); l.available()
    ['Emma']
    """

    def __init__(self) -> None:
        self.books = {}

    def add_book(self, title: str) -> None:
        self.books[title] = True

    def borrow(self, title: str) -> bool:
        if self.books.get(title):
            self.books[title] = False
            return True
        return False

    def give_back(self, title: str) -> None:
        if title in self.books:
            self.books[title] = True

    def available(self) -> list[str]:
        return [title for title, free in self.books.items() if free]


class EventEmitter:
    """Calls functions when something happens.

    >>> seen = []
    >>> e = EventEmitter()
    >>> e.on("save", seen.append); e.emit("save", 1)
    >>> seen
    [1]
    """

    def __init__(self) -> None:
        self.listeners = {}

    def on(self, event: str, callback: Callable[..., None]) -> None:
        self.listeners.setdefault(event, []).append(callback)

    def emit(self, event: str, *args: Any) -> None:
        for callback in self.listeners.get(event, []):
            callback(*args)


class Countdown:
    """Counts down from a number.

    >>> list(Countdown(3))
    [3, 2, 1]
    """

    def __init__(self, start: int) -> None:
        self.current = start

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.current <= 0:
            raise StopIteration
        self.current -= 1
        return self.current + 1


class Timer:
    """Measures how long a block takes.

    >>> with Timer() as t:
    ...     pass
    >>> t.elapsed >= 0
    True
    """

    def __enter__(self) -> Timer:
        self.start = time.perf_counter()
        return self

    def __exit__(self, *args: object) -> None:
        self.elapsed = time.perf_counter() - self.start


class Cache:
    """Remembers values for some seconds.

    >>> c = Cache(60)
    >>> c.set("a", 1); c.get("a"), c.get("b")
    (1, None)
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.entries = {}

    def set(self, key: str, value: Any) -> None:
        self.entries[key] = (value, time.time())

    def get(self, key: str) -> Any:
        if key not in self.entries:
            return None
        value, stored = self.entries[key]
        if time.time() - stored > self.seconds:
            del self.entries[key]
            return None
        return value


class RateLimiter:
    """Allows a number of calls in a period.

    >>> r = RateLimiter(1, 60)
    >>> r.allow(), r.allow()
    (True, False)
    """

    def __init__(self, limit: int, period: float) -> None:
        self.limit = limit
        self.period = period
        self.calls = []

    def allow(self) -> bool:
        now = time.time()
        self.calls = [call for call in self.calls if now - call < self.period]
        if len(self.calls) >= self.limit:
            return False
        self.calls.append(now)
        return True


class Config:
    """Settings with defaults.

    >>> c = Config({"a": 1})
    >>> c.set("b", 2); c.get("a"), c.get("b"), c.get("c", 3)
    (1, 2, 3)
    """

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        self.values = dict(values or {})

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def set(self, key: str, value: Any) -> None:
        self.values[key] = value


class Matrix:
    """A matrix of numbers.

    >>> m = Matrix([[1, 2], [3, 4]])
    >>> m.transpose().rows, (m + m).rows, (m * m).rows
    ([[1, 3], [2, 4]], [[2, 4], [6, 8]], [[7, 10], [15, 22]])
    """

    def __init__(self, rows: list[list[float]]) -> None:
        self.rows = rows

    def transpose(self) -> Matrix:
        return Matrix([list(column) for column in zip(*self.rows)])

    def __add__(self, other: Matrix) -> Matrix:
        return Matrix([[a + b for a, b in zip(x, y)] for x, y in zip(self.rows, other.rows)])

    def __mul__(self, other: Matrix) -> Matrix:
        columns = list(zip(*other.rows))
        return Matrix([[sum(a * b for a, b in zip(row, column)) for column in columns] for row in self.rows])

    def __getitem__(self, index: int) -> list[float]:
        return self.rows[index]
