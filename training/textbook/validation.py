"""Checks of what people type; passwords; games."""

import random
import re
import string


def is_valid_email(email: str) -> bool:
    """Return whether a text looks like an email address.

    >>> is_valid_email("ann@example.com"), is_valid_email("ann@")
    (True, False)
    """
    return re.fullmatch(r"[\w.+-]+@[\w-]+(\.[\w-]+)+", email) is not None


def validate_email(email: str) -> bool:
    """Check an email address.

    >>> validate_email("ann@example.com"), validate_email("example.com")
    (True, False)
    """
    pattern = r"^[\w\.-]+@[\w\.-]+\.\w+$"
    return bool(re.match(pattern, email))


def is_valid_phone(number: str) -> bool:
    """Return whether a text is a phone number of ten digits.

    >>> is_valid_phone("555-123-4567")
    True
    """
    digits = re.sub(r"\D", "", number)
    return len(digits) == 10


def is_valid_url(url: str) -> bool:
    """Return whether a text looks like a web address.

    >>> is_valid_url("https://example.com/a"), is_valid_url("example")
    (True, False)
    """
    return re.match(r"^https?://[\w.-]+(:\d+)?(/\S*)?$", url) is not None


def is_valid_ip(address: str) -> bool:
    """Return whether a text is an IPv4 address.

    >>> is_valid_ip("192.168.0.1"), is_valid_ip("256.1.1.1")
    (True, False)
    """
    parts = address.split(".")
    if len(parts) != 4:
        return False
    return all(part.isdigit() and 0 <= int(part) <= 255 for part in parts)


def is_strong_password(password: str) -> bool:
    """Return whether a password is long and has letters of both cases and digits.

    >>> is_strong_password("Secret123"), is_strong_password("secret")
    (True, False)
    """
    if len(password) < 8:
        return False
    has_upper = any(char.isupper() for char in password)
    has_lower = any(char.islower() for char in password)
    has_digit = any(char.isdigit() for char in password)
    return has_upper and has_lower and has_digit


def validate_password(password: str) -> list[str]:
    """Return what is wrong with a password.

    >>> validate_password("abc")
    ['too short', 'no upper case letter', 'no digit']
    """
    errors = []
    if len(password) < 8:
        errors.append("too short")
    if not any(char.isupper() for char in password):
        errors.append("no upper case letter")
    if not any(char.isdigit() for char in password):
        errors.append("no digit")
    return errors


def is_valid_username(username: str) -> bool:
    """Return whether a user name has three to twenty letters, digits or underscores.

    >>> is_valid_username("ann_1"), is_valid_username("a b")
    (True, False)
    """
    return re.fullmatch(r"\w{3,20}", username) is not None


def is_numeric(text: str) -> bool:
    """Return whether a text is a number.

    >>> is_numeric("1.5"), is_numeric("x")
    (True, False)
    """
    try:
        float(text)
        return True
    except ValueError:
        return False


def luhn_check(number: str) -> bool:
    """Return whether a card number is valid by Luhn's rule.

    >>> luhn_check("79927398713")
    True
    """
    total = 0
    for i, char in enumerate(reversed(number)):
        digit = int(char)
        if i % 2 == 1:
            digit *= 2
            if digit > 9:
                digit -= 9
        total += digit
    return total % 10 == 0


def is_balanced(text: str) -> bool:
    """Return whether all brackets in the text are closed in order.

    >>> is_balanced("([]{})"), is_balanced("(]")
    (True, False)
    """
    pairs = {")": "(", "]": "[", "}": "{"}
    stack = []
    for char in text:
        if char in "([{":
            stack.append(char)
        elif char in pairs:
            if not stack or stack.pop() != pairs[char]:
                return False
    return not stack


def valid_parentheses(s: str) -> bool:
    """Return whether parentheses are balanced.

    >>> valid_parentheses("(()())"), valid_parentheses("())(")
    (True, False)
    """
    depth = 0
    for char in s:
        if char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            if depth < 0:
                return False
    return depth == 0


