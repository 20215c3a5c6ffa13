"""Units, number systems, colours, time."""

import math
from datetime import date, datetime, timedelta


def celsius_to_fahrenheit(celsius: float) -> float:
    """Convert degrees Celsius to Fahrenheit.

    >>> celsius_to_fahrenheit(100)
    212.0
    """
    return celsius * 9 / 5 + 32


def fahrenheit_to_celsius(fahrenheit: float) -> float:
    """Convert degrees Fahrenheit to Celsius.

    >>> fahrenheit_to_celsius(212)
    100.0
    """
    return (fahrenheit - 32) * 5 / 9


def celsius_to_kelvin(celsius: float) -> float:
    """Convert degrees Celsius to Kelvin.

    >>> celsius_to_kelvin(0)
    273.15
    """
    return celsius + 273.15


def km_to_miles(km: float) -> float:
    """Convert kilometres to miles.

    >>> round(km_to_miles(10), 2)
    6.21
    """
    return km * 0.621371


def miles_to_km(miles: float) -> float:
    """Convert miles to kilometres.

    >>> round(miles_to_km(10), 2)
    16.09
    """
    return miles * 1.609344


def kg_to_pounds(kg: float) -> float:
    """Convert kilograms to pounds.

    >>> round(kg_to_pounds(1), 2)
    2.2
    """
    return kg * 2.20462


def inches_to_cm(inches: float) -> float:
    """Convert inches to centimetres.

    >>> inches_to_cm(10)
    25.4
    """
    return inches * 2.54


def minutes_to_hours(minutes: int) -> tuple[int, int]:
    """Return minutes as hours and minutes.

    >>> minutes_to_hours(135)
    (2, 15)
    """
    return minutes // 60, minutes % 60


def seconds_to_hms(seconds: int) -> tuple[int, int, int]:
    """Return seconds as hours, minutes and seconds.

    >>> seconds_to_hms(3725)
    (1, 2, 5)
    """
    hours = seconds // 3600
    minutes = seconds % 3600 // 60
    return hours, minutes, seconds % 60


def format_duration(seconds: int) -> str:
    """Return seconds as hours, minutes and seconds with colons.

    >>> format_duration(3725)
    '01:02:05'
    """
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}"


def time_to_seconds(text: str) -> int:
    """Return the seconds of a time written as hours, minutes and seconds.

    >>> time_to_seconds("01:02:05")
    3725
    """
    hours, minutes, seconds = map(int, text.split(":"))
    return hours * 3600 + minutes * 60 + seconds


def decimal_to_binary(n: int) -> str:
    """Return a whole number in binary.

    >>> decimal_to_binary(10)
    '1010'
    """
    if n == 0:
        return "0"
    digits = ""
    while n > 0:
        digits = str(n % 2) + digits
        n //= 2
    return digits


def to_binary(n: int) -> str:
    """Return the binary digits of n.

    >>> to_binary(5)
    '101'
    """
    return bin(n)[2:]


def binary_to_decimal(binary: str) -> int:
    """Return the number that binary digits stand for.

    >>> binary_to_decimal("1010")
    10
    """
    value = 0
    for digit in binary:
        value = value * 2 + int(digit)
    return value


def to_hex(n: int) -> str:
    """Return a number in hexadecimal.

    >>> to_hex(255)
    'ff'
    """
    return hex(n)[2:]


def hex_to_decimal(text: str) -> int:
    """Return the number that hexadecimal digits stand for.

    >>> hex_to_decimal("ff")
    255
    """
    return int(text, 16)


def to_base(n: int, base: int) -> str:
    """Return a number in a base of up to 36.

    >>> to_base(255, 16)
    'ff'
    """
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    if n == 0:
        return "0"
    result = ""
    while n > 0:
        result = digits[n % base] + result
        n //= base
    return result


def int_to_roman(number: int) -> str:
    """Return a number in Roman numerals.

    >>> int_to_roman(1994)
    'MCMXCIV'
    """
    values = [
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ]
    result = ""
    for value, numeral in values:
        while number >= value:
            result += numeral
            number -= value
    return result


def roman_to_int(text: str) -> int:
    """Return the number that Roman numerals stand for.

    >>> roman_to_int("MCMXCIV")
    1994
    """
    values = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
    total = 0
    previous = 0
    for char in reversed(text):
        value = values[char]
        if value < previous:
            total -= value
        else:
            total += value
        previous = value
    return total


