"""Text: changing, splitting, encoding."""

import re


def capitalize_words(text: str) -> str:
    """Return the text with each word capitalized.

    >>> capitalize_words("hello world")
    'Hello World'
    """
    return " ".join(word.capitalize() for word in text.split())


def capitalize_first(text: str) -> str:
    """Return the text with its first letter in upper case.

    >>> capitalize_first("hello")
    'Hello'
    """
    return text[:1].upper() + text[1:]


def swap_case(text: str) -> str:
    """Return the text with upper and lower case exchanged.

    >>> swap_case("Hello")
    'hELLO'
    """
    return "".join(char.lower() if char.isupper() else char.upper() for char in text)


def remove_spaces(text: str) -> str:
    """Return the text without blanks.

    >>> remove_spaces("a b c")
    'abc'
    """
    return text.replace(" ", "")


def remove_extra_spaces(text: str) -> str:
    """Return the text with single blanks between its words.

    >>> remove_extra_spaces("  a   b ")
    'a b'
    """
    return " ".join(text.split())


def remove_punctuation(text: str) -> str:
    """Return the text without punctuation.

    >>> remove_punctuation("Hi, you!")
    'Hi you'
    """
    return re.sub(r"[^\w\s]", "", text)


def remove_digits(text: str) -> str:
    """Return the text without digits.

    >>> remove_digits("a1b2")
    'ab'
    """
    return "".join(char for char in text if not char.isdigit())


def remove_char(text: str, char: str) -> str:
    """Return the text without a character.

    >>> remove_char("banana", "a")
    'bnn'
    """
    return text.replace(char, "")


def remove_duplicate_characters(text: str) -> str:
    """Return the text with only the first of each character.

    >>> remove_duplicate_characters("banana")
    'ban'
    """
    seen = set()
    result = []
    for char in text:
        if char not in seen:
            seen.add(char)
            result.append(char)
    return "".join(result)


def remove_prefix(text: str, prefix: str) -> str:
    """Return the text without a prefix.

    >>> remove_prefix("unhappy", "un")
    'happy'
    """
    if text.startswith(prefix):
        return text[len(prefix) :]
    return text


def remove_suffix(text: str, suffix: str) -> str:
    """Return the text without a suffix.

    >>> remove_suffix("a.txt", ".txt")
    'a'
    """
    if suffix and text.endswith(suffix):
        return text[: -len(suffix)]
    return text


def extract_numbers(text: str) -> list[int]:
    """Return all whole numbers in the text.

    >>> extract_numbers("3 cats and 12 dogs")
    [3, 12]
    """
    return [int(number) for number in re.findall(r"-?\d+", text)]


def extract_emails(text: str) -> list[str]:
    """Return all email addresses in the text.

    >>> extract_emails("Write to ann@example.com today")
    ['ann@example.com']
    """
    return re.findall(r"[\w.+-]+@[\w-]+\.[\w.-]+", text)


def extract_urls(text: str) -> list[str]:
    """Return all web addresses in the text.

    >>> extract_urls("see https://example.com/a now")
    ['https://example.com/a']
    """
    return re.findall(r"https?://\S+", text)


def extract_hashtags(text: str) -> list[str]:
    """Return the hashtags of the text without their signs.

    >>> extract_hashtags("#one and #two")
    ['one', 'two']
    """
    return re.findall(r"#(\w+)", text)


def truncate(text: str, length: int) -> str:
    """Return the text cut to a length, with dots where it was longer.

    >>> truncate("hello world", 8)
    'hello...'
    """
    if len(text) <= length:
        return text
    return text[: length - 3] + "..."


