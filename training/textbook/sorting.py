"""Searching and sorting."""

import random
from typing import Any


def linear_search(items: list[Any], target: Any) -> int:
    """Return the index of the target, or -1 if it is not there.

    >>> linear_search([4, 2, 7], 7)
    2
    """
    for i, item in enumerate(items):
        if item == target:
            return i
    return -1


def linear_search__range(items: list[Any], target: Any) -> int:
    """Find the index of a target in a list.

    >>> linear_search__range([4, 2, 7], 5)
    -1
    """
    for i in range(len(items)):
        if items[i] == target:
            return i
    return -1


def binary_search(items: list[int], target: int) -> int:
    """Return the index of the target in sorted items, or -1 if it is not there.

    >>> binary_search([1, 3, 5, 8], 5)
    2
    """
    low, high = 0, len(items) - 1
    while low <= high:
        middle = (low + high) // 2
        if items[middle] == target:
            return middle
        if items[middle] < target:
            low = middle + 1
        else:
            high = middle - 1
    return -1


def binary_search__elif(items: list[int], target: int) -> int:
    """Search a sorted list for a target.

    >>> binary_search__elif([1, 3, 5, 8], 4)
    -1
    """
    left = 0
    right = len(items) - 1
    while left <= right:
        mid = (left + right) // 2
        if items[mid] == target:
            return mid
        elif items[mid] < target:
            left = mid + 1
        else:
            right = mid - 1
    return -1


def binary_search_recursive(items: list[int], target: int, low: int, high: int) -> int:
    """Search sorted items between two indices for a target.

    >>> binary_search_recursive([1, 3, 5, 8], 8, 0, 3)
    3
    """
    if low > high:
        return -1
    middle = (low + high) // 2
    if items[middle] == target:
        return middle
    if items[middle] < target:
        return binary_search_recursive(items, target, middle + 1, high)
    return binary_search_recursive(items, target, low, middle - 1)


