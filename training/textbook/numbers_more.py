"""More about numbers: sequences, roots, chance, bits."""

import math
import random


def square(x: float) -> float:
    """Return the square of x.

    >>> square(3)
    9
    """
    return x * x


def cube(x: float) -> float:
    """Return the cube of x.

    >>> cube(3)
    27
    """
    return x**3


def square_root(x: float) -> float:
    """Return the square root of x by Newton's method.

    >>> round(square_root(2), 6)
    1.414214
    """
    if x < 0:
        raise ValueError("x must not be negative")
    if x == 0:
        return 0.0
    guess = x
    while abs(guess * guess - x) > 1e-10 * x:
        guess = (guess + x / guess) / 2
    return guess


def integer_square_root(n: int) -> int:
    """Return the largest integer whose square is at most n.

    >>> integer_square_root(17)
    4
    """
    low, high = 0, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        if middle * middle <= n:
            low = middle
        else:
            high = middle
    return low


def absolute(x: float) -> float:
    """Return the absolute value of x.

    >>> absolute(-3)
    3
    """
    return -x if x < 0 else x


def sign(x: float) -> int:
    """Return 1, 0 or -1, as x is positive, zero or negative.

    >>> sign(-2.5)
    -1
    """
    if x > 0:
        return 1
    if x < 0:
        return -1
    return 0


def clamp(value: float, low: float, high: float) -> float:
    """Return value limited to the range from low to high.

    >>> clamp(12, 0, 10)
    10
    """
    return max(low, min(value, high))


def add(a: float, b: float) -> float:
    """Return the sum of a and b.

    >>> add(2, 3)
    5
    """
    return a + b


def subtract(a: float, b: float) -> float:
    """Return the difference of a and b.

    >>> subtract(5, 3)
    2
    """
    return a - b


def multiply(a: float, b: float) -> float:
    """Return the product of a and b.

    >>> multiply(2, 3)
    6
    """
    return a * b


def divide(a: float, b: float) -> float:
    """Return a divided by b.

    >>> divide(6, 3)
    2.0
    """
    if b == 0:
        raise ValueError("Cannot divide by zero")
    return a / b


def safe_divide(a: float, b: float, default: float = 0.0) -> float:
    """Return a divided by b, or a default if b is zero.

    >>> safe_divide(1, 0)
    0.0
    """
    try:
        return a / b
    except ZeroDivisionError:
        return default


def calculate(a: float, operator: str, b: float) -> float:
    """Return the result of an arithmetic operation given by its sign.

    >>> calculate(6, "*", 7)
    42
    """
    if operator == "+":
        return a + b
    if operator == "-":
        return a - b
    if operator == "*":
        return a * b
    if operator == "/":
        return a / b
    raise ValueError(f"Unknown operator: {operator}")


def max_of_three(a: float, b: float, c: float) -> float:
    """Return the largest of three numbers.

    >>> max_of_three(3, 9, 4)
    9
    """
    return max(a, b, c)


def sum_to_n(n: int) -> int:
    """Return the sum of the numbers from 1 to n.

    >>> sum_to_n(100)
    5050
    """
    return n * (n + 1) // 2


def sum_of_squares_to_n(n: int) -> int:
    """Return the sum of the squares of the numbers from 1 to n.

    >>> sum_of_squares_to_n(3)
    14
    """
    return sum(i * i for i in range(1, n + 1))


def sum_of_multiples(limit: int) -> int:
    """Return the sum of all multiples of 3 or 5 below limit.

    >>> sum_of_multiples(10)
    23
    """
    return sum(i for i in range(limit) if i % 3 == 0 or i % 5 == 0)


def fizz_buzz(n: int) -> list[str]:
    """Return the numbers from 1 to n with Fizz for multiples of three and Buzz for multiples of five.

    >>> fizz_buzz(5)
    ['1', '2', 'Fizz', '4', 'Buzz']
    """
    result = []
    for i in range(1, n + 1):
        if i % 15 == 0:
            result.append("FizzBuzz")
        elif i % 3 == 0:
            result.append("Fizz")
        elif i % 5 == 0:
            result.append("Buzz")
        else:
            result.append(str(i))
    return result


