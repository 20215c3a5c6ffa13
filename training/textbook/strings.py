"""Text: reversing, counting, comparing."""

import re
import string
from collections import Counter


def reverse_string(text: str) -> str:
    """Return the text reversed.

    >>> reverse_string("abc")
    'cba'
    """
    return text[::-1]


def reverse_string__loop(text: str) -> str:
    """Reverse a string.

    >>> reverse_string__loop("abc")
    'cba'
    """
    result = ""
    for char in text:
        result = char + result
    return result


def reverse_words(text: str) -> str:
    """Return the text with its words in reverse order.

    >>> reverse_words("hello big world")
    'world big hello'
    """
    return " ".join(reversed(text.split()))


def reverse_each_word(text: str) -> str:
    """Return the text with every word reversed.

    >>> reverse_each_word("abc def")
    'cba fed'
    """
    return " ".join(word[::-1] for word in text.split())


def is_palindrome(text: str) -> bool:
    """Return whether the text reads the same backwards.

    >>> is_palindrome("racecar")
    True
    """
    return text == text[::-1]


def is_palindrome__clean(text: str) -> bool:
    """Check if a text is a palindrome, ignoring case, blanks and punctuation.

    >>> is_palindrome__clean("A man, a plan, a canal: Panama")
    True
    """
    cleaned = "".join(char.lower() for char in text if char.isalnum())
    return cleaned == cleaned[::-1]


def is_palindrome__pointers(text: str) -> bool:
    """Return True if the text is a palindrome.

    >>> is_palindrome__pointers("abba"), is_palindrome__pointers("abc")
    (True, False)
    """
    left, right = 0, len(text) - 1
    while left < right:
        if text[left] != text[right]:
            return False
        left += 1
        right -= 1
    return True


def is_anagram(a: str, b: str) -> bool:
    """Return whether two strings are anagrams of each other.

    >>> is_anagram("listen", "silent")
    True
    """
    return sorted(a) == sorted(b)


def is_anagram__clean(first: str, second: str) -> bool:
    """Check if two texts are anagrams, ignoring case and blanks.

    >>> is_anagram__clean("Dormitory", "dirty room")
    True
    """
    first = first.replace(" ", "").lower()
    second = second.replace(" ", "").lower()
    return sorted(first) == sorted(second)


def group_anagrams(words: list[str]) -> list[list[str]]:
    """Group words that are anagrams of each other.

    >>> group_anagrams(["tea", "tan", "eat"])
    [['tea', 'eat'], ['tan']]
    """
    groups = {}
    for word in words:
        key = "".join(sorted(word))
        groups.setdefault(key, []).append(word)
    return list(groups.values())


def is_pangram(text: str) -> bool:
    """Return whether the text has every letter of the alphabet.

    >>> is_pangram("The quick brown fox jumps over the lazy dog")
    True
    """
    return set(string.ascii_lowercase) <= set(text.lower())


def count_vowels(text: str) -> int:
    """Return the number of vowels in the text.

    >>> count_vowels("Education")
    5
    """
    return sum(1 for char in text.lower() if char in "aeiou")


def count_vowels__loop(text: str) -> int:
    """Count the vowels in a text.

    >>> count_vowels__loop("hello")
    2
    """
    count = 0
    for char in text:
        if char in "aeiouAEIOU":
            count += 1
    return count


def count_consonants(text: str) -> int:
    """Return the number of consonants in the text.

    >>> count_consonants("hello")
    3
    """
    return sum(1 for char in text.lower() if char.isalpha() and char not in "aeiou")


def remove_vowels(text: str) -> str:
    """Return the text without its vowels.

    >>> remove_vowels("education")
    'dctn'
    """
    return "".join(char for char in text if char.lower() not in "aeiou")


def count_words(text: str) -> int:
    """Return the number of words in the text.

    >>> count_words("the cat and the dog")
    5
    """
    return len(text.split())


def word_frequency(text: str) -> dict[str, int]:
    """Return how often each word occurs in the text.

    >>> word_frequency("a b a")
    {'a': 2, 'b': 1}
    """
    counts = {}
    for word in text.lower().split():
        counts[word] = counts.get(word, 0) + 1
    return counts


def count_characters(text: str) -> dict[str, int]:
    """Return how often each character occurs in the text.

    >>> count_characters("aab")
    {'a': 2, 'b': 1}
    """
    counts = {}
    for char in text:
        counts[char] = counts.get(char, 0) + 1
    return counts


def char_frequency(text: str) -> dict[str, int]:
    """Count the characters of a text.

    >>> char_frequency("aab")
    {'a': 2, 'b': 1}
    """
    return dict(Counter(text))


def count_char(text: str, char: str) -> int:
    """Return how often a character occurs in the text.

    >>> count_char("banana", "a")
    3
    """
    return text.count(char)


def count_occurrences(text: str, word: str) -> int:
    """Return how often a word occurs in the text.

    >>> count_occurrences("the cat the dog", "the")
    2
    """
    return text.lower().split().count(word.lower())


def count_uppercase(text: str) -> int:
    """Return the number of uppercase letters in the text.

    >>> count_uppercase("Hello World")
    2
    """
    return sum(1 for char in text if char.isupper())


def count_lowercase(text: str) -> int:
    """Return the number of lowercase letters in the text.

    >>> count_lowercase("Hello")
    4
    """
    return sum(1 for char in text if char.islower())


def count_sentences(text: str) -> int:
    """Return the number of sentences in the text.

    >>> count_sentences("One. Two! Three?")
    3
    """
    return len([part for part in re.split(r"[.!?]+", text) if part.strip()])


def longest_word(text: str) -> str:
    """Return the longest word of the text.

    >>> longest_word("a quick test")
    'quick'
    """
    words = text.split()
    if not words:
        return ""
    return max(words, key=len)


def shortest_word(text: str) -> str:
    """Return the shortest word of the text.

    >>> shortest_word("the quick ox")
    'ox'
    """
    return min(text.split(), key=len, default="")


def most_common_word(text: str) -> str:
    """Return the word that occurs most often in the text.

    >>> most_common_word("a b b c")
    'b'
    """
    words = text.lower().split()
    return max(set(words), key=words.count)


def most_common_char(text: str) -> str:
    """Return the most common character of the text.

    >>> most_common_char("hello")
    'l'
    """
    return Counter(text).most_common(1)[0][0]


def first_unique_char(text: str) -> str | None:
    """Return the first character that occurs only once, or None.

    >>> first_unique_char("swiss")
    'w'
    """
    for char in text:
        if text.count(char) == 1:
            return char
    return None


def has_unique_characters(text: str) -> bool:
    """Return whether no character occurs twice.

    >>> has_unique_characters("abc"), has_unique_characters("aba")
    (True, False)
    """
    return len(set(text)) == len(text)


def longest_common_prefix(words: list[str]) -> str:
    """Return the longest prefix that all words share.

    >>> longest_common_prefix(["flower", "flow", "flight"])
    'fl'
    """
    if not words:
        return ""
    prefix = words[0]
    for word in words[1:]:
        while not word.startswith(prefix):
            prefix = prefix[:-1]
    return prefix
