"""A process that works on a shared folder until it is told to stop or is killed; the other half of test_processes.

It writes objects, renames, edits, deletes, copies and sweeps under its own prefix, and now and then fights over shared keys. Before each
mutation it says on stdout what it is about to do, behind it that it was acknowledged: whoever killed it knows what has to be there.
"""

from __future__ import annotations

import json
import random
import sys
from functools import partial
from pathlib import Path

from s3mount.engine.engine import Engine
from s3mount.engine.log import Log
from s3mount.errors import NotFound
from s3mount.model import Key

BUCKET = "bucket"
SIZES = (10, 3000, 30_000)
SEGMENT_BYTES = 100_000


class Worker:
    """Does *turns* random mutations as *name*."""

    def __init__(self, engine: Engine, name: str, seed: int) -> None:
        self._engine = engine
        self._name = name
        self._chance = random.Random(seed)
        self._mine: dict[str, str] = {}
        self._number = 0

    def say(self, **what: object) -> None:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()

    def _mutate(self, changes: dict[str, str | None], act: object) -> None:
        """*changes*: keys of our own, and the text whose repetition they hold (None: absent) once it is done."""
        self.say(begin=changes)
        act()  # type: ignore[operator]
        self.say(done=changes)
        for key, text in changes.items():
            if text is None:
                self._mine.pop(key, None)
            else:
                self._mine[key] = text

    def _key(self) -> str:
        return f"{self._name}/{self._chance.randrange(4)}/{self._chance.randrange(8)}"

    def turn(self) -> None:
        engine, chance = self._engine, self._chance
        self._number += 1
        durable = chance.random() < 0.2
        choice = chance.randrange(20)
        if choice < 8:
            key, text = self._key(), f"{self._name}-{self._number}-"
            self._mutate({key: text}, lambda: engine.put(BUCKET, Key(key), content(text), durable=durable))
        elif choice < 11 and self._mine:
            source, target = chance.choice(sorted(self._mine)), self._key()
            changes: dict[str, str | None] = {source: None, target: self._mine[source]}
            self._mutate(changes, lambda: engine.rename(BUCKET, Key(source), Key(target), durable=durable))
        elif choice < 13 and self._mine:
            key = chance.choice(sorted(self._mine))
            self._remove(key, durable=durable)
        elif choice < 15 and self._mine:
            source, target = chance.choice(sorted(self._mine)), self._key()
            self._mutate({target: self._mine[source]}, lambda: engine.copy(BUCKET, Key(source), Key(target), durable=durable))
        elif choice == 15:
            self._rename_prefix()
        elif choice == 16:
            self._fight()
        elif choice == 17:
            engine.sync()
        elif choice == 18 and chance.random() < 0.3:
            engine.sweep(grace_seconds=0)
        elif choice == 19 and chance.random() < 0.2:
            engine.compact()

    def _remove(self, key: str, *, durable: bool) -> None:
        """And its neighbours, one behind the other."""
        for each in [name for name in sorted(self._mine) if name[:-1] == key[:-1]]:
            self._mutate({each: None}, partial(self._engine.delete, BUCKET, Key(each), durable=durable, lingers=True))

    def _rename_prefix(self) -> None:
        """Out and back again: whoever looks sees all of it under the one name or the other."""
        source, target = f"{self._name}/1/", f"{self._name}/moved/"
        moved = {key: text for key, text in self._mine.items() if key.startswith(source)}
        if moved:
            away = {key.replace(source, target): text for key, text in moved.items()}
            self._mutate({**dict.fromkeys(moved), **away}, lambda: self._engine.rename_prefix(BUCKET, source, target, durable=False))
            self._mutate({**dict.fromkeys(away), **moved}, lambda: self._engine.rename_prefix(BUCKET, target, source, durable=False))

    def _fight(self) -> None:
        """Everybody writes, moves, reads and removes these; what is read is always whole."""
        key, other = Key(f"shared/{self._chance.randrange(4)}"), Key(f"shared/{self._chance.randrange(4)}")
        self._engine.put(BUCKET, key, content(f"shared-{self._name}-{self._number}-"), durable=False)
        try:
            assert_whole(read(self._engine, other))
            self._engine.rename(BUCKET, other, key, durable=False)
            self._engine.delete(BUCKET, key, durable=False)
        except NotFound:
            pass


def content(text: str) -> bytes:
    """As long as the text's number decides: inline, or a body of its own."""
    size = SIZES[sum(text.encode()) % len(SIZES)]
    return (text.encode() * (size // len(text) + 1))[:size]


def assert_whole(data: bytes) -> None:
    text = data[: data.index(b"-", data.index(b"-", data.index(b"-") + 1) + 1) + 1] if data.count(b"-") > 2 else data
    assert data == (text * (len(data) // len(text) + 1))[: len(data)]


def read(engine: Engine, key: Key) -> bytes:
    reader = engine.open_object(BUCKET, key)
    try:
        buffer = bytearray(reader.info.size)
        reader.read_into(0, memoryview(buffer))
        return bytes(buffer)
    finally:
        reader.close()


def use_small_segments() -> None:
    """So that the log goes on to another segment now and then."""
    assert Log.__init__.__kwdefaults__ is not None
    Log.__init__.__kwdefaults__["segment_bytes"] = SEGMENT_BYTES


def main(folder: str, name: str, seed: str, turns: str) -> None:
    use_small_segments()
    with Engine.open(Path(folder)) as engine:
        worker = Worker(engine, name, int(seed))
        worker.say(ready=name)
        for _ in range(int(turns)):
            worker.turn()


if __name__ == "__main__":
    main(*sys.argv[1:])