def evaluate_postfix(expression: str) -> float:
    """Return the value of an expression in postfix notation.

    >>> evaluate_postfix("3 4 + 2 *")
    14
    """
    stack = []
    for token in expression.split():
        if token in "+-*/":
            b = stack.pop()
            a = stack.pop()
            if token == "+":
                stack.append(a + b)
            elif token == "-":
                stack.append(a - b)
            elif token == "*":
                stack.append(a * b)
            else:
                stack.append(a / b)
        else:
            stack.append(int(token))
    return stack.pop()


def tokenize(text: str) -> list[str]:
    """Split an expression into numbers, names and signs.

    >>> tokenize("a + 12*(b)")
    ['a', '+', '12', '*', '(', 'b', ')']
    """
    return re.findall(r"\d+|\w+|[^\w\s]", text)


def generate_password(length: int = 12) -> str:
    """Return a random password.

    >>> len(generate_password(10))
    10
    """
    characters = string.ascii_letters + string.digits + string.punctuation
    return "".join(random.choice(characters) for _ in range(length))


def random_string(length: int) -> str:
    """Return a random text of lower case letters.

    >>> len(random_string(5))
    5
    """
    return "".join(random.choice(string.ascii_lowercase) for _ in range(length))


def mask(text: str, visible: int = 4) -> str:
    """Return the text with all but its last characters hidden.

    >>> mask("123456789")
    '*****6789'
    """
    return "*" * (len(text) - visible) + text[-visible:]


def flip_coin() -> str:
    """Return heads or tails.

    >>> flip_coin() in ("heads", "tails")
    True
    """
    return random.choice(["heads", "tails"])


def rock_paper_scissors(player: str, other: str) -> str:
    """Return who wins a round of rock, paper, scissors.

    >>> rock_paper_scissors("rock", "scissors")
    'player'
    """
    beats = {"rock": "scissors", "paper": "rock", "scissors": "paper"}
    if player == other:
        return "draw"
    return "player" if beats[player] == other else "other"


def guess_number(secret: int, guess: int) -> str:
    """Return a hint for a guess.

    >>> guess_number(5, 3)
    'too low'
    """
    if guess < secret:
        return "too low"
    if guess > secret:
        return "too high"
    return "correct"


def tic_tac_toe_winner(board: list[list[str]]) -> str | None:
    """Return who has three in a row on a board, or None.

    >>> tic_tac_toe_winner([["X", "X", "X"], ["O", "O", ""], ["", "", ""]])
    'X'
    """
    lines = [list(row) for row in board] + [list(column) for column in zip(*board)]
    lines.append([board[i][i] for i in range(3)])
    lines.append([board[i][2 - i] for i in range(3)])
    for line in lines:
        if line[0] and line[0] == line[1] == line[2]:
            return line[0]
    return None


def is_valid_sudoku(board: list[list[str]]) -> bool:
    """Return whether no digit of a Sudoku stands twice in a row, column or box.

    >>> is_valid_sudoku([["."] * 9 for _ in range(9)])
    True
    """
    seen = set()
    for i in range(9):
        for j in range(9):
            digit = board[i][j]
            if digit == ".":
                continue
            places = [("row", i, digit), ("column", j, digit), ("box", i // 3, j // 3, digit)]
            if any(place in seen for place in places):
                return False
            seen.update(places)
    return True


def is_triangle(a: float, b: float, c: float) -> bool:
    """Return whether three lengths make a triangle.

    >>> is_triangle(3, 4, 5), is_triangle(1, 2, 3)
    (True, False)
    """
    return a + b > c and a + c > b and b + c > a


def triangle_type(a: float, b: float, c: float) -> str:
    """Return the kind of a triangle by its sides.

    >>> triangle_type(3, 3, 4)
    'isosceles'
    """
    if a == b == c:
        return "equilateral"
    if a == b or b == c or a == c:
        return "isosceles"
    return "scalene"


def bmi(weight: float, height: float) -> float:
    """Return the body mass index of a weight in kilograms and a height in metres.

    >>> bmi(70, 1.75)
    22.9
    """
    return round(weight / height**2, 1)
