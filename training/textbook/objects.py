"""Classes of everyday things."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


class BankAccount:
    """A bank account.

    >>> a = BankAccount("Ann", 100)
    >>> a.deposit(50); a.withdraw(30)
    >>> a.balance, a.get_balance()
    (120, 120)
    """

    def __init__(self, owner: str, balance: float = 0) -> None:
        self.owner = owner
        self.balance = balance

    def deposit(self, amount: float) -> None:
        if amount <= 0:
            raise ValueError("Deposit must be positive")
        self.balance += amount

    def withdraw(self, amount: float) -> None:
        if amount > self.balance:
            raise ValueError("Insufficient funds")
        self.balance -= amount

    def get_balance(self) -> float:
        return self.balance


class BankAccount__only:
    """An account with a balance.

    >>> a = BankAccount__only()
    >>> a.deposit(50)
    >>> a.withdraw(20)
    >>> a.balance
    30
    """

    def __init__(self, balance: float = 0) -> None:
        self.balance = balance

    def deposit(self, amount: float) -> None:
        self.balance += amount

    def withdraw(self, amount: float) -> None:
        if amount > self.balance:
            raise ValueError("Insufficient funds")
        self.balance -= amount


class Rectangle:
    """A rectangle.

    >>> r = Rectangle(3, 4)
    >>> r.area(), r.perimeter()
    (12, 14)
    """

    def __init__(self, width: float, height: float) -> None:
        self.width = width
        self.height = height

    def area(self) -> float:
        return self.width * self.height

    def perimeter(self) -> float:
        return 2 * (self.width + self.height)


class Square:
    """A square.

    >>> Square(3).area(), Square(3).perimeter()
    (9, 12)
    """

    def __init__(self, side: float) -> None:
        self.side = side

    def area(self) -> float:
        return self.side**2

    def perimeter(self) -> float:
        return 4 * self.side


class Circle:
    """A circle.

    >>> round(Circle(1).area(), 2), round(Circle(1).circumference(), 2)
    (3.14, 6.28)
    """

    def __init__(self, radius: float) -> None:
        self.radius = radius

    def area(self) -> float:
        return math.pi * self.radius**2

    def circumference(self) -> float:
        return 2 * math.pi * self.radius


class Circle__constant:
    """A circle.

    >>> round(Circle__constant(1).area(), 2), round(Circle__constant(1).circumference(), 2)
    (3.14, 6.28)
    """

    def __init__(self, radius: float) -> None:
        self.radius = radius

    def area(self) -> float:
        return 3.14159 * self.radius**2

    def circumference(self) -> float:
        return 2 * 3.14159 * self.radius


class Triangle:
    """A triangle.

    >>> Triangle(3, 4, 5).area(), Triangle(3, 4, 5).perimeter()
    (6.0, 12)
    """

    def __init__(self, a: float, b: float, c: float) -> None:
        self.a = a
        self.b = b
        self.c = c

    def perimeter(self) -> float:
        return self.a + self.b + self.c

    def area(self) -> float:
        s = self.perimeter() / 2
        return (s * (s - self.a) * (s - self.b) * (s - self.c)) ** 0.5


class Point:
    """A point in the plane.

    >>> Point(0, 0).distance(Point(3, 4)), Point(1, 2) == Point(1, 2), Point(1, 2)
    (5.0, True, Point(1, 2))
    """

    def __init__(self, x: float, y: float) -> None:
        self.x = x
        self.y = y

    def distance(self, other: Point) -> float:
        return ((self.x - other.x) ** 2 + (self.y - other.y) ** 2) ** 0.5

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and self.x == other.x and self.y == other.y

    def __repr__(self) -> str:
        return f"Point({self.x}, {self.y})"


class Vector:
    """A vector in the plane.

    >>> v = Vector(1, 2) + Vector(2, 2)
    >>> v, v.length(), v.dot(Vector(1, 1)), v * 2, v - v
    (Vector(3, 4), 5.0, 7, Vector(6, 8), Vector(0, 0))
    """

    def __init__(self, x: float, y: float) -> None:
        self.x = x
        self.y = y

    def __add__(self, other: Vector) -> Vector:
        return Vector(self.x + other.x, self.y + other.y)

    def __sub__(self, other: Vector) -> Vector:
        return Vector(self.x - other.x, self.y - other.y)

    def __mul__(self, factor: float) -> Vector:
        return Vector(self.x * factor, self.y * factor)

    def dot(self, other: Vector) -> float:
        return self.x * other.x + self.y * other.y

    def length(self) -> float:
        return (self.x**2 + self.y**2) ** 0.5

    def __repr__(self) -> str:
        return f"Vector({self.x}, {self.y})"


class Fraction:
    """A fraction in lowest terms.

    >>> Fraction(1, 2) + Fraction(1, 3), Fraction(1, 2) * Fraction(2, 3)
    (5/6, 1/3)
    """

    def __init__(self, numerator: int, denominator: int) -> None:
        if denominator == 0:
            raise ZeroDivisionError("denominator is zero")
        divisor = math.gcd(numerator, denominator)
        self.numerator = numerator // divisor
        self.denominator = denominator // divisor

    def __add__(self, other: Fraction) -> Fraction:
        numerator = self.numerator * other.denominator + other.numerator * self.denominator
        return Fraction(numerator, self.denominator * other.denominator)

    def __mul__(self, other: Fraction) -> Fraction:
        return Fraction(self.numerator * other.numerator, self.denominator * other.denominator)

    def __repr__(self) -> str:
        return f"{self.numerator}/{self.denominator}"


class Person:
    """A person.

    >>> Person("Ann", 30).greet(), Person("Ann", 30).is_adult()
    ('Hello, my name is Ann', True)
    """

    def __init__(self, name: str, age: int) -> None:
        self.name = name
        self.age = age

    def greet(self) -> str:
        return f"Hello, my name is {self.name}"

    def is_adult(self) -> bool:
        return self.age >= 18

    def __str__(self) -> str:
        return f"{self.name} ({self.age})"


class Student:
    """A student with grades.

    >>> s = Student("Ann")
    >>> s.add_grade(80); s.add_grade(90)
    >>> s.average()
    85.0
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.grades = []

    def add_grade(self, grade: float) -> None:
        self.grades.append(grade)

    def average(self) -> float:
        if not self.grades:
            return 0
        return sum(self.grades) / len(self.grades)


