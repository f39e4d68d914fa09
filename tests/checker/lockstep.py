"""Two directories that live the same life, one on a disk, one under test; and the shortest part of a life that tells them apart.

Owns: the order (each operation on the disk, then under test), the comparison, the sentence of a difference, shortening.
Must not know: what an operation does, how the tested directory is mounted.

    Difference: seed 7, operation 312 of 1000: pread(2, 4096, 100)
      disk  b'...'
      test  b'...'  (differs from byte 12)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.checker.operations import Operation
from tests.checker.sides import UNTOLD, Picture, Side, Value

# So many operations before the one that differs are told with it.
TOLD = 25


class Difference(AssertionError):
    """The sides do not agree."""


class Lockstep:
    """A life on *disk* and in *tested*, both empty directories. *remount*: unmounts and mounts *tested*; nothing is open meanwhile.

    `done` counts what came of the operations: a test in which most of them are refused proves little.
    """

    def __init__(self, disk: Path, tested: Path, remount: Callable[[], object] = lambda: None) -> None:
        self._disk = Side(disk)
        self._tested = Side(tested)
        self._remount = remount
        self.done: Counter[str] = Counter()

    def run(self, operations: Sequence[Operation], *, title: str = "") -> None:
        """Raises Difference. In the end nothing is open, and both trees are the same."""
        try:
            for number, operation in enumerate(operations):
                try:
                    self._step(operation)
                except Difference as error:
                    former = "".join(f"\n  {before}" for before in operations[max(0, number - TOLD) : number])
                    raise Difference(f"{title}, operation {number} of {len(operations)}: {error}\nafter{former}") from None
            self._settle("the end")
        finally:
            self.let_go()

    def let_go(self) -> None:
        for side in (self._disk, self._tested):
            side.let_go()

    def _step(self, operation: Operation) -> None:
        if operation.name == "remount":
            self._settle("before a remount")
            self._remount()
            self._compare_pictures("after a remount")
            return
        expected, got = self._disk.do(operation), self._tested.do(operation)
        self.done["refused" if isinstance(expected, str) and expected.startswith("E") else "done"] += 1
        if expected != got:
            raise Difference(f"{operation}\n  disk  {shown(expected)}\n  test  {shown(got)}{_where(expected, got)}")

    def _settle(self, when: str) -> None:
        expected, got = self._disk.let_go(), self._tested.let_go()
        if expected != got:
            raise Difference(f"closing all, {when}\n  disk  {expected!r}\n  test  {got!r}")
        self._compare_pictures(when)

    def _compare_pictures(self, when: str) -> None:
        expected, got = self._disk.picture(), self._tested.picture()
        lines = [
            f"\n  {path}\n    disk  {expected.get(path)}\n    test  {got.get(path)}"
            for path in sorted({*expected, *got})
            if not _agree(expected, got, path)
        ]
        if lines:
            raise Difference(f"the trees, {when}:" + "".join(lines))


def _agree(expected: Picture, got: Picture, path: str) -> bool:
    if path not in expected or path not in got:
        return False
    *rest, time = expected[path]
    *other_rest, other_time = got[path]
    return rest == other_rest and (time == other_time or UNTOLD in (time, other_time))


def shown(value: Value) -> str:
    if isinstance(value, bytes) and len(value) > 40:
        return f"{value[:40]!r}... ({len(value)} bytes)"
    return repr(value)


def _where(one: Value, other: Value) -> str:
    if not isinstance(one, bytes) or not isinstance(other, bytes):
        return ""
    first = next((at for at, (left, right) in enumerate(zip(one, other, strict=False)) if left != right), min(len(one), len(other)))
    wrong = sum(left != right for left, right in zip(one, other, strict=False))
    return f" (from byte {first} on, {wrong} are wrong; there {other[first : first + 8]!r} for {one[first : first + 8]!r})"


def shortened(operations: Sequence[Operation], differs: Callable[[Sequence[Operation]], bool], *, tries: int) -> Sequence[Operation]:
    """A part of *operations* that still differs, and of which no run of any length could be left out; or what is found after *tries*."""
    size = len(operations) // 2
    while size and tries:
        at = 0
        while at < len(operations) and tries:
            tries -= 1
            without = [*operations[:at], *operations[at + size :]]
            if differs(without):
                operations = without
            else:
                at += size
        size //= 2
    return operations