def number_to_words(n: int) -> str:
    """Return a number below one hundred in words.

    >>> number_to_words(42)
    'forty-two'
    """
    ones = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ]
    tens = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    if n < 20:
        return ones[n]
    if n % 10 == 0:
        return tens[n // 10]
    return tens[n // 10] + "-" + ones[n % 10]


def ordinal(n: int) -> str:
    """Return a number with its ordinal ending.

    >>> ordinal(1), ordinal(12), ordinal(23)
    ('1st', '12th', '23rd')
    """
    if 10 <= n % 100 <= 20:
        return f"{n}th"
    return f"{n}" + {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")


def rgb_to_hex(red: int, green: int, blue: int) -> str:
    """Return a colour in hexadecimal.

    >>> rgb_to_hex(255, 128, 0)
    '#ff8000'
    """
    return f"#{red:02x}{green:02x}{blue:02x}"


def hex_to_rgb(color: str) -> tuple[int, ...]:
    """Return red, green and blue of a colour.

    >>> hex_to_rgb("#ff8000")
    (255, 128, 0)
    """
    color = color.lstrip("#")
    return tuple(int(color[i : i + 2], 16) for i in (0, 2, 4))


def degrees_to_radians(degrees: float) -> float:
    """Convert degrees to radians.

    >>> round(degrees_to_radians(180), 4)
    3.1416
    """
    return degrees * math.pi / 180


def string_to_list(text: str) -> list[str]:
    """Return the parts of a text that commas separate.

    >>> string_to_list("a, b")
    ['a', 'b']
    """
    return [part.strip() for part in text.split(",")]


def morse_code(text: str) -> str:
    """Return the letters of a text in Morse code.

    >>> morse_code("sos")
    '... --- ...'
    """
    codes = {
        "a": ".-",
        "b": "-...",
        "c": "-.-.",
        "d": "-..",
        "e": ".",
        "f": "..-.",
        "g": "--.",
        "h": "....",
        "i": "..",
        "j": ".---",
        "k": "-.-",
        "l": ".-..",
        "m": "--",
        "n": "-.",
        "o": "---",
        "p": ".--.",
        "q": "--.-",
        "r": ".-.",
        "s": "...",
        "t": "-",
        "u": "..-",
        "v": "...-",
        "w": ".--",
        "x": "-..-",
        "y": "-.--",
        "z": "--..",
    }
    return " ".join(codes[char] for char in text.lower() if char in codes)


def is_leap_year(year: int) -> bool:
    """Return whether a year is a leap year.

    >>> is_leap_year(2000), is_leap_year(1900), is_leap_year(2024)
    (True, False, True)
    """
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def is_leap_year__if(year: int) -> bool:
    """Check if a year is a leap year.

    >>> is_leap_year__if(2000), is_leap_year__if(1900), is_leap_year__if(2023)
    (True, False, False)
    """
    if year % 400 == 0:
        return True
    if year % 100 == 0:
        return False
    return year % 4 == 0


def days_in_month(month: int, year: int) -> int:
    """Return the number of days of a month.

    >>> days_in_month(2, 2024)
    29
    """
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def parse_date(text: str) -> date:
    """Return the date that a text like 2024-05-17 stands for.

    >>> parse_date("2024-05-17")
    datetime.date(2024, 5, 17)
    """
    return datetime.strptime(text, "%Y-%m-%d").date()


def format_date(day: date) -> str:
    """Return a date as year, month and day.

    >>> format_date(date(2024, 5, 17))
    '2024-05-17'
    """
    return day.strftime("%Y-%m-%d")


def days_between(start: date, end: date) -> int:
    """Return the number of days between two dates.

    >>> days_between(date(2024, 1, 1), date(2024, 3, 1))
    60
    """
    return abs((end - start).days)


def add_days(day: date, days: int) -> date:
    """Return the date some days later.

    >>> add_days(date(2024, 2, 28), 2)
    datetime.date(2024, 3, 1)
    """
    return day + timedelta(days=days)


def day_of_week(day: date) -> str:
    """Return the name of the day of the week.

    >>> day_of_week(date(2024, 5, 17))
    'Friday'
    """
    names = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    return names[day.weekday()]


def is_weekend(day: date) -> bool:
    """Return whether a date is a Saturday or Sunday.

    >>> is_weekend(date(2024, 5, 18))
    True
    """
    return day.weekday() >= 5


def calculate_age(birthday: date, today: date) -> int:
    """Return the age of a person in years.

    >>> calculate_age(date(1990, 6, 15), date(2024, 6, 14))
    33
    """
    years = today.year - birthday.year
    if (today.month, today.day) < (birthday.month, birthday.day):
        years -= 1
    return years


def date_range(start: date, end: date) -> list[date]:
    """Return all dates from start to end.

    >>> len(date_range(date(2024, 1, 1), date(2024, 1, 3)))
    3
    """
    return [start + timedelta(days=i) for i in range((end - start).days + 1)]


def timestamp() -> str:
    """Return the current time as text.

    >>> len(timestamp())
    19
    """
    return datetime.now().strftime("%Y-%m-%d %H:%M:%S")
