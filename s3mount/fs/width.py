"""How many parts are worth having under way at once: as many as do not wait for each other.

Owns: the number, from how long parts took.
Must not know: what a part is, who sends it, clocks. Plain and synchronous.

A part takes as long as the store needs to answer, and as its connection needs to carry it. Where that is all, twice as many parts at once
arrive in the same time: a distant store gives a connection little, and nothing while it thinks. Where the line is full, or a processor,
or the disk, twice as many take twice as long, and all that is more is memory. What tells the two apart is how long parts take beside the
shortest time that one of them took (TCP Vegas judges packets so):

    the share of a part's time in which it waits for others = 1 - shortest / seconds

         below a third: one more at once   |   above a half: one less   |   between: as it is

It begins with `least`, which fills most lines, and adds one with each part that arrives, so that one round later there are twice as many.
Where the store is far (`answered`), a round is long, and no connection carries much, for what is under way on it is little beside the
way: there it begins with `most`. Should it be the line that is slow, that is known from the end of the first file on, when few are left;
should it be near, and have answered late for another reason (it asked to slow down), its first part tells.

W1  least <= at_once <= most
"""

from __future__ import annotations

# Enough for most lines; few enough to be in memory anywhere.
LEAST = 16
# A store in 300 ms that gives a connection 9 MB/s carries 8 MiB in 1.2 s: there 21 at once are as good as sixteen connections that never
# pause, and 32 leave something for the first round and the last. The rest of the store's connections is for others (see cli/remote).
MOST = 32
# Shares of a part's time, see above. On a line that sixteen fill, a third is 24 at once: some memory, and nothing lost.
LITTLE, MUCH = 1 / 3, 1 / 2
# A store that takes so long to answer is far: a round of parts takes a second there, a large file a few rounds.
FAR_S = 0.2
# By how much the shortest time grows with each part: a line that has become slower for good is known for it after some thousand parts.
FORGETTING = 1.0005


class Width:
    """How many at once. Whoever sends parts tells of each that has arrived."""

    def __init__(self, *, least: int = LEAST, most: int = MOST) -> None:
        self.least, self.most = least, max(least, most)
        self.at_once = least
        self._is_guess = False
        self._shortest: dict[int, float] = {}

    def __repr__(self) -> str:
        return f"<Width {self.at_once} of {self.least} to {self.most}>"

    def answered(self, seconds: float) -> None:
        """The store took *seconds* to answer where nothing had to be carried."""
        if seconds >= FAR_S and not self._shortest:
            self.at_once = self.most
            self._is_guess = True

    def arrived(self, size: int, seconds: float, *, full: bool) -> None:
        """A part of *size* bytes took *seconds*. *full*: as many were under way as may be, else more would not have helped.

        Compared with its like: the sizes of whole parts are powers of two, and few. The last part of a file is like nothing.
        """
        if self._is_guess and seconds < FAR_S:
            self.at_once = self.least
        self._is_guess = False
        if size & (size - 1) or seconds <= 0:
            return
        shortest = self._shortest[size] = min(seconds, self._shortest.get(size, seconds) * FORGETTING)
        waited = 1 - shortest / seconds
        if waited < LITTLE and full:
            self.at_once = min(self.most, self.at_once + 1)
        elif waited > MUCH:
            self.at_once = max(self.least, self.at_once - 1)
