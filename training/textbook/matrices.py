"""Matrices, geometry, grids."""

import math
from typing import Any

Matrix = list[list[float]]


def transpose(matrix: Matrix) -> Matrix:
    """Return the matrix with rows and columns exchanged.

    >>> transpose([[1, 2], [3, 4]])
    [[1, 3], [2, 4]]
    """
    return [list(row) for row in zip(*matrix)]


def transpose__index(matrix: Matrix) -> Matrix:
    """Transpose a matrix.

    >>> transpose__index([[1, 2], [3, 4]])
    [[1, 3], [2, 4]]
    """
    return [[row[i] for row in matrix] for i in range(len(matrix[0]))]


def add_matrices(a: Matrix, b: Matrix) -> Matrix:
    """Return the sum of two matrices.

    >>> add_matrices([[1, 2]], [[3, 4]])
    [[4, 6]]
    """
    return [[x + y for x, y in zip(row_a, row_b)] for row_a, row_b in zip(a, b)]


def multiply_matrices(a: Matrix, b: Matrix) -> Matrix:
    """Return the product of two matrices.

    >>> multiply_matrices([[1, 2], [3, 4]], [[5, 6], [7, 8]])
    [[19, 22], [43, 50]]
    """
    result = [[0] * len(b[0]) for _ in range(len(a))]
    for i in range(len(a)):
        for j in range(len(b[0])):
            for k in range(len(b)):
                result[i][j] += a[i][k] * b[k][j]
    return result


def matrix_multiply(a: Matrix, b: Matrix) -> Matrix:
    """Multiply two matrices.

    >>> matrix_multiply([[1, 2], [3, 4]], [[5, 6], [7, 8]])
    [[19, 22], [43, 50]]
    """
    return [[sum(x * y for x, y in zip(row, column)) for column in zip(*b)] for row in a]


def scale_matrix(matrix: Matrix, factor: float) -> Matrix:
    """Return the matrix with every element multiplied by a factor.

    >>> scale_matrix([[1, 2]], 3)
    [[3, 6]]
    """
    return [[value * factor for value in row] for row in matrix]


def identity_matrix(n: int) -> list[list[int]]:
    """Return the identity matrix with n rows.

    >>> identity_matrix(2)
    [[1, 0], [0, 1]]
    """
    return [[1 if i == j else 0 for j in range(n)] for i in range(n)]


def zeros(rows: int, columns: int) -> list[list[int]]:
    """Return a matrix of zeros.

    >>> zeros(2, 3)
    [[0, 0, 0], [0, 0, 0]]
    """
    return [[0] * columns for _ in range(rows)]


def determinant(matrix: Matrix) -> float:
    """Return the determinant of a square matrix.

    >>> determinant([[1, 2], [3, 4]])
    -2
    """
    if len(matrix) == 1:
        return matrix[0][0]
    total = 0
    for j, value in enumerate(matrix[0]):
        minor = [row[:j] + row[j + 1 :] for row in matrix[1:]]
        total += (-1) ** j * value * determinant(minor)
    return total


def trace(matrix: Matrix) -> float:
    """Return the sum of the diagonal.

    >>> trace([[1, 2], [3, 4]])
    5
    """
    return sum(matrix[i][i] for i in range(len(matrix)))


def rotate_matrix(matrix: Matrix) -> Matrix:
    """Return the matrix turned clockwise by a quarter.

    >>> rotate_matrix([[1, 2], [3, 4]])
    [[3, 1], [4, 2]]
    """
    return [list(row) for row in zip(*matrix[::-1])]


def is_symmetric(matrix: Matrix) -> bool:
    """Return whether a matrix equals its transpose.

    >>> is_symmetric([[1, 2], [2, 1]])
    True
    """
    return all(matrix[i][j] == matrix[j][i] for i in range(len(matrix)) for j in range(len(matrix)))


def spiral_order(matrix: Matrix) -> list[float]:
    """Return the elements of a matrix in a spiral from outside.

    >>> spiral_order([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    [1, 2, 3, 6, 9, 8, 7, 4, 5]
    """
    result = []
    while matrix:
        result += matrix[0]
        matrix = [list(row) for row in zip(*matrix[1:])][::-1]
    return result


def row_sums(matrix: Matrix) -> list[float]:
    """Return the sum of each row.

    >>> row_sums([[1, 2], [3, 4]])
    [3, 7]
    """
    return [sum(row) for row in matrix]


def column_sums(matrix: Matrix) -> list[float]:
    """Return the sum of each column.

    >>> column_sums([[1, 2], [3, 4]])
    [4, 6]
    """
    return [sum(column) for column in zip(*matrix)]


