"""Several processes on one folder: writing, renaming, sweeping and compacting at once, some killed in the midst of it."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from s3mount.engine.engine import Engine
from s3mount.model import Key
from tests.conftest import ExpectLogs
from tests.engine.observe import BUCKET, leftovers, listed
from tests.engine.worker import assert_whole, content, read

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Engine.open(tmp_path / "data") as engine:
        engine.create_bucket(BUCKET)
    return tmp_path / "data"


@dataclass
class Child:
    """A worker process, and what it said so far."""

    folder: Path
    name: str
    seed: int
    turns: int
    kill_after: int = 0
    lines: list[str] = field(default_factory=list)

    def run(self) -> None:
        arguments = [str(self.folder), self.name, str(self.seed), str(self.turns)]
        with subprocess.Popen(
            [sys.executable, "-m", "tests.engine.worker", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            for line in process.stdout:
                self.lines.append(line)
                if len(self.lines) == self.kill_after:
                    process.send_signal(signal.SIGKILL)
            errors = process.stderr.read()
        expected = -signal.SIGKILL if self.kill_after and len(self.lines) >= self.kill_after else 0
        assert process.returncode == expected, errors

    def outcomes(self) -> tuple[dict[str, str | None], dict[str, str | None]]:
        """What was acknowledged, and what was begun last and not acknowledged."""
        known: dict[str, str | None] = {}
        pending: dict[str, str | None] = {}
        for line in self.lines:
            if not line.endswith("\n"):
                break
            said = json.loads(line)
            if "begin" in said:
                pending = said["begin"]
            if "done" in said:
                known.update(pending)
                pending = {}
        return known, pending


def run_all(children: Sequence[Child]) -> None:
    failures: list[BaseException] = []

    def run(child: Child) -> None:
        try:
            child.run()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(child,)) for child in children]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def judge(engine: Engine, child: Child) -> None:
    """Every acknowledged byte of *child* is there; what it had begun happened or did not, as a whole."""
    known, pending = child.outcomes()
    found = {str(info.key): read(engine, info.key) for info in listed(engine) if info.key.startswith(f"{child.name}/")}

    def wanted(texts: dict[str, str | None]) -> dict[str, bytes]:
        return {key: content(text) for key, text in texts.items() if text is not None}

    assert found in (wanted(known), wanted({**known, **pending}))


def settle(folder: Path, children: Sequence[Child]) -> None:
    with Engine.open(folder) as engine:
        assert engine.check() == []
        for child in children:
            judge(engine, child)
        for info in engine.list(BUCKET, "shared/").objects:
            assert_whole(read(engine, info.key))
        engine.sync()
        engine.sweep(grace_seconds=0)
        assert leftovers(engine) == []
        assert engine.scrub().damaged == ()
        assert engine.check() == []


@pytest.mark.slow
def test_two_processes_write_rename_and_sweep_at_once(folder: Path) -> None:
    children = [Child(folder, name, seed, turns=150) for seed, name in enumerate(("ann", "bob"))]
    run_all(children)
    settle(folder, children)


@pytest.mark.slow
def test_four_processes_write_rename_sweep_and_compact_at_once(folder: Path) -> None:
    children = [Child(folder, name, seed, turns=600) for seed, name in enumerate(("ann", "bob", "cyd", "dan"), start=10)]
    run_all(children)
    settle(folder, children)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_processes_lose_nothing_acknowledged_and_disturb_nobody(folder: Path, seed: int, expect_logs: ExpectLogs) -> None:
    expect_logs("The log was cut behind record")
    chance = random.Random(seed)
    survivor = Child(folder, "survivor", seed, turns=400)
    victims = [Child(folder, f"victim{n}", 10 * seed + n, turns=400, kill_after=chance.randrange(5, 250)) for n in range(3)]
    run_all([survivor, *victims])
    settle(folder, [survivor, *victims])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_process_that_is_killed_alone_among_its_removals_loses_nothing_acknowledged(
    folder: Path, seed: int, expect_logs: ExpectLogs
) -> None:
    expect_logs("The log was cut behind record")
    child = Child(folder, "alone", 100 + seed, turns=400, kill_after=60 + 20 * seed)
    run_all([child])
    settle(folder, [child])


def test_each_process_sees_the_others_commits_at_once(folder: Path) -> None:
    with Engine.open(folder) as one, Engine.open(folder) as two:
        for number in range(20):
            writer, reader = (one, two) if number % 2 else (two, one)
            writer.put(BUCKET, Key("key"), b"%d" % number * 5000, durable=False)
            assert read(reader, Key("key")) == b"%d" % number * 5000
            writer.rename(BUCKET, Key("key"), Key("other"), durable=False)
            assert [info.key for info in reader.list(BUCKET).objects] == ["other"]
            reader.rename(BUCKET, Key("other"), Key("key"), durable=False)


def test_threads_of_one_engine_write_at_once(folder: Path) -> None:
    with Engine.open(folder) as engine:

        def work(name: str) -> None:
            for number in range(30):
                engine.put(BUCKET, Key(f"{name}/{number}"), content(f"{name}-{number}-"), durable=number % 10 == 0)

        threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {str(info.key): read(engine, info.key) for info in listed(engine)} == {
            f"t{n}/{number}": content(f"t{n}-{number}-") for n in range(6) for number in range(30)
        }
        assert engine.check() == []