def collatz(n: int) -> list[int]:
    """Return the Collatz sequence that starts with n.

    >>> collatz(6)
    [6, 3, 10, 5, 16, 8, 4, 2, 1]
    """
    sequence = [n]
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        sequence.append(n)
    return sequence


def collatz_steps(n: int) -> int:
    """Return how many Collatz steps lead from n to 1.

    >>> collatz_steps(6)
    8
    """
    steps = 0
    while n != 1:
        if n % 2 == 0:
            n //= 2
        else:
            n = 3 * n + 1
        steps += 1
    return steps


def pascal_triangle(n: int) -> list[list[int]]:
    """Return the first n rows of Pascal's triangle.

    >>> pascal_triangle(4)
    [[1], [1, 1], [1, 2, 1], [1, 3, 3, 1]]
    """
    rows = []
    row = [1]
    for _ in range(n):
        rows.append(row)
        row = [1] + [a + b for a, b in zip(row, row[1:])] + [1]
    return rows


def binomial(n: int, k: int) -> int:
    """Return the number of ways to choose k of n things.

    >>> binomial(5, 2)
    10
    """
    if k < 0 or k > n:
        return 0
    result = 1
    for i in range(min(k, n - k)):
        result = result * (n - i) // (i + 1)
    return result


def triangular_number(n: int) -> int:
    """Return the n-th triangular number.

    >>> triangular_number(4)
    10
    """
    return n * (n + 1) // 2


def multiplication_table(n: int) -> list[list[int]]:
    """Return the multiplication table up to n times n.

    >>> multiplication_table(3)
    [[1, 2, 3], [2, 4, 6], [3, 6, 9]]
    """
    return [[i * j for j in range(1, n + 1)] for i in range(1, n + 1)]


def count_set_bits(n: int) -> int:
    """Return how many bits of n are set.

    >>> count_set_bits(13)
    3
    """
    count = 0
    while n:
        n &= n - 1
        count += 1
    return count


def round_to(value: float, step: float) -> float:
    """Round a value to the nearest multiple of step.

    >>> round_to(17, 5)
    15
    """
    return round(value / step) * step


def percentage(part: float, whole: float) -> float:
    """Return what percentage part is of whole.

    >>> percentage(1, 4)
    25.0
    """
    if whole == 0:
        return 0.0
    return part / whole * 100


def is_close(a: float, b: float, tolerance: float = 1e-9) -> bool:
    """Return whether two numbers differ by at most tolerance.

    >>> is_close(0.1 + 0.2, 0.3)
    True
    """
    return abs(a - b) <= tolerance


def roll_dice(sides: int = 6) -> int:
    """Return a random number from 1 to sides.

    >>> 1 <= roll_dice() <= 6
    True
    """
    return random.randint(1, sides)


def random_numbers(count: int, low: int, high: int) -> list[int]:
    """Return a list of random integers between low and high.

    >>> len(random_numbers(5, 1, 9))
    5
    """
    return [random.randint(low, high) for _ in range(count)]


def solve_quadratic(a: float, b: float, c: float) -> tuple[float, ...]:
    """Return the real solutions of a * x**2 + b * x + c = 0.

    >>> solve_quadratic(1, -3, 2)
    (2.0, 1.0)
    """
    discriminant = b * b - 4 * a * c
    if discriminant < 0:
        return ()
    if discriminant == 0:
        return (-b / (2 * a),)
    root = math.sqrt(discriminant)
    return (-b + root) / (2 * a), (-b - root) / (2 * a)


def compound_interest(principal: float, rate: float, years: int) -> float:
    """Return what a principal grows to at a yearly rate.

    >>> round(compound_interest(100, 0.05, 2), 2)
    110.25
    """
    return principal * (1 + rate) ** years


def simple_interest(principal: float, rate: float, years: float) -> float:
    """Return the simple interest on a principal.

    >>> simple_interest(100, 5, 2)
    10.0
    """
    return principal * rate * years / 100
