"""Names as numbers: how far apart two names are, and what stands between them.

Owns: the guess, from names that were seen, which characters may stand at which place.
Must not know: listings. Pure.

A ruler reads a name as a number in mixed radix: at each place one of an alphabet. Digits may stand where only one digit was seen so far,
because names that begin alike are listed first ("file-000000" to "file-000999"); other characters count where they were seen to change.
Names that do not fit are measured all the same, only worse: a guess that is wrong costs a request, never a key.

R1  `measure` never falls along the order of names.
"""

from __future__ import annotations

import math
import string
from bisect import bisect_left
from collections.abc import Iterable

DIGITS = string.digits
# The alphabets that names are written in, the smallest first.
FAMILIES = (
    DIGITS,
    DIGITS + "abcdef",
    DIGITS + "ABCDEF",
    string.ascii_lowercase,
    string.ascii_uppercase,
    DIGITS + string.ascii_lowercase,
    DIGITS + string.ascii_uppercase,
    DIGITS + string.ascii_uppercase + string.ascii_lowercase,
)

# Places that count behind the first one where names differ: finer than any page.
PLACES = 14


class Ruler:
    """Made from names in any order."""

    def __init__(self, names: Iterable[str]) -> None:
        seen: list[set[str]] = []
        shortest = len(max((names := list(names)), key=len, default=""))
        for name in names:
            shortest = min(shortest, len(name))
            seen.extend(set[str]() for _ in range(len(name) - len(seen)))
            for place, char in enumerate(name):
                seen[place].add(char)
        first = next((place for place, chars in enumerate(seen) if len(chars) > 1), len(seen))
        family = _family(char for chars in seen if len(chars) > 1 for char in chars if char.isalnum())
        self._alphabets = [_alphabet(chars, family) for chars in seen[: first + PLACES]]
        # How many places every name has; behind them a name may end, which counts as one more character before all others.
        self._all_have = shortest

    def __repr__(self) -> str:
        return f"<Ruler {[len(alphabet) for alphabet in self._alphabets]}>"

    @property
    def top(self) -> int:
        """Behind all numbers."""
        return self._room(0)

    def fits(self, names: Iterable[str]) -> bool:
        """Whether *names* would make the same ruler, as far as one can see from their characters."""
        return all(
            len(name) >= self._all_have and all(char in alphabet for char, alphabet in zip(name, self._alphabets, strict=False))
            for name in names
        )

    def measure(self, name: str) -> int:
        """The number of *name*."""
        number, beyond = 0, False
        for place, alphabet in enumerate(self._alphabets):
            may_end = int(place >= self._all_have)
            number *= len(alphabet) + may_end
            if beyond:
                number += len(alphabet) - 1 + may_end
            elif place < len(name):
                rank = bisect_left(alphabet, name[place])
                if rank == len(alphabet) or alphabet[rank] != name[place]:
                    beyond, rank = rank > 0 or may_end > 0, rank - 1
                number += max(0, rank + may_end)
                if rank < 0 and not may_end:
                    return number * self._room(place + 1)
        return number

    def _room(self, place: int) -> int:
        """How many numbers the places from *place* on tell apart."""
        return math.prod(len(alphabet) + int(at >= self._all_have) for at, alphabet in enumerate(self._alphabets) if at >= place)

    def name(self, number: int) -> str | None:
        """The name with that number, or one close to it; None beyond the last."""
        chars: list[str] = []
        for place in reversed(range(len(self._alphabets))):
            alphabet, may_end = self._alphabets[place], int(place >= self._all_have)
            number, rank = divmod(number, len(alphabet) + may_end)
            chars.append("" if rank < may_end else alphabet[rank - may_end])
        if number:
            return None
        chars.reverse()
        return "".join(chars[: chars.index("")] if "" in chars else chars)


def _family(chars: Iterable[str]) -> str:
    """The smallest alphabet that has all of *chars*, or none."""
    found = set(chars)
    return next((family for family in FAMILIES if found <= set(family)), "")


def _alphabet(chars: set[str], family: str) -> str:
    """What may stand at a place where *chars* were seen."""
    if len(chars) == 1:
        (char,) = chars
        if not char.isdigit():
            return char
        return family if family and set(DIGITS) <= set(family) and set(family) <= set(FAMILIES[1] + FAMILIES[2]) else DIGITS
    alphanumeric = {char for char in chars if char.isalnum()}
    return "".join(sorted(set(family if alphanumeric else "") | chars))
