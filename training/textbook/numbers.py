"""Whole numbers and their digits."""

import math


def fibonacci(n: int) -> int:
    """Return the n-th Fibonacci number.

    >>> fibonacci(10)
    55
    """
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def fibonacci__recursive(n: int) -> int:
    """Return the n-th Fibonacci number.

    >>> fibonacci__recursive(10)
    55
    """
    if n <= 1:
        return n
    return fibonacci__recursive(n - 1) + fibonacci__recursive(n - 2)


def fibonacci_sequence(n: int) -> list[int]:
    """Return the first n Fibonacci numbers.

    >>> fibonacci_sequence(6)
    [0, 1, 1, 2, 3, 5]
    """
    numbers = []
    a, b = 0, 1
    for _ in range(n):
        numbers.append(a)
        a, b = b, a + b
    return numbers


def factorial(n: int) -> int:
    """Return n factorial.

    >>> factorial(5)
    120
    """
    result = 1
    for i in range(2, n + 1):
        result *= i
    return result


def factorial__recursive(n: int) -> int:
    """Return the factorial of n.

    >>> factorial__recursive(5)
    120
    """
    if n <= 1:
        return 1
    return n * factorial__recursive(n - 1)


def is_prime(n: int) -> bool:
    """Return whether n is a prime number.

    >>> is_prime(7), is_prime(9)
    (True, False)
    """
    if n < 2:
        return False
    for i in range(2, int(n**0.5) + 1):
        if n % i == 0:
            return False
    return True


def is_prime__all(n: int) -> bool:
    """Check if a number is prime.

    >>> is_prime__all(7), is_prime__all(1)
    (True, False)
    """
    if n < 2:
        return False
    return all(n % i for i in range(2, int(n**0.5) + 1))


def is_prime__divisor(n: int) -> bool:
    """Return whether n is a prime number.

    >>> is_prime__divisor(7), is_prime__divisor(9)
    (True, False)
    """
    if n < 2:
        return False
    divisor = 2
    while divisor * divisor <= n:
        if n % divisor == 0:
            return False
        divisor += 1
    return True


def primes_up_to(n: int) -> list[int]:
    """Return all primes up to n, found with the sieve of Eratosthenes.

    >>> primes_up_to(20)
    [2, 3, 5, 7, 11, 13, 17, 19]
    """
    sieve = [True] * (n + 1)
    primes = []
    for i in range(2, n + 1):
        if sieve[i]:
            primes.append(i)
            for j in range(i * i, n + 1, i):
                sieve[j] = False
    return primes


def first_primes(count: int) -> list[int]:
    """Return the first primes.

    >>> first_primes(5)
    [2, 3, 5, 7, 11]
    """
    primes = []
    candidate = 2
    while len(primes) < count:
        if all(candidate % p for p in primes):
            primes.append(candidate)
        candidate += 1
    return primes


def next_prime(n: int) -> int:
    """Return the smallest prime greater than n.

    >>> next_prime(7)
    11
    """
    candidate = n + 1
    while any(candidate % i == 0 for i in range(2, int(candidate**0.5) + 1)) or candidate < 2:
        candidate += 1
    return candidate


def prime_factors(n: int) -> list[int]:
    """Return the prime factors of n in ascending order.

    >>> prime_factors(60)
    [2, 2, 3, 5]
    """
    factors = []
    divisor = 2
    while divisor * divisor <= n:
        while n % divisor == 0:
            factors.append(divisor)
            n //= divisor
        divisor += 1
    if n > 1:
        factors.append(n)
    return factors


def divisors(n: int) -> list[int]:
    """Return all divisors of n.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    return [i for i in range(1, n + 1) if n % i == 0]


def gcd(a: int, b: int) -> int:
    """Return the greatest common divisor of a and b.

    >>> gcd(12, 18)
    6
    """
    while b:
        a, b = b, a % b
    return a


def gcd__recursive(a: int, b: int) -> int:
    """Return the greatest common divisor of two numbers.

    >>> gcd__recursive(12, 18)
    6
    """
    if b == 0:
        return a
    return gcd__recursive(b, a % b)


def lcm(a: int, b: int) -> int:
    """Return the least common multiple of a and b.

    >>> lcm(4, 6)
    12
    """
    return a * b // math.gcd(a, b)


def lcm__zero(a: int, b: int) -> int:
    """Return the least common multiple of two numbers.

    >>> lcm__zero(4, 6)
    12
    """
    if a == 0 or b == 0:
        return 0
    return abs(a * b) // math.gcd(a, b)


def is_even(n: int) -> bool:
    """Return True if n is even.

    >>> is_even(4)
    True
    """
    return n % 2 == 0


def is_odd(n: int) -> bool:
    """Return True if n is odd.

    >>> is_odd(4)
    False
    """
    return n % 2 == 1


def sum_digits(n: int) -> int:
    """Return the sum of the digits of n.

    >>> sum_digits(123)
    6
    """
    return sum(int(digit) for digit in str(abs(n)))


def sum_digits__loop(n: int) -> int:
    """Return the sum of the digits of a number.

    >>> sum_digits__loop(123)
    6
    """
    total = 0
    n = abs(n)
    while n > 0:
        total += n % 10
        n //= 10
    return total


def count_digits(n: int) -> int:
    """Return the number of digits of n.

    >>> count_digits(1234)
    4
    """
    return len(str(abs(n)))


def reverse_number(n: int) -> int:
    """Return n with its digits reversed.

    >>> reverse_number(-120)
    -21
    """
    sign = -1 if n < 0 else 1
    return sign * int(str(abs(n))[::-1])


def digital_root(n: int) -> int:
    """Return the digital root of n.

    >>> digital_root(987)
    6
    """
    while n >= 10:
        n = sum(int(digit) for digit in str(n))
    return n


def is_perfect_number(n: int) -> bool:
    """Return whether n is the sum of its proper divisors.

    >>> is_perfect_number(28)
    True
    """
    if n < 2:
        return False
    return sum(i for i in range(1, n) if n % i == 0) == n


def is_armstrong(n: int) -> bool:
    """Return whether n is the sum of its digits raised to the number of digits.

    >>> is_armstrong(153)
    True
    """
    digits = str(n)
    return n == sum(int(digit) ** len(digits) for digit in digits)


def is_perfect_square(n: int) -> bool:
    """Return whether n is a perfect square.

    >>> is_perfect_square(49), is_perfect_square(50)
    (True, False)
    """
    if n < 0:
        return False
    root = int(n**0.5)
    return root * root == n


def is_power_of_two(n: int) -> bool:
    """Return whether n is a power of two.

    >>> is_power_of_two(64), is_power_of_two(0)
    (True, False)
    """
    return n > 0 and n & (n - 1) == 0


def power(base: float, exponent: int) -> float:
    """Return base raised to exponent.

    >>> power(2, 10)
    1024
    """
    result = 1
    for _ in range(exponent):
        result *= base
    return result


def power__fast(base: float, exponent: int) -> float:
    """Return base to the power of exponent by repeated squaring.

    >>> power__fast(2, 10)
    1024
    """
    if exponent == 0:
        return 1
    half = power__fast(base, exponent // 2)
    if exponent % 2 == 0:
        return half * half
    return half * half * base
