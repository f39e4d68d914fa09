"""An application whose directory has so many files that its rename is answered before it is carried out.

Owns: the moves of the directory, what is done in it while its files are still on their way, when a move counts as arrived.
Must not know: how the directory got its files, what makes the day bad, the store.

    here --rename--> there --rename--> away ...    what is below is written, read, cut, described and removed meanwhile
       a rename is acknowledged by the name that one sees; that it is in the bucket, by fsync of the directory above
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.soak.insistent import Insistent

PLACES = ("here", "there", "away")
# Files of which the bucket is asked after a rename arrived.
SAMPLE = 5


@dataclass
class Crowd(Insistent):
    """Begins with the files that *world* has, all of them below `place`."""

    place: str = PLACES[0]
    former: str = ""

    def _changes(self) -> Sequence[tuple[Callable[[Insistent, random.Random], None], int]]:
        return CHANGES

    def _new_name(self, rng: random.Random) -> str:
        return f"{self.place}/new-{rng.randrange(8)}"

    def _some(self, rng: random.Random) -> str | None:
        return rng.choice(sorted(self.world)) if self.world else None

    def march(self, rng: random.Random) -> None:
        place = rng.choice([other for other in PLACES if other != self.place])
        self._insist(lambda: os.rename(self.home / self.place, self.home / place), lambda: self._move_if_there(self.place, place))
        moved = {name: place + name[len(self.place) :] for name in self.world}
        self.world = {moved[name]: content for name, content in self.world.items()}
        self.notes = {moved[name]: note for name, note in self.notes.items()}
        self.former, self.place = self.place, place

    def halt(self, rng: random.Random) -> None:
        """Until all have arrived."""
        self._insist(self._sync)
        for name in rng.sample(sorted(self.world), min(SAMPLE, len(self.world))):
            self.acknowledged(name, self.world[name], self.notes.get(name))
            if self.former:
                self.acknowledged(self.former + name[len(self.place) :], None, None)

    def look(self, rng: random.Random) -> None:
        expected = {name[len(self.place) + 1 :] for name in self.world}

        def act() -> None:
            found = set(os.listdir(self.home / self.place))
            assert found == expected, f"{self.place}: without {sorted(expected - found)[:5]}, with {sorted(found - expected)[:5]}"

        self._insist(act)


CHANGES: list[tuple[Callable[[Insistent, random.Random], None], int]] = [
    (Crowd.march, 6),  # type: ignore[list-item]
    (Crowd.halt, 3),  # type: ignore[list-item]
    (Crowd.look, 8),  # type: ignore[list-item]
    (Crowd.read, 20),
    (Crowd.write, 6),
    (Crowd.append, 8),
    (Crowd.edit, 8),
    (Crowd.describe, 6),
    (Crowd.rename, 6),
    (Crowd.save, 4),
    (Crowd.unlink, 3),
]
