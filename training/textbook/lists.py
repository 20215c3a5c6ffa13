"""Lists: sums, extremes, selections."""

from collections import Counter


def sum_list(numbers: list[int]) -> int:
    """Return the sum of the numbers.

    >>> sum_list([1, 2, 3])
    6
    """
    total = 0
    for number in numbers:
        total += number
    return total


def product(numbers: list[int]) -> int:
    """Return the product of the numbers.

    >>> product([2, 3, 4])
    24
    """
    result = 1
    for number in numbers:
        result *= number
    return result


def sum_of_squares(numbers: list[int]) -> int:
    """Return the sum of the squares of the numbers.

    >>> sum_of_squares([1, 2, 3])
    14
    """
    return sum(number**2 for number in numbers)


def sum_even(numbers: list[int]) -> int:
    """Return the sum of the even numbers.

    >>> sum_even([1, 2, 4])
    6
    """
    return sum(number for number in numbers if number % 2 == 0)


def sum_odd(numbers: list[int]) -> int:
    """Return the sum of the odd numbers.

    >>> sum_odd([1, 2, 3])
    4
    """
    return sum(number for number in numbers if number % 2 != 0)


def average(numbers: list[float]) -> float:
    """Return the average of the numbers.

    >>> average([1, 2, 3])
    2.0
    """
    if not numbers:
        return 0
    return sum(numbers) / len(numbers)


def mean(values: list[float]) -> float:
    """Return the arithmetic mean of the values.

    >>> mean([1, 2, 6])
    3.0
    """
    if not values:
        raise ValueError("mean of no values")
    return sum(values) / len(values)


def median(numbers: list[float]) -> float:
    """Return the median of the numbers.

    >>> median([3, 1, 2]), median([4, 1, 2, 3])
    (2, 2.5)
    """
    ordered = sorted(numbers)
    middle = len(ordered) // 2
    if len(ordered) % 2 == 1:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def mode(values: list[int]) -> int:
    """Return the value that occurs most often.

    >>> mode([1, 2, 2, 3])
    2
    """
    return Counter(values).most_common(1)[0][0]


def variance(numbers: list[float]) -> float:
    """Return the variance of the numbers.

    >>> variance([1, 2, 3, 4])
    1.25
    """
    mean = sum(numbers) / len(numbers)
    return sum((x - mean) ** 2 for x in numbers) / len(numbers)


def standard_deviation(numbers: list[float]) -> float:
    """Return the standard deviation of the numbers.

    >>> standard_deviation([2, 4, 4, 4, 5, 5, 7, 9])
    2.0
    """
    mean = sum(numbers) / len(numbers)
    variance = sum((x - mean) ** 2 for x in numbers) / len(numbers)
    return variance**0.5


def find_max(numbers: list[int]) -> int:
    """Return the largest number.

    >>> find_max([3, 9, 4])
    9
    """
    largest = numbers[0]
    for number in numbers[1:]:
        if number > largest:
            largest = number
    return largest


def find_min(numbers: list[int]) -> int:
    """Return the smallest number.

    >>> find_min([3, 1, 4])
    1
    """
    smallest = numbers[0]
    for number in numbers[1:]:
        if number < smallest:
            smallest = number
    return smallest


def find_largest(items: list[int]) -> int | None:
    """Return the largest item, or None if there are none.

    >>> find_largest([3, 9, 4])
    9
    """
    if not items:
        return None
    return max(items)


def min_max(numbers: list[int]) -> tuple[int, int]:
    """Return the smallest and the largest number.

    >>> min_max([3, 9, 4])
    (3, 9)
    """
    return min(numbers), max(numbers)


def second_largest(numbers: list[int]) -> int | None:
    """Return the second largest number.

    >>> second_largest([4, 9, 2, 7])
    7
    """
    unique = sorted(set(numbers))
    if len(unique) < 2:
        return None
    return unique[-2]


def second_smallest(numbers: list[int]) -> int | None:
    """Return the second smallest number.

    >>> second_smallest([4, 9, 2, 7])
    4
    """
    unique = sorted(set(numbers))
    if len(unique) < 2:
        return None
    return unique[1]


