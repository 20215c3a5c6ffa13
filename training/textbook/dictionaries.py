"""Dictionaries, records and configurations."""

import json
from collections import defaultdict
from typing import Any


def invert_dict(d: dict[Any, Any]) -> dict[Any, Any]:
    """Return a dictionary with keys and values exchanged.

    >>> invert_dict({"a": 1})
    {1: 'a'}
    """
    return {value: key for key, value in d.items()}


def merge_dicts(a: dict[Any, Any], b: dict[Any, Any]) -> dict[Any, Any]:
    """Return a dictionary of both; the second wins.

    >>> merge_dicts({"a": 1}, {"a": 2, "b": 3})
    {'a': 2, 'b': 3}
    """
    return {**a, **b}


def merge_dicts__copy(a: dict[Any, Any], b: dict[Any, Any]) -> dict[Any, Any]:
    """Merge two dictionaries into a new one.

    >>> merge_dicts__copy({"a": 1}, {"b": 3})
    {'a': 1, 'b': 3}
    """
    result = a.copy()
    result.update(b)
    return result


def deep_merge(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Merge two dictionaries, and the dictionaries in them.

    >>> deep_merge({"a": {"x": 1}}, {"a": {"y": 2}})
    {'a': {'x': 1, 'y': 2}}
    """
    result = dict(a)
    for key, value in b.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = deep_merge(result[key], value)
        else:
            result[key] = value
    return result


def sum_values(d: dict[Any, int]) -> int:
    """Return the sum of the values of a dictionary.

    >>> sum_values({"a": 1, "b": 2})
    3
    """
    return sum(d.values())


def sort_by_value(d: dict[Any, int]) -> dict[Any, int]:
    """Return the dictionary sorted by its values.

    >>> sort_by_value({"a": 2, "b": 1})
    {'b': 1, 'a': 2}
    """
    return dict(sorted(d.items(), key=lambda item: item[1]))


def sort_by_key(d: dict[Any, Any]) -> dict[Any, Any]:
    """Return the dictionary sorted by its keys.

    >>> sort_by_key({"b": 1, "a": 2})
    {'a': 2, 'b': 1}
    """
    return dict(sorted(d.items()))


def key_of_max(d: dict[Any, int]) -> Any:
    """Return the key with the largest value.

    >>> key_of_max({"a": 1, "b": 5})
    'b'
    """
    return max(d, key=d.get)


def filter_dict(d: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """Return only the given keys of a dictionary.

    >>> filter_dict({"a": 1, "b": 2}, ["a"])
    {'a': 1}
    """
    return {key: d[key] for key in keys if key in d}


def remove_none(d: dict[str, Any]) -> dict[str, Any]:
    """Return the dictionary without values that are None.

    >>> remove_none({"a": 1, "b": None})
    {'a': 1}
    """
    return {key: value for key, value in d.items() if value is not None}


def flatten_dict(d: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, with keys joined by dots.

    >>> flatten_dict({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    result = {}
    for key, value in d.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict):
            result.update(flatten_dict(value, name))
        else:
            result[name] = value
    return result


def get_nested(d: dict[str, Any], path: str, default: Any = None) -> Any:
    """Return the value at a path of keys joined by dots.

    >>> get_nested({"a": {"b": 1}}, "a.b")
    1
    """
    current = d
    for key in path.split("."):
        if not isinstance(current, dict) or key not in current:
            return default
        current = current[key]
    return current


def group_by_key(rows: list[dict[str, Any]], key: str) -> dict[Any, list[dict[str, Any]]]:
    """Group dictionaries by the value of a key.

    >>> group_by_key([{"a": 1}, {"a": 1}, {"a": 2}], "a")
    {1: [{'a': 1}, {'a': 1}], 2: [{'a': 2}]}
    """
    groups = defaultdict(list)
    for row in rows:
        groups[row[key]].append(row)
    return dict(groups)


def group_by_length(words: list[str]) -> dict[int, list[str]]:
    """Group words by their length.

    >>> group_by_length(["a", "bb", "c"])
    {1: ['a', 'c'], 2: ['bb']}
    """
    groups = {}
    for word in words:
        if len(word) not in groups:
            groups[len(word)] = []
        groups[len(word)].append(word)
    return groups


def group_by_first_letter(words: list[str]) -> dict[str, list[str]]:
    """Group words by their first letter.

    >>> group_by_first_letter(["ant", "bee", "ape"])
    {'a': ['ant', 'ape'], 'b': ['bee']}
    """
    groups = {}
    for word in words:
        groups.setdefault(word[0], []).append(word)
    return groups


def to_dict(keys: list[Any], values: list[Any]) -> dict[Any, Any]:
    """Return a dictionary of keys and values.

    >>> to_dict(["a", "b"], [1, 2])
    {'a': 1, 'b': 2}
    """
    return dict(zip(keys, values))


def index_by_id(rows: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Return the rows by their id.

    >>> index_by_id([{"id": 7}])
    {7: {'id': 7}}
    """
    return {row["id"]: row for row in rows}


def pluck(rows: list[dict[str, Any]], key: str) -> list[Any]:
    """Return the value of a key in each row.

    >>> pluck([{"a": 1}, {"a": 2}], "a")
    [1, 2]
    """
    return [row[key] for row in rows]


def total_price(cart: list[dict[str, Any]]) -> float:
    """Return the total price of the items in a cart.

    >>> total_price([{"price": 2.5, "quantity": 2}])
    5.0
    """
    return sum(item["price"] * item["quantity"] for item in cart)


def average_grade(grades: dict[str, list[float]]) -> dict[str, float]:
    """Return the average grade of each student.

    >>> average_grade({"Ann": [1, 2]})
    {'Ann': 1.5}
    """
    return {name: sum(values) / len(values) for name, values in grades.items()}


def letter_grade(score: float) -> str:
    """Return the letter grade of a score.

    >>> letter_grade(85)
    'B'
    """
    if score >= 90:
        return "A"
    if score >= 80:
        return "B"
    if score >= 70:
        return "C"
    if score >= 60:
        return "D"
    return "F"


def apply_discount(price: float, percent: float) -> float:
    """Return the price after a discount in percent.

    >>> apply_discount(200, 10)
    180.0
    """
    return price * (1 - percent / 100)


def add_tax(price: float, rate: float) -> float:
    """Return the price with tax.

    >>> add_tax(100, 0.2)
    120.0
    """
    return round(price * (1 + rate), 2)


def format_price(amount: float) -> str:
    """Return an amount of money as text.

    >>> format_price(1234.5)
    '$1,234.50'
    """
    return f"${amount:,.2f}"


def make_change(amount: int, coins: list[int]) -> list[int]:
    """Return the fewest coins that make an amount, taking the largest first.

    >>> make_change(68, [25, 10, 5, 1])
    [25, 25, 10, 5, 1, 1, 1]
    """
    result = []
    for coin in sorted(coins, reverse=True):
        while amount >= coin:
            result.append(coin)
            amount -= coin
    return result


def parse_json(text: str) -> Any:
    """Return the value that a JSON text stands for, or None if it is not valid.

    >>> parse_json('{"a": 1}'), parse_json("{")
    ({'a': 1}, None)
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None


def to_json(data: Any) -> str:
    """Return data as indented JSON.

    >>> to_json([])
    '[]'
    """
    return json.dumps(data, indent=2)


def parse_query_string(query: str) -> dict[str, str]:
    """Return the parameters of a query string.

    >>> parse_query_string("a=1&b=2")
    {'a': '1', 'b': '2'}
    """
    result = {}
    for pair in query.lstrip("?").split("&"):
        if "=" in pair:
            key, value = pair.split("=", 1)
            result[key] = value
    return result


def build_query_string(params: dict[str, Any]) -> str:
    """Return parameters as a query string.

    >>> build_query_string({"a": 1, "b": 2})
    'a=1&b=2'
    """
    return "&".join(f"{key}={value}" for key, value in params.items())


def parse_key_value(line: str) -> tuple[str, str]:
    """Split a line at its first equals sign.

    >>> parse_key_value("name = nano")
    ('name', 'nano')
    """
    key, _, value = line.partition("=")
    return key.strip(), value.strip()


def parse_config(text: str) -> dict[str, str]:
    """Return the settings of a text with lines of key = value.

    >>> parse_config("# a comment\\na = 1\\n")
    {'a': '1'}
    """
    config = {}
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        key, _, value = line.partition("=")
        config[key.strip()] = value.strip()
    return config


def parse_csv_line(line: str) -> list[str]:
    """Return the fields of a line separated by commas.

    >>> parse_csv_line("a, b,c")
    ['a', 'b', 'c']
    """
    return [field.strip() for field in line.split(",")]


def parse_csv(text: str) -> list[dict[str, str]]:
    """Return the rows of a CSV text as dictionaries.

    >>> parse_csv("a,b\\n1,2\\n")
    [{'a': '1', 'b': '2'}]
    """
    lines = text.strip().splitlines()
    header = lines[0].split(",")
    return [dict(zip(header, line.split(","))) for line in lines[1:]]


def parse_int(text: str, default: int = 0) -> int:
    """Return the whole number in a text, or a default.

    >>> parse_int("12"), parse_int("x")
    (12, 0)
    """
    try:
        return int(text)
    except ValueError:
        return default


def parse_bool(text: str) -> bool:
    """Return whether a text means yes.

    >>> parse_bool("Yes"), parse_bool("0")
    (True, False)
    """
    return text.strip().lower() in ("1", "true", "yes", "on")
