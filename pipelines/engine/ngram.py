"""Guesses from text: where what was just written stands before, it may go on as it did there."""

from __future__ import annotations

from collections.abc import Sequence

# Ids that have to be equal before a place counts as a match; fewer are found everywhere.
SHORTEST = 3
# Matches longer than this are not told apart.
LONGEST = 24
# Places of a run of SHORTEST ids that are remembered, the newest ones.
_PLACES = 6
# Between texts that do not go on into each other.
BREAK = -1


class NgramIndex:
    """Ids that only grow, and where each run of SHORTEST of them stands. A few microseconds an id."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._places: dict[tuple[int, ...], list[int]] = {}  # a run of ids -> the places right after it

    def extend(self, ids: Sequence[int]) -> None:
        """Appends ids."""
        start = len(self.ids)
        self.ids += ids
        text = self.ids
        for end in range(max(start, SHORTEST - 1) + 1, len(text) + 1):
            run = tuple(text[end - SHORTEST : end])
            places = self._places.setdefault(run, [])
            places.append(end)
            if len(places) > _PLACES:
                del places[0]

    def find(self, tail: Sequence[int], own: bool) -> tuple[int, int]:
        """The place after the longest match of the end of `tail`, and its length; the newest of equally long ones.

        `own` leaves out the end of the index itself, which `tail` is. Length 0: there is none.
        """
        text = self.ids
        best = (0, 0)
        for place in reversed(self._places.get(tuple(tail[-SHORTEST:]), ())):
            if own and place == len(text):
                continue
            length = SHORTEST
            while length < min(LONGEST, len(tail), place) and text[place - 1 - length] == tail[-1 - length]:
                length += 1
            if length > best[1]:
                best = (place, length)
        return best

    def after(self, place: int, most: int) -> list[int]:
        """The ids that follow a place, up to the end of their text."""
        found = self.ids[place : place + most]
        return found[: found.index(BREAK)] if BREAK in found else found


class History:
    """What was generated before, for the same beginning or another: ends of prompts with their completions."""

    def __init__(self, most: int = 50_000, context: int = 64) -> None:
        """`most` ids are kept, then only the newer half; `context` ids of each prompt."""
        self._most, self._context = most, context
        self.clear()

    def clear(self) -> None:
        """Forgets all."""
        self.index = NgramIndex()

    def add(self, prompt: Sequence[int], generated: Sequence[int]) -> None:
        """Remembers a completion."""
        self.index.extend([*prompt[-self._context :], *generated, BREAK])
        if len(self.index.ids) > self._most:
            kept = self.index.ids[-self._most // 2 :]
            self.index = NgramIndex()
            self.index.extend(kept)


class Histories:
    """What was generated before, by salt: a right guess would tell one user what another was given."""

    def __init__(self, most_salts: int = 16) -> None:
        """Of salts those used last are kept, each with less than what all share."""
        self._most = most_salts
        self.clear()

    def clear(self) -> None:
        """Forgets all."""
        self._shared = History()
        self._salted: dict[str, History] = {}

    def of(self, salt: str | None) -> History:
        """The history of those with a salt, or without one."""
        if salt is None:
            return self._shared
        found = self._salted[salt] = self._salted.pop(salt) if salt in self._salted else History(most=10_000)
        if len(self._salted) > self._most:
            del self._salted[next(iter(self._salted))]
        return found