class Employee:
    """An employee.

    >>> e = Employee("Ann", 1000)
    >>> e.give_raise(10)
    >>> e.salary, e.annual_salary()
    (1100.0, 13200.0)
    """

    def __init__(self, name: str, salary: float) -> None:
        self.name = name
        self.salary = salary

    def give_raise(self, percent: float) -> None:
        self.salary = self.salary * (100 + percent) / 100

    def annual_salary(self) -> float:
        return self.salary * 12


class Animal:
    """An animal.

    >>> Animal("Tom").speak()
    'Tom makes a sound'
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def speak(self) -> str:
        return f"{self.name} makes a sound"


class Dog(Animal):
    """A dog.

    >>> Dog("Rex").speak()
    'Rex says Woof!'
    """

    def speak(self) -> str:
        return f"{self.name} says Woof!"


class Car:
    """A car.

    >>> c = Car("Ford", "T", 1908)
    >>> c.drive(10); c.drive(5)
    >>> c.mileage, str(c)
    (15, '1908 Ford T')
    """

    def __init__(self, make: str, model: str, year: int) -> None:
        self.make = make
        self.model = model
        self.year = year
        self.mileage = 0

    def drive(self, distance: float) -> None:
        self.mileage += distance

    def __str__(self) -> str:
        return f"{self.year} {self.make} {self.model}"


class Book:
    """A book.

    >>> str(Book("Emma", "Austen"))
    'Emma by Austen'
    """

    def __init__(self, title: str, author: str, pages: int = 0) -> None:
        self.title = title
        self.author = author
        self.pages = pages

    def __str__(self) -> str:
        return f"{self.title} by {self.author}"


class Temperature:
    """A temperature in degrees Celsius.

    >>> t = Temperature(100)
    >>> t.fahrenheit
    212.0
    """

    def __init__(self, celsius: float) -> None:
        self.celsius = celsius

    @property
    def fahrenheit(self) -> float:
        return self.celsius * 9 / 5 + 32


@dataclass
class Product:
    """A product with a price.

    >>> Product("pen", 2.0, 3).total()
    6.0
    """

    name: str
    price: float
    quantity: int = 0

    def total(self) -> float:
        return self.price * self.quantity


@dataclass
class User:
    """A user.

    >>> User("ann", "ann@example.com").domain
    'example.com'
    """

    name: str
    email: str

    @property
    def domain(self) -> str:
        return self.email.split("@")[1]


class Calculator:
    """A calculator.

    >>> c = Calculator()
    >>> c.add(2, 3), c.subtract(5, 3), c.multiply(2, 3), c.divide(6, 3)
    (5, 2, 6, 2.0)
    """

    def add(self, a: float, b: float) -> float:
        return a + b

    def subtract(self, a: float, b: float) -> float:
        return a - b

    def multiply(self, a: float, b: float) -> float:
        return a * b

    def divide(self, a: float, b: float) -> float:
        if b == 0:
            raise ValueError("Cannot divide by zero")
        return a / b


class Singleton:
    """A class with one object only.

    >>> Singleton() is Singleton()
    True
    """

    _instance: Any = None

    def __new__(cls) -> Singleton:
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance
