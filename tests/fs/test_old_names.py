"""Random lives of directories of which some names cannot be deleted, other clients and mounts that end among them: each name shows what it
was given last, by whomever.
"""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio.testing

from s3mount.errors import AccessDenied, Exists, NoEntry, NotEmpty
from s3mount.fs import rename, resuming
from s3mount.model import Key
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.faulty import Faulty
from tests.fs.mounted import Mounted
from tests.fs.test_put_only import Rights, until

NAMES = [f"{directory}/{name}" for directory in "de" for name in "abc"]
STEPS = 12


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> None:
    """What is refused is said in the log."""


@dataclass
class Life:
    dice: random.Random
    folder: Path
    store: MemoryStore = field(default_factory=lambda: MemoryStore(LIKE_S3))
    rights: Rights = field(default_factory=Rights)
    said: dict[str, bytes] = field(default_factory=dict)
    count: int = 0

    def __post_init__(self) -> None:
        self.rights.of = tuple(self.dice.sample([*NAMES, "d/", "e/"], self.dice.randrange(1, 4)))
        self.mount = Mounted(Faulty(self.store, self.rights), journal=self.folder)

    def text(self) -> bytes:
        self.count += 1
        return b"%d" % self.count

    async def settle(self) -> None:
        """Until the background has moved what can be moved: what others put meanwhile where something was is seen late."""
        moving = self.mount.fs._volume.moving
        assert moving is not None
        await until(lambda: all(leg.late for leg in moving.overlay.legs()))

    async def write(self, name: str) -> None:
        with suppress(Exists):
            await self.mount.mkdir(name[0])
        self.said[name] = self.text()
        await self.mount.write(name, self.said[name])

    async def put(self, name: str) -> None:
        """By another client: not over what he sees there and we do not, nor over what the next mount would have to tell from that."""
        moving = self.mount.fs._volume.moving
        assert moving is not None
        if (name in self.store.bucket.keys and name not in self.said) or moving.overlay.lagging(name) is not None:
            return
        self.said[name] = self.text()
        await self.store.another().put(Key(name), self.said[name])

    async def remove(self, name: str) -> None:
        with suppress(NoEntry, AccessDenied):
            await self.mount.unlink(name)
            del self.said[name]

    async def rename(self, name: str) -> None:
        source, target = name[0], self.dice.choice([other for other in "deg" if other != name[0]])
        below = {name[0] for name in self.said}
        if source in below and target not in below:
            with suppress(AccessDenied, NotEmpty):
                await self.mount.rename(source, target)
                self.said = {target + name[1:] if name[0] == source else name: text for name, text in self.said.items()}

    async def look(self) -> None:
        seen = {f"{top}/{name}" for top in await self.mount.names() for name in await self.mount.names(top)}
        assert {name: await self.mount.read(name) for name in seen} == self.said
        self.mount.fs.check()

    async def live(self) -> None:
        async with self.mount.at_work():
            await self.settle()
            for _ in range(STEPS):
                step = self.dice.choice([self.write, self.write, self.put, self.put, self.rename, self.rename, self.remove])
                await step(self.dice.choice(NAMES))
                await self.settle()
                await self.look()

    async def again(self) -> None:
        """The mount dies, another one begins."""
        moving = self.mount.fs._volume.moving
        assert moving is not None
        moving.leave()
        self.mount = Mounted(Faulty(self.store, self.rights), journal=self.folder)
        await self.mount.fs.recover()
        await self.look()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
async def test_names_show_what_they_were_given_last(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(rename, "ANSWER_KEYS", 1000 if seed % 2 else 0)
    monkeypatch.setattr(resuming, "LARGE_KEYS", 256 if seed < 2 else 1)
    life = Life(random.Random(seed), tmp_path)
    for _ in range(3):
        await life.live()
        await life.again()