def print_matrix(matrix: list[list[Any]]) -> None:
    """Print a matrix row by row.

    >>> print_matrix([[1, 2], [3, 4]])
    1 2
    3 4
    """
    for row in matrix:
        print(" ".join(str(value) for value in row))


def neighbors(row: int, column: int, rows: int, columns: int) -> list[tuple[int, int]]:
    """Return the cells beside a cell of a grid.

    >>> neighbors(0, 0, 2, 2)
    [(1, 0), (0, 1)]
    """
    result = []
    for dr, dc in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        r, c = row + dr, column + dc
        if 0 <= r < rows and 0 <= c < columns:
            result.append((r, c))
    return result


def count_islands(grid: list[list[int]]) -> int:
    """Return how many groups of ones touch each other in a grid.

    >>> count_islands([[1, 1, 0], [0, 0, 1]])
    2
    """
    seen = set()

    def visit(r: int, c: int) -> None:
        if 0 <= r < len(grid) and 0 <= c < len(grid[0]) and grid[r][c] and (r, c) not in seen:
            seen.add((r, c))
            visit(r + 1, c)
            visit(r - 1, c)
            visit(r, c + 1)
            visit(r, c - 1)

    count = 0
    for r in range(len(grid)):
        for c in range(len(grid[0])):
            if grid[r][c] and (r, c) not in seen:
                visit(r, c)
                count += 1
    return count


def distance(x1: float, y1: float, x2: float, y2: float) -> float:
    """Return the distance between two points.

    >>> distance(0, 0, 3, 4)
    5.0
    """
    return math.sqrt((x2 - x1) ** 2 + (y2 - y1) ** 2)


def euclidean_distance(a: list[float], b: list[float]) -> float:
    """Return the Euclidean distance between two points.

    >>> euclidean_distance([0, 0], [3, 4])
    5.0
    """
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b)))


def manhattan_distance(a: list[float], b: list[float]) -> float:
    """Return the distance between two points along the axes.

    >>> manhattan_distance([0, 0], [3, 4])
    7
    """
    return sum(abs(x - y) for x, y in zip(a, b))


def circle_area(radius: float) -> float:
    """Return the area of a circle.

    >>> round(circle_area(1), 4)
    3.1416
    """
    return math.pi * radius**2


def circle_circumference(radius: float) -> float:
    """Return the circumference of a circle.

    >>> round(circle_circumference(1), 4)
    6.2832
    """
    return 2 * math.pi * radius


def rectangle_area(width: float, height: float) -> float:
    """Return the area of a rectangle.

    >>> rectangle_area(3, 4)
    12
    """
    return width * height


def rectangle_perimeter(width: float, height: float) -> float:
    """Return the perimeter of a rectangle.

    >>> rectangle_perimeter(3, 4)
    14
    """
    return 2 * (width + height)


def triangle_area(base: float, height: float) -> float:
    """Return the area of a triangle.

    >>> triangle_area(3, 4)
    6.0
    """
    return base * height / 2


def heron(a: float, b: float, c: float) -> float:
    """Return the area of a triangle by its sides.

    >>> heron(3, 4, 5)
    6.0
    """
    s = (a + b + c) / 2
    return math.sqrt(s * (s - a) * (s - b) * (s - c))


def hypotenuse(a: float, b: float) -> float:
    """Return the longest side of a right triangle.

    >>> hypotenuse(3, 4)
    5.0
    """
    return math.sqrt(a**2 + b**2)


def sphere_volume(radius: float) -> float:
    """Return the volume of a sphere.

    >>> round(sphere_volume(1), 4)
    4.1888
    """
    return 4 / 3 * math.pi * radius**3


def midpoint(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    """Return the point between two points.

    >>> midpoint((0, 0), (2, 4))
    (1.0, 2.0)
    """
    return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2


def slope(x1: float, y1: float, x2: float, y2: float) -> float:
    """Return the slope of the line through two points.

    >>> slope(0, 0, 2, 4)
    2.0
    """
    if x1 == x2:
        raise ValueError("the line is vertical")
    return (y2 - y1) / (x2 - x1)


def linear_regression(xs: list[float], ys: list[float]) -> tuple[float, float]:
    """Return slope and intercept of the line that fits points best.

    >>> linear_regression([1, 2, 3], [2, 4, 6])
    (2.0, 0.0)
    """
    mean_x = sum(xs) / len(xs)
    mean_y = sum(ys) / len(ys)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys)) / sum((x - mean_x) ** 2 for x in xs)
    return slope, mean_y - slope * mean_x
