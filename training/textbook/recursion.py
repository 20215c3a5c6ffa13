"""Recursion, trees, graphs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Graph = dict[Any, list[Any]]


def countdown(n: int) -> None:
    """Print the numbers from n down to 1.

    >>> countdown(2)
    2
    1
    """
    while n > 0:
        print(n)
        n -= 1


def sum_recursive(numbers: list[int]) -> int:
    """Return the sum of the numbers by recursion.

    >>> sum_recursive([1, 2, 3])
    6
    """
    if not numbers:
        return 0
    return numbers[0] + sum_recursive(numbers[1:])


def hanoi(n: int, source: str, target: str, spare: str) -> list[tuple[str, str]]:
    """Return the moves that solve the towers of Hanoi with n disks.

    >>> hanoi(2, "A", "C", "B")
    [('A', 'B'), ('A', 'C'), ('B', 'C')]
    """
    if n == 0:
        return []
    moves = hanoi(n - 1, source, spare, target)
    moves.append((source, target))
    return moves + hanoi(n - 1, spare, target, source)


def permutations(items: list[Any]) -> list[list[Any]]:
    """Return all orders of the items.

    >>> permutations([1, 2, 3])[:2]
    [[1, 2, 3], [1, 3, 2]]
    """
    if len(items) <= 1:
        return [list(items)]
    result = []
    for i, item in enumerate(items):
        for rest in permutations(items[:i] + items[i + 1 :]):
            result.append([item] + rest)
    return result


def combinations(items: list[Any], k: int) -> list[list[Any]]:
    """Return all choices of k items.

    >>> combinations([1, 2, 3], 2)
    [[1, 2], [1, 3], [2, 3]]
    """
    if k == 0:
        return [[]]
    result = []
    for i in range(len(items) - k + 1):
        for rest in combinations(items[i + 1 :], k - 1):
            result.append([items[i]] + rest)
    return result


def subsets(items: list[Any]) -> list[list[Any]]:
    """Return all subsets of the items.

    >>> subsets([1, 2])
    [[], [1], [2], [1, 2]]
    """
    result = [[]]
    for item in items:
        result += [subset + [item] for subset in result]
    return result


def power_set(items: list[Any]) -> list[list[Any]]:
    """Return the power set of the items.

    >>> power_set([1, 2])
    [[1, 2], [1], [2], []]
    """
    if not items:
        return [[]]
    rest = power_set(items[1:])
    return [[items[0]] + subset for subset in rest] + rest


def ackermann(m: int, n: int) -> int:
    """Return the value of the Ackermann function.

    >>> ackermann(2, 3)
    9
    """
    if m == 0:
        return n + 1
    if n == 0:
        return ackermann(m - 1, 1)
    return ackermann(m - 1, ackermann(m, n - 1))


def climb_stairs(n: int) -> int:
    """Return in how many ways n stairs can be climbed by one or two at a time.

    >>> climb_stairs(4)
    5
    """
    a, b = 1, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def coin_change(coins: list[int], amount: int) -> int:
    """Return the fewest coins that make an amount, or -1.

    >>> coin_change([1, 2, 5], 11)
    3
    """
    best = [0] + [amount + 1] * amount
    for value in range(1, amount + 1):
        for coin in coins:
            if coin <= value:
                best[value] = min(best[value], best[value - coin] + 1)
    return best[amount] if best[amount] <= amount else -1


def knapsack(weights: list[int], values: list[int], capacity: int) -> int:
    """Return the largest value that fits into a knapsack.

    >>> knapsack([1, 3, 4], [15, 20, 30], 4)
    35
    """
    best = [0] * (capacity + 1)
    for weight, value in zip(weights, values):
        for room in range(capacity, weight - 1, -1):
            best[room] = max(best[room], best[room - weight] + value)
    return best[capacity]


def longest_increasing_subsequence(numbers: list[int]) -> int:
    """Return the length of the longest increasing subsequence.

    >>> longest_increasing_subsequence([10, 9, 2, 5, 3, 7, 101, 18])
    4
    """
    if not numbers:
        return 0
    lengths = [1] * len(numbers)
    for i in range(len(numbers)):
        for j in range(i):
            if numbers[j] < numbers[i]:
                lengths[i] = max(lengths[i], lengths[j] + 1)
    return max(lengths)


class TreeNode:
    """A node of a binary tree.

    >>> TreeNode(1).left is None
    True
    """

    def __init__(self, value: int, left: TreeNode | None = None, right: TreeNode | None = None) -> None:
        self.value = value
        self.left = left
        self.right = right


def tree_height(root: TreeNode | None) -> int:
    """Return the height of a binary tree.

    >>> tree_height(TreeNode(1, TreeNode(2)))
    2
    """
    if root is None:
        return 0
    return 1 + max(tree_height(root.left), tree_height(root.right))


def max_depth(root: TreeNode | None) -> int:
    """Return the depth of a tree.

    >>> max_depth(TreeNode(1, TreeNode(2)))
    2
    """
    if not root:
        return 0
    return 1 + max(max_depth(root.left), max_depth(root.right))


def count_nodes(root: TreeNode | None) -> int:
    """Return the number of nodes of a tree.

    >>> count_nodes(TreeNode(1, TreeNode(2)))
    2
    """
    if root is None:
        return 0
    return 1 + count_nodes(root.left) + count_nodes(root.right)


def inorder(root: TreeNode | None) -> list[int]:
    """Return the values of a tree in order.

    >>> inorder(TreeNode(2, TreeNode(1), TreeNode(3)))
    [1, 2, 3]
    """
    if root is None:
        return []
    return inorder(root.left) + [root.value] + inorder(root.right)


def preorder(root: TreeNode | None) -> list[int]:
    """Return the values of a tree, each before those below it.

    >>> preorder(TreeNode(2, TreeNode(1), TreeNode(3)))
    [2, 1, 3]
    """
    if root is None:
        return []
    return [root.value] + preorder(root.left) + preorder(root.right)


def level_order(root: TreeNode | None) -> list[list[int]]:
    """Return the values of a tree by level.

    >>> level_order(TreeNode(2, TreeNode(1), TreeNode(3)))
    [[2], [1, 3]]
    """
    levels = []
    nodes = [root] if root else []
    while nodes:
        levels.append([node.value for node in nodes])
        nodes = [child for node in nodes for child in (node.left, node.right) if child]
    return levels


def invert_tree(root: TreeNode | None) -> TreeNode | None:
    """Exchange left and right everywhere in a tree.

    >>> inorder(invert_tree(TreeNode(2, TreeNode(1), TreeNode(3))))
    [3, 2, 1]
    """
    if root is None:
        return None
    root.left, root.right = invert_tree(root.right), invert_tree(root.left)
    return root


class BinarySearchTree:
    """A binary search tree.

    >>> t = BinarySearchTree()
    >>> for x in (2, 1, 3): t.insert(x)
    >>> t.contains(3), t.contains(4), list(t)
    (True, False, [1, 2, 3])
    """

    def __init__(self) -> None:
        self.root = None

    def insert(self, value: int) -> None:
        if self.root is None:
            self.root = TreeNode(value)
            return
        current = self.root
        while True:
            if value < current.value:
                if current.left is None:
                    current.left = TreeNode(value)
                    return
                current = current.left
            else:
                if current.right is None:
                    current.right = TreeNode(value)
                    return
                current = current.right

    def contains(self, value: int) -> bool:
        current = self.root
        while current:
            if value == current.value:
                return True
            current = current.left if value < current.value else current.right
        return False

    def __iter__(self) -> Iterator[int]:
        yield from self._walk(self.root)

    def _walk(self, node: TreeNode | None) -> Iterator[int]:
        if node:
            yield from self._walk(node.left)
            yield node.value
            yield from self._walk(node.right)
