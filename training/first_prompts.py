"""What a newcomer types first, completed by the product greedily and run with assertions.

    python -m training.first_prompts [--model nano] [--set first|others]

Each completion runs confined like those of `replit evaluate`, for five seconds at most. It counts if it ends by itself
and every assertion holds. Both sets are of the kind that training/textbook teaches, and most of them are in it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.evaluation.sandbox import Limits, run_program

if TYPE_CHECKING:
    from pipelines.pipeline import Pipeline

MAX_TOKENS = 200
SECONDS = 5


@dataclass(frozen=True)
class Question:
    """A prompt and statements that must run after its completion."""

    prompt: str
    check: str


FIRST = (
    Question("def fibonacci(n):", "assert [fibonacci(i) for i in (1, 2, 3, 7, 10)] == [1, 1, 2, 13, 55]"),
    Question("def factorial(n):", "assert [factorial(i) for i in (0, 1, 2, 5)] == [1, 1, 2, 120]"),
    Question(
        "def is_prime(n):", "assert [i for i in range(1, 30) if is_prime(i)] == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]"
    ),
    Question("def gcd(a, b):", "assert (gcd(12, 18), gcd(7, 5), gcd(0, 4), gcd(48, 36)) == (6, 1, 4, 12)"),
    Question(
        "def binary_search(items, target):",
        "x = [1, 3, 5, 8, 13, 21]\n"
        "assert [binary_search(x, v) for v in x] == list(range(6))\n"
        "assert binary_search(x, 4) in (-1, None) and binary_search([], 1) in (-1, None)",
    ),
    Question(
        "def bubble_sort(items):",
        "x = [5, 2, 9, 1, 5, 6]\nr = bubble_sort(x)\nassert (x if r is None else list(r)) == [1, 2, 5, 5, 6, 9]",
    ),
    Question(
        "def is_palindrome(text):",
        "assert is_palindrome('racecar') and is_palindrome('abba') and is_palindrome('')\n"
        "assert not is_palindrome('python')",
    ),
    Question(
        "def count_words(text):",
        "r = count_words('the cat and the dog')\nassert r == 5 or dict(r) == {'the': 2, 'cat': 1, 'and': 1, 'dog': 1}",
    ),
    Question(
        "def read_lines(path):",
        "open('a.txt', 'w').write('one\\ntwo\\n')\nassert [s.strip() for s in read_lines('a.txt')] == ['one', 'two']",
    ),
    Question(
        "class Stack:",
        "s = Stack()\nassert s.is_empty() in (True,)\ns.push(1)\ns.push(2)\n"
        "assert s.pop() == 2 and not s.is_empty() and s.pop() == 1 and s.is_empty()",
    ),
)

OTHERS = (
    Question("def sum_of_squares(numbers):", "assert sum_of_squares([1, 2, 3]) == 14"),
    Question("def remove_vowels(text):", "assert remove_vowels('hello world') == 'hll wrld'"),
    Question("def second_largest(numbers):", "assert second_largest([4, 9, 2, 7]) == 7"),
    Question("def is_leap_year(year):", "assert [is_leap_year(y) for y in (2000, 1900, 2024, 2023)] == [1, 0, 1, 0]"),
    Question("def merge_sort(values):", "assert merge_sort([3, 1, 2, 5, 4]) == [1, 2, 3, 4, 5]"),
    Question("def to_snake_case(name):", "assert to_snake_case('helloWorldAgain') == 'hello_world_again'"),
    Question("def transpose(matrix):", "assert [list(r) for r in transpose([[1, 2], [3, 4]])] == [[1, 3], [2, 4]]"),
    Question("def count_characters(s):", "r = count_characters('aab')\nassert r == 3 or dict(r) == {'a': 2, 'b': 1}"),
    Question(
        "class Queue:",
        "q = Queue()\nq.enqueue(1)\nq.enqueue(2)\nassert q.dequeue() == 1 and q.dequeue() == 2 and q.is_empty()",
    ),
    Question(
        "class Rectangle:",
        "r = Rectangle(3, 4)\narea = r.area() if callable(r.area) else r.area\nassert area == 12",
    ),
)
SETS = {"first": FIRST, "others": OTHERS}


def holds(prompt: str, completion: str, check: str) -> bool:
    """Whether the completed program runs with its assertions."""
    return run_program(f"{prompt}{completion}\n\n{check}\n", Limits(SECONDS)).passed


def ask(model: Pipeline, question: Question) -> tuple[str, bool, bool]:
    """The greedy completion, whether it ended by itself, and whether its program runs with the assertions."""
    answer = model.generate(question.prompt, max_new_tokens=MAX_TOKENS, top_k=1)
    return answer.text, answer.finish_reason == "stop", holds(question.prompt, answer.text, question.check)


def main() -> None:
    """Command line."""
    import pipelines

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--set", choices=SETS, default="first")
    args = parser.parse_args()
    questions = SETS[args.set]
    model = pipelines.load(args.model, max_length=1024)
    right = 0
    for question in questions:
        text, ended, correct = ask(model, question)
        right += ended and correct
        print(f"{question.prompt}{text.rstrip()}\n# {'right' if correct else 'WRONG'}, ended: {ended}\n")
    print(f"{right} of {len(questions)} correct and ended by themselves")


if __name__ == "__main__":
    main()
