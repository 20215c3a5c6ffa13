"""Lists: rearranging, combining, comparing."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any


def reverse_list(items: list[Any]) -> list[Any]:
    """Return the items in reverse order.

    >>> reverse_list([1, 2, 3])
    [3, 2, 1]
    """
    return items[::-1]


def reverse_in_place(items: list[Any]) -> None:
    """Reverse the items without a second list.

    >>> x = [1, 2, 3]
    >>> reverse_in_place(x)
    >>> x
    [3, 2, 1]
    """
    left, right = 0, len(items) - 1
    while left < right:
        items[left], items[right] = items[right], items[left]
        left += 1
        right -= 1


def remove_duplicates(items: list[Any]) -> list[Any]:
    """Return the items without duplicates, in their order.

    >>> remove_duplicates([1, 2, 1, 3, 2])
    [1, 2, 3]
    """
    seen = set()
    result = []
    for item in items:
        if item not in seen:
            seen.add(item)
            result.append(item)
    return result


def unique(items: list[Any]) -> list[Any]:
    """Return each item once, in the order of their first appearance.

    >>> unique([1, 2, 1])
    [1, 2]
    """
    return list(dict.fromkeys(items))


def find_duplicates(items: list[Any]) -> list[Any]:
    """Return the items that occur more than once.

    >>> find_duplicates([1, 2, 1, 3, 2])
    [1, 2]
    """
    return [item for item, count in Counter(items).items() if count > 1]


def has_duplicates(items: list[Any]) -> bool:
    """Return whether some item occurs twice.

    >>> has_duplicates([1, 2, 1])
    True
    """
    return len(items) != len(set(items))


def count_items(items: list[Any]) -> dict[Any, int]:
    """Return how often each item occurs.

    >>> count_items(["a", "b", "a"])
    {'a': 2, 'b': 1}
    """
    counts = {}
    for item in items:
        counts[item] = counts.get(item, 0) + 1
    return counts


def most_common(items: list[Any]) -> Any:
    """Return the item that occurs most often.

    >>> most_common([1, 2, 2, 3])
    2
    """
    counts = {}
    for item in items:
        counts[item] = counts.get(item, 0) + 1
    return max(counts, key=counts.get)


def most_frequent(items: list[Any]) -> Any:
    """Return the most frequent item.

    >>> most_frequent([1, 2, 2, 3])
    2
    """
    return max(set(items), key=items.count)


def top_n(items: list[Any], n: int) -> list[Any]:
    """Return the n most common items.

    >>> top_n(["a", "b", "a", "c", "b", "a"], 2)
    ['a', 'b']
    """
    return [item for item, _ in Counter(items).most_common(n)]


def majority_element(items: list[Any]) -> Any:
    """Return the item that makes more than half of the list.

    >>> majority_element([2, 2, 1, 2])
    2
    """
    candidate, count = None, 0
    for item in items:
        if count == 0:
            candidate = item
        count += 1 if item == candidate else -1
    return candidate


def flatten(nested: list[Any]) -> list[Any]:
    """Return a flat list of the items in nested lists.

    >>> flatten([1, [2, [3, 4]], 5])
    [1, 2, 3, 4, 5]
    """
    result = []
    for item in nested:
        if isinstance(item, list):
            result.extend(flatten(item))
        else:
            result.append(item)
    return result


def flatten__once(lists: list[list[Any]]) -> list[Any]:
    """Join a list of lists into one list.

    >>> flatten__once([[1, 2], [3]])
    [1, 2, 3]
    """
    return [item for sublist in lists for item in sublist]


def chunk(items: list[Any], size: int) -> list[list[Any]]:
    """Split a list into pieces of a size.

    >>> chunk([1, 2, 3, 4, 5], 2)
    [[1, 2], [3, 4], [5]]
    """
    return [items[i : i + size] for i in range(0, len(items), size)]


def rotate(items: list[Any], k: int) -> list[Any]:
    """Return the items rotated to the right by k places.

    >>> rotate([1, 2, 3, 4], 1)
    [4, 1, 2, 3]
    """
    if not items:
        return []
    k %= len(items)
    return items[-k:] + items[:-k]


def rotate_left(items: list[Any], k: int) -> list[Any]:
    """Return the items rotated to the left by k places.

    >>> rotate_left([1, 2, 3, 4], 1)
    [2, 3, 4, 1]
    """
    if not items:
        return []
    k %= len(items)
    return items[k:] + items[:k]


def swap(items: list[Any], i: int, j: int) -> None:
    """Exchange two items of a list.

    >>> x = [1, 2, 3]
    >>> swap(x, 0, 2)
    >>> x
    [3, 2, 1]
    """
    items[i], items[j] = items[j], items[i]


def intersection(a: list[Any], b: list[Any]) -> list[Any]:
    """Return the items that are in both lists.

    >>> intersection([1, 2, 3], [2, 3, 4])
    [2, 3]
    """
    return [item for item in a if item in b]


def common_elements(a: list[Any], b: list[Any]) -> list[Any]:
    """Return the elements that two lists share.

    >>> common_elements([1, 2, 3], [2, 3, 4])
    [2, 3]
    """
    return sorted(set(a) & set(b))


def union(a: list[Any], b: list[Any]) -> list[Any]:
    """Return the items that are in one list or the other, each once.

    >>> union([1, 2], [2, 3])
    [1, 2, 3]
    """
    return list(dict.fromkeys(a + b))


def difference(a: list[Any], b: list[Any]) -> list[Any]:
    """Return the items of the first list that are not in the second.

    >>> difference([1, 2, 3], [2])
    [1, 3]
    """
    return [item for item in a if item not in b]


def merge_sorted(a: list[int], b: list[int]) -> list[int]:
    """Merge two sorted lists into one sorted list.

    >>> merge_sorted([1, 4], [2, 3, 5])
    [1, 2, 3, 4, 5]
    """
    result = []
    i = j = 0
    while i < len(a) and j < len(b):
        if a[i] <= b[j]:
            result.append(a[i])
            i += 1
        else:
            result.append(b[j])
            j += 1
    result.extend(a[i:])
    result.extend(b[j:])
    return result


def interleave(a: list[Any], b: list[Any]) -> list[Any]:
    """Return the items of two lists in turn.

    >>> interleave([1, 3], [2, 4])
    [1, 2, 3, 4]
    """
    result = []
    for x, y in zip(a, b):
        result.append(x)
        result.append(y)
    return result


def is_sorted(items: list[int]) -> bool:
    """Return whether the items are in ascending order.

    >>> is_sorted([1, 2, 2, 5]), is_sorted([2, 1])
    (True, False)
    """
    return all(a <= b for a, b in zip(items, items[1:]))


def is_sorted__loop(items: list[int]) -> bool:
    """Check whether a list is sorted.

    >>> is_sorted__loop([1, 2, 3]), is_sorted__loop([2, 1])
    (True, False)
    """
    for i in range(len(items) - 1):
        if items[i] > items[i + 1]:
            return False
    return True


def all_equal(items: list[Any]) -> bool:
    """Return whether all items are equal.

    >>> all_equal([1, 1, 1])
    True
    """
    return len(set(items)) <= 1


def is_empty(items: list[Any]) -> bool:
    """Return whether there are no items.

    >>> is_empty([])
    True
    """
    return len(items) == 0


def first(items: list[Any], default: Any = None) -> Any:
    """Return the first item, or a default if there is none.

    >>> first([]), first([7, 8])
    (None, 7)
    """
    return items[0] if items else default


def last(items: list[Any], default: Any = None) -> Any:
    """Return the last item, or a default if there is none.

    >>> last([7, 8])
    8
    """
    return items[-1] if items else default


def move_zeros(numbers: list[int]) -> list[int]:
    """Return the numbers with all zeros at the end.

    >>> move_zeros([0, 1, 0, 3])
    [1, 3, 0, 0]
    """
    nonzero = [number for number in numbers if number != 0]
    return nonzero + [0] * (len(numbers) - len(nonzero))


def partition(items: list[Any], predicate: Callable[[Any], bool]) -> tuple[list[Any], list[Any]]:
    """Split the items into those for which a predicate holds and the others.

    >>> partition([1, 2, 3], lambda x: x > 1)
    ([2, 3], [1])
    """
    yes, no = [], []
    for item in items:
        if predicate(item):
            yes.append(item)
        else:
            no.append(item)
    return yes, no


def group_by(items: list[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    """Group the items by what a function says of each.

    >>> group_by(["a", "bb", "c"], len)
    {1: ['a', 'c'], 2: ['bb']}
    """
    groups = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    """Return each item with the one after it.

    >>> pairs([1, 2, 3])
    [(1, 2), (2, 3)]
    """
    return list(zip(items, items[1:]))


def take(items: list[Any], n: int) -> list[Any]:
    """Return the first n items.

    >>> take([1, 2, 3], 2)
    [1, 2]
    """
    return items[:n]


def shuffle(items: list[Any]) -> list[Any]:
    """Return the items in random order.

    >>> sorted(shuffle([3, 1, 2]))
    [1, 2, 3]
    """
    result = items[:]
    for i in range(len(result) - 1, 0, -1):
        j = random.randint(0, i)
        result[i], result[j] = result[j], result[i]
    return result