def kth_largest(numbers: list[int], k: int) -> int:
    """Return the k-th largest number.

    >>> kth_largest([3, 2, 1, 5, 6, 4], 2)
    5
    """
    return sorted(numbers, reverse=True)[k - 1]


def kth_smallest(numbers: list[int], k: int) -> int:
    """Return the k-th smallest number.

    >>> kth_smallest([7, 10, 4, 3], 3)
    7
    """
    return sorted(numbers)[k - 1]


def range_of(numbers: list[int]) -> int:
    """Return the difference between the largest and the smallest number.

    >>> range_of([3, 9, 4])
    6
    """
    return max(numbers) - min(numbers)


def running_sum(numbers: list[int]) -> list[int]:
    """Return the running sums of the numbers.

    >>> running_sum([1, 2, 3])
    [1, 3, 6]
    """
    result = []
    total = 0
    for number in numbers:
        total += number
        result.append(total)
    return result


def moving_average(numbers: list[float], window: int) -> list[float]:
    """Return the averages of each window of consecutive numbers.

    >>> moving_average([1, 2, 3, 4], 2)
    [1.5, 2.5, 3.5]
    """
    return [sum(numbers[i : i + window]) / window for i in range(len(numbers) - window + 1)]


def normalize(numbers: list[float]) -> list[float]:
    """Scale the numbers to the range from 0 to 1.

    >>> normalize([1, 2, 3])
    [0.0, 0.5, 1.0]
    """
    low, high = min(numbers), max(numbers)
    if low == high:
        return [0.0 for _ in numbers]
    return [(number - low) / (high - low) for number in numbers]


def dot_product(a: list[float], b: list[float]) -> float:
    """Return the dot product of two vectors.

    >>> dot_product([1, 2, 3], [4, 5, 6])
    32
    """
    return sum(x * y for x, y in zip(a, b))


def squares(numbers: list[int]) -> list[int]:
    """Return the squares of the numbers.

    >>> squares([1, 2, 3])
    [1, 4, 9]
    """
    return [number**2 for number in numbers]


def double(numbers: list[int]) -> list[int]:
    """Return the numbers, each multiplied by two.

    >>> double([1, 2])
    [2, 4]
    """
    return [number * 2 for number in numbers]


def filter_even(numbers: list[int]) -> list[int]:
    """Return the even numbers.

    >>> filter_even([1, 2, 3, 4])
    [2, 4]
    """
    return [number for number in numbers if number % 2 == 0]


def filter_odd(numbers: list[int]) -> list[int]:
    """Return the odd numbers.

    >>> filter_odd([1, 2, 3, 4])
    [1, 3]
    """
    return [number for number in numbers if number % 2 != 0]


def filter_positive(numbers: list[int]) -> list[int]:
    """Return the numbers greater than zero.

    >>> filter_positive([-1, 0, 2])
    [2]
    """
    return [number for number in numbers if number > 0]


def filter_long_words(words: list[str], length: int) -> list[str]:
    """Return the words longer than a length.

    >>> filter_long_words(["a", "long", "word"], 3)
    ['long', 'word']
    """
    return [word for word in words if len(word) > length]


def count_even(numbers: list[int]) -> int:
    """Return how many of the numbers are even.

    >>> count_even([1, 2, 4])
    2
    """
    return sum(1 for number in numbers if number % 2 == 0)


def count_positive(numbers: list[int]) -> int:
    """Return how many of the numbers are positive.

    >>> count_positive([1, -2, 4])
    2
    """
    return sum(1 for number in numbers if number > 0)


def count_greater(numbers: list[int], limit: int) -> int:
    """Return how many of the numbers are greater than a limit.

    >>> count_greater([1, 5, 9], 4)
    2
    """
    count = 0
    for number in numbers:
        if number > limit:
            count += 1
    return count


def even_numbers(n: int) -> list[int]:
    """Return the even numbers up to n.

    >>> even_numbers(6)
    [2, 4, 6]
    """
    return [i for i in range(1, n + 1) if i % 2 == 0]