def to_snake_case(name: str) -> str:
    """Convert a camel case name to snake case.

    >>> to_snake_case("helloWorldAgain")
    'hello_world_again'
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def camel_to_snake(name: str) -> str:
    """Convert camelCase to snake_case.

    >>> camel_to_snake("helloWorld")
    'hello_world'
    """
    result = ""
    for char in name:
        if char.isupper() and result:
            result += "_"
        result += char.lower()
    return result


def snake_to_camel(name: str) -> str:
    """Convert snake_case to camelCase.

    >>> snake_to_camel("hello_big_world")
    'helloBigWorld'
    """
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def to_pascal_case(name: str) -> str:
    """Convert snake_case to PascalCase.

    >>> to_pascal_case("hello_world")
    'HelloWorld'
    """
    return "".join(word.capitalize() for word in name.split("_"))


def slugify(text: str) -> str:
    """Return the text in lower case with hyphens between its words.

    >>> slugify("Hello, World!")
    'hello-world'
    """
    text = re.sub(r"[^\w\s-]", "", text.lower())
    return re.sub(r"[\s_-]+", "-", text).strip("-")


def acronym(text: str) -> str:
    """Return the first letters of the words in upper case.

    >>> acronym("portable network graphics")
    'PNG'
    """
    return "".join(word[0].upper() for word in text.split())


def initials(name: str) -> str:
    """Return the initials of a name.

    >>> initials("Ada Lovelace")
    'A.L.'
    """
    return "".join(part[0].upper() + "." for part in name.split())


def caesar_cipher(text: str, shift: int) -> str:
    """Shift every letter of the text in the alphabet.

    >>> caesar_cipher("xyz Abc", 3)
    'abc Def'
    """
    result = []
    for char in text:
        if char.isalpha():
            base = ord("A") if char.isupper() else ord("a")
            result.append(chr((ord(char) - base + shift) % 26 + base))
        else:
            result.append(char)
    return "".join(result)


def caesar_decrypt(text: str, shift: int) -> str:
    """Undo a Caesar cipher.

    >>> caesar_decrypt("Khoor", 3)
    'Hello'
    """
    result = ""
    for char in text:
        if char.isupper():
            result += chr((ord(char) - ord("A") - shift) % 26 + ord("A"))
        elif char.islower():
            result += chr((ord(char) - ord("a") - shift) % 26 + ord("a"))
        else:
            result += char
    return result


def rot13(text: str) -> str:
    """Rotate the letters of the text by thirteen places.

    >>> rot13("Hello")
    'Uryyb'
    """
    result = ""
    for char in text:
        if "a" <= char <= "z":
            result += chr((ord(char) - ord("a") + 13) % 26 + ord("a"))
        elif "A" <= char <= "Z":
            result += chr((ord(char) - ord("A") + 13) % 26 + ord("A"))
        else:
            result += char
    return result


def run_length_encode(text: str) -> str:
    """Compress repeated characters to a count and the character.

    >>> run_length_encode("aaabb")
    '3a2b'
    """
    result = ""
    i = 0
    while i < len(text):
        count = 1
        while i + count < len(text) and text[i + count] == text[i]:
            count += 1
        result += str(count) + text[i]
        i += count
    return result


def run_length_decode(text: str) -> str:
    """Expand counts and characters to the text they stand for.

    >>> run_length_decode("3a2b")
    'aaabb'
    """
    return "".join(char * int(count) for count, char in re.findall(r"(\d+)(\D)", text))


def compress(text: str) -> str:
    """Write each run of a character as the character and its length.

    >>> compress("aabccc")
    'a2b1c3'
    """
    if not text:
        return ""
    result = []
    current, count = text[0], 1
    for char in text[1:]:
        if char == current:
            count += 1
        else:
            result.append(f"{current}{count}")
            current, count = char, 1
    result.append(f"{current}{count}")
    return "".join(result)


def repeat(text: str, times: int) -> str:
    """Return the text repeated.

    >>> repeat("ab", 3)
    'ababab'
    """
    return text * times


def is_rotation(a: str, b: str) -> bool:
    """Return whether b is a rotation of a.

    >>> is_rotation("abcde", "cdeab")
    True
    """
    return len(a) == len(b) and b in a + a


def hamming_distance(a: str, b: str) -> int:
    """Return at how many places two strings of equal length differ.

    >>> hamming_distance("karolin", "kathrin")
    3
    """
    if len(a) != len(b):
        raise ValueError("strings must have the same length")
    return sum(x != y for x, y in zip(a, b))


def levenshtein_distance(a: str, b: str) -> int:
    """Return the number of edits that turn one string into another.

    >>> levenshtein_distance("kitten", "sitting")
    3
    """
    previous = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        current = [i]
        for j, y in enumerate(b, 1):
            cost = 0 if x == y else 1
            current.append(min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + cost))
        previous = current
    return previous[-1]


def longest_common_subsequence(a: str, b: str) -> int:
    """Return the length of the longest common subsequence of two strings.

    >>> longest_common_subsequence("abcde", "ace")
    3
    """
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            if a[i - 1] == b[j - 1]:
                table[i][j] = table[i - 1][j - 1] + 1
            else:
                table[i][j] = max(table[i - 1][j], table[i][j - 1])
    return table[-1][-1]


def longest_common_substring(a: str, b: str) -> str:
    """Return the longest string that is part of both strings.

    >>> longest_common_substring("abcdef", "zcdem")
    'cde'
    """
    longest = ""
    for i in range(len(a)):
        for j in range(i + len(longest) + 1, len(a) + 1):
            if a[i:j] in b:
                longest = a[i:j]
    return longest


def longest_palindrome(text: str) -> str:
    """Return the longest palindrome in the text.

    >>> longest_palindrome("babcbabcbaccba")
    'abcbabcba'
    """
    longest = ""
    for i in range(len(text)):
        for left, right in ((i, i), (i, i + 1)):
            while left >= 0 and right < len(text) and text[left] == text[right]:
                left -= 1
                right += 1
            if right - left - 1 > len(longest):
                longest = text[left + 1 : right]
    return longest


def longest_unique_substring(text: str) -> int:
    """Return the length of the longest part of the text without repeated characters.

    >>> longest_unique_substring("abcabcbb")
    3
    """
    last = {}
    start = longest = 0
    for i, char in enumerate(text):
        if char in last and last[char] >= start:
            start = last[char] + 1
        last[char] = i
        longest = max(longest, i - start + 1)
    return longest


def wrap_text(text: str, width: int) -> list[str]:
    """Break the text into lines of at most width characters.

    >>> wrap_text("the quick brown fox", 10)
    ['the quick', 'brown fox']
    """
    lines = []
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    if line:
        lines.append(line)
    return lines


def pluralize(word: str) -> str:
    """Return the plural of an English word.

    >>> pluralize("city"), pluralize("box"), pluralize("cat")
    ('cities', 'boxes', 'cats')
    """
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    return word + "s"


def pig_latin(word: str) -> str:
    """Return a word in Pig Latin.

    >>> pig_latin("string"), pig_latin("apple")
    ('ingstray', 'appleway')
    """
    vowels = "aeiou"
    if word[0] in vowels:
        return word + "way"
    for i, char in enumerate(word):
        if char in vowels:
            return word[i:] + word[:i] + "ay"
    return word + "ay"


def greet(name: str) -> str:
    """Return a greeting for a name.

    >>> greet("Ann")
    'Hello, Ann!'
    """
    return f"Hello, {name}!"


def is_substring(text: str, part: str) -> bool:
    """Return whether a text has another as a part.

    >>> is_substring("hello", "ell")
    True
    """
    return part in text


def starts_with_vowel(text: str) -> bool:
    """Return whether the text starts with a vowel.

    >>> starts_with_vowel("apple")
    True
    """
    return bool(text) and text[0].lower() in "aeiou"


def alternate_case(text: str) -> str:
    """Return the text in alternating upper and lower case.

    >>> alternate_case("hello")
    'HeLlO'
    """
    return "".join(char.upper() if i % 2 == 0 else char.lower() for i, char in enumerate(text))


def center_text(text: str, width: int) -> str:
    """Return the text in the middle of a line.

    >>> center_text("ab", 6)
    '  ab  '
    """
    return text.center(width)


def split_lines(text: str) -> list[str]:
    """Return the lines of the text that are not empty.

    >>> split_lines("one\\n\\ntwo\\n")
    ['one', 'two']
    """
    return [line.strip() for line in text.splitlines() if line.strip()]