def insertion_point(items: list[int], value: int) -> int:
    """Return where a value must be inserted to keep the items sorted.

    >>> insertion_point([1, 3, 5], 4)
    2
    """
    low, high = 0, len(items)
    while low < high:
        middle = (low + high) // 2
        if items[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


def bubble_sort(items: list[int]) -> list[int]:
    """Sort the items by exchanging neighbours.

    >>> bubble_sort([5, 2, 9, 1])
    [1, 2, 5, 9]
    """
    n = len(items)
    for i in range(n):
        for j in range(n - i - 1):
            if items[j] > items[j + 1]:
                items[j], items[j + 1] = items[j + 1], items[j]
    return items


def bubble_sort__end(items: list[int]) -> list[int]:
    """Sort the items with bubble sort: the largest of the rest goes to its end each time.

    >>> bubble_sort__end([5, 2, 9, 1])
    [1, 2, 5, 9]
    """
    for end in range(len(items) - 1, 0, -1):
        for i in range(end):
            if items[i] > items[i + 1]:
                items[i], items[i + 1] = items[i + 1], items[i]
    return items


def bubble_sort__swapped(items: list[int]) -> list[int]:
    """Sort a list with bubble sort, and stop once nothing was swapped.

    >>> bubble_sort__swapped([5, 2, 9, 1])
    [1, 2, 5, 9]
    """
    n = len(items)
    for i in range(n):
        swapped = False
        for j in range(n - i - 1):
            if items[j] > items[j + 1]:
                items[j], items[j + 1] = items[j + 1], items[j]
                swapped = True
        if not swapped:
            break
    return items


def selection_sort(items: list[int]) -> list[int]:
    """Sort the items by selecting the smallest of the rest each time.

    >>> selection_sort([5, 2, 9, 1])
    [1, 2, 5, 9]
    """
    for i in range(len(items)):
        smallest = i
        for j in range(i + 1, len(items)):
            if items[j] < items[smallest]:
                smallest = j
        items[i], items[smallest] = items[smallest], items[i]
    return items


def insertion_sort(items: list[int]) -> list[int]:
    """Sort the items by inserting each into the sorted ones before it.

    >>> insertion_sort([5, 2, 9, 1])
    [1, 2, 5, 9]
    """
    for i in range(1, len(items)):
        key = items[i]
        j = i - 1
        while j >= 0 and items[j] > key:
            items[j + 1] = items[j]
            j -= 1
        items[j + 1] = key
    return items


def merge_sort(items: list[int]) -> list[int]:
    """Sort the items by sorting both halves and merging them.

    >>> merge_sort([5, 2, 9, 1])
    [1, 2, 5, 9]
    """
    if len(items) <= 1:
        return items
    middle = len(items) // 2
    left = merge_sort(items[:middle])
    right = merge_sort(items[middle:])
    result = []
    i = j = 0
    while i < len(left) and j < len(right):
        if left[i] <= right[j]:
            result.append(left[i])
            i += 1
        else:
            result.append(right[j])
            j += 1
    result.extend(left[i:])
    result.extend(right[j:])
    return result


def quick_sort(items: list[int]) -> list[int]:
    """Sort the items around a pivot.

    >>> quick_sort([5, 2, 9, 1, 5])
    [1, 2, 5, 5, 9]
    """
    if len(items) <= 1:
        return items
    pivot = items[len(items) // 2]
    left = [x for x in items if x < pivot]
    middle = [x for x in items if x == pivot]
    right = [x for x in items if x > pivot]
    return quick_sort(left) + middle + quick_sort(right)


def heap_sort(items: list[int]) -> list[int]:
    """Sort the items with a heap.

    >>> heap_sort([5, 2, 9, 1])
    [1, 2, 5, 9]
    """
    n = len(items)
    for i in range(n // 2 - 1, -1, -1):
        sift_down(items, i, n)
    for end in range(n - 1, 0, -1):
        items[0], items[end] = items[end], items[0]
        sift_down(items, 0, end)
    return items


def sift_down(items: list[int], start: int, end: int) -> None:
    """Move an item down in a heap until its children are smaller.

    >>> x = [1, 9, 5]
    >>> sift_down(x, 0, 3)
    >>> x
    [9, 1, 5]
    """
    root = start
    while 2 * root + 1 < end:
        child = 2 * root + 1
        if child + 1 < end and items[child] < items[child + 1]:
            child += 1
        if items[root] >= items[child]:
            return
        items[root], items[child] = items[child], items[root]
        root = child


def counting_sort(items: list[int]) -> list[int]:
    """Sort whole numbers that are not negative by counting them.

    >>> counting_sort([3, 1, 2, 1])
    [1, 1, 2, 3]
    """
    if not items:
        return []
    counts = [0] * (max(items) + 1)
    for item in items:
        counts[item] += 1
    result = []
    for value, count in enumerate(counts):
        result.extend([value] * count)
    return result


def shell_sort(items: list[int]) -> list[int]:
    """Sort the items with shell sort.

    >>> shell_sort([5, 2, 9, 1])
    [1, 2, 5, 9]
    """
    gap = len(items) // 2
    while gap > 0:
        for i in range(gap, len(items)):
            value = items[i]
            j = i
            while j >= gap and items[j - gap] > value:
                items[j] = items[j - gap]
                j -= gap
            items[j] = value
        gap //= 2
    return items


def quick_select(items: list[int], k: int) -> int:
    """Return the item that would be at index k if the items were sorted.

    >>> quick_select([5, 2, 9, 1], 1)
    2
    """
    pivot = random.choice(items)
    smaller = [x for x in items if x < pivot]
    equal = [x for x in items if x == pivot]
    larger = [x for x in items if x > pivot]
    if k < len(smaller):
        return quick_select(smaller, k)
    if k < len(smaller) + len(equal):
        return pivot
    return quick_select(larger, k - len(smaller) - len(equal))


def sort_by_length(words: list[str]) -> list[str]:
    """Return the words sorted by their length.

    >>> sort_by_length(["ccc", "a", "bb"])
    ['a', 'bb', 'ccc']
    """
    return sorted(words, key=len)


def sort_descending(numbers: list[int]) -> list[int]:
    """Return the numbers sorted from the largest to the smallest.

    >>> sort_descending([2, 3, 1])
    [3, 2, 1]
    """
    return sorted(numbers, reverse=True)


def sort_dicts(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Return dictionaries sorted by the value of a key.

    >>> sort_dicts([{"a": 2}, {"a": 1}], "a")
    [{'a': 1}, {'a': 2}]
    """
    return sorted(rows, key=lambda row: row[key])


def find_index(items: list[Any], target: Any) -> int:
    """Return the first index of the target, or -1.

    >>> find_index(["a", "b"], "b")
    1
    """
    try:
        return items.index(target)
    except ValueError:
        return -1


def find_all(items: list[Any], target: Any) -> list[int]:
    """Return all indices of the target.

    >>> find_all([1, 2, 1], 1)
    [0, 2]
    """
    return [i for i, item in enumerate(items) if item == target]


def two_sum(numbers: list[int], target: int) -> tuple[int, int] | None:
    """Return the indices of two numbers that add up to the target.

    >>> two_sum([2, 7, 11, 15], 9)
    (0, 1)
    """
    seen = {}
    for i, number in enumerate(numbers):
        if target - number in seen:
            return seen[target - number], i
        seen[number] = i
    return None


def max_subarray(numbers: list[int]) -> int:
    """Return the largest sum of consecutive numbers.

    >>> max_subarray([-2, 1, -3, 4, -1, 2, 1, -5, 4])
    6
    """
    best = current = numbers[0]
    for number in numbers[1:]:
        current = max(number, current + number)
        best = max(best, current)
    return best


def missing_number(numbers: list[int]) -> int:
    """Return the number that is missing from 0 to n.

    >>> missing_number([3, 0, 1])
    2
    """
    n = len(numbers)
    return n * (n + 1) // 2 - sum(numbers)


def argmax(values: list[float]) -> int:
    """Return the index of the largest value.

    >>> argmax([1, 9, 3])
    1
    """
    best = 0
    for i in range(1, len(values)):
        if values[i] > values[best]:
            best = i
    return best


def contains(items: list[Any], target: Any) -> bool:
    """Return whether the target is among the items.

    >>> contains([1, 2], 2)
    True
    """
    for item in items:
        if item == target:
            return True
    return False
