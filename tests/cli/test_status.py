"""What `s3mount status` makes of a mount's answer, and what the layers of a store tell."""

from __future__ import annotations

import io
import threading
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest

from s3mount.cli import status, waiting
from s3mount.errors import NotFound, Throttled
from s3mount.model import Key
from s3mount.store.memory import MemoryStore
from s3mount.store.s3.markers import NAME, Markers
from s3mount.store.wrap.base import Wrapper
from s3mount.store.wrap.faulty import Fault, Faulty, Script
from s3mount.store.wrap.limited import Limited
from s3mount.store.wrap.traced import Traced
from tests.cli.conftest import Command

BEHIND = {
    "pending": 3,
    "pending_bytes": 4096,
    "oldest_ns": 1,
    "refused": 1,
    "sent": 7,
    "sent_bytes": 10_000,
    "uptime_s": 5.0,
    "error": "The store is\x1b[2J away.",
}


def answer(**more: Any) -> dict[str, Any]:
    told = {"source": "s3://bucket", "mountpoint": "/mnt", "pid": 7, "began_ns": 0, "ending": False, "read_only": False, "options": {}}
    counts = {"open": 1, "changed": 2, "changed_bytes": 2000, "kept": 0, "waiting": [], "store": {}}
    return {**told, **counts, **more}


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A mount that gives these answers, one after another; the last one again and again."""
    answers: list[dict[str, Any]] = []

    def ask(path: Path, **_: object) -> dict[str, Any]:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    monkeypatch.setattr("s3mount.cli.status.control.ask", ask)
    monkeypatch.setattr("s3mount.cli.status.RATE_S", 0.0)
    return answers


async def test_the_layers_of_a_store_tell_what_was_asked_and_what_failed() -> None:
    script = Script()
    script.add("head", Fault(before=Throttled("Slow down.")))
    store = Traced(Limited(Faulty(MemoryStore(), script)))
    await store.put(Key("a"), b"x")
    for error in (Throttled, NotFound):
        with pytest.raises(error):
            await store.head(Key("none"))
    await store.head(Key("a"))
    assert status.tell(store) == {
        "requests": {"put": 1, "head": 3},
        "failures": {"Throttled": 1, "NotFound": 1},
        "under_way": 0,
        "queued": 0,
    }
    assert status.tell(MemoryStore()) == {}
    assert status.errands(store) == {}


class Forgetful(Wrapper):
    def let_go(self) -> int:
        return 5


def test_each_layer_of_a_store_is_asked_to_forget() -> None:
    assert status.let_go(Forgetful(Traced(Forgetful(MemoryStore())))) == 10


def test_status_of_a_mount_that_writes_back_says_how_much_how_old_and_how_fast(s3mount: Command, mounted: list[dict[str, Any]]) -> None:
    after = {**BEHIND, "sent_bytes": 30_000, "uptime_s": 7.0}
    mounted += [answer(store={"write_back": BEHIND}), answer(store={"write_back": after})]
    line = next(line for line in s3mount("status", "/mnt").lines if line.startswith("write-back"))
    assert "3 to send (4.0KB)" in line
    assert "9.8KB/s" in line
    assert "7 sent" in line
    assert "1 refused: see s3mount pending" in line
    assert "The store is" in line


def test_status_lists_the_oldest_of_what_waits_and_counts_the_rest(s3mount: Command, mounted: list[dict[str, Any]]) -> None:
    one = {"size": 5, "since_ns": 1, "reason": "Denied.", "tries": 4, "sending": False}
    mounted.append(answer(waiting=[{**one, "key": f"key{number}"} for number in range(12)], kept=2))
    done = s3mount("status", "/mnt")
    assert "waiting      key0, 5B: Denied. (tried 4 times)" in done.lines
    assert sum("waiting" in line for line in done.lines) == status.SHOWN
    assert "and 2 more: see s3mount pending" in done.text
    assert "2 that could not be stored" in done.text
    (record,) = s3mount("status", "--json", "/mnt").records
    assert len(record["waiting"]) == 12
    assert (record["waiting"][0]["since"], record["kind"]) == ("1970-01-01T00:00:00.000000Z", "status")


def test_status_says_what_the_service_lacks(s3mount: Command, mounted: list[dict[str, Any]]) -> None:
    """Regression: that it keeps no markers was in the answer to programs only."""
    mounted.append(answer(store=status.tell(Markers(MemoryStore())) | {"lacks": ["it does not sing"]}))
    lines = [line for line in s3mount("status", "/mnt").lines if line.startswith("service")]
    assert len(lines) == 2
    assert "it does not sing" in lines[0]
    assert NAME in lines[1]


def test_what_is_no_mount_is_refused(s3mount: Command, tmp_path: Path) -> None:
    done = s3mount("status", tmp_path)
    assert (done.status, done.err) == (2, f"s3mount: {tmp_path} is not in an s3mount file system.\n")


def test_what_is_left_to_store_is_what_is_changed_and_what_is_written_back() -> None:
    assert status.to_store(answer()) == (2, 2000)
    assert status.to_store(answer(store={"write_back": BEHIND})) == (5, 6096)


@pytest.mark.parametrize(
    ("files", "size", "text"), [(0, 0, "everything that was written is"), (1, 9, "1 file (9B) is"), (3, 4096, "3 files (4.0KB) are")]
)
def test_what_is_waited_for_is_said_in_one_sentence(files: int, size: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MOMENT_S", 0.0)
    monkeypatch.setattr(waiting, "LAST_WORD_S", 60.0)
    asked = threading.Event()

    def ask() -> dict[str, Any]:
        asked.set()
        return answer(changed=files, changed_bytes=size)

    with redirect_stderr(io.StringIO()) as err, waiting.told_meanwhile(ask):
        assert asked.wait(60)
    assert err.getvalue() == f"Waiting until {text} stored.\n"


def test_a_moment_is_waited_in_silence() -> None:
    with redirect_stderr(io.StringIO()) as err, waiting.told_meanwhile(lambda: None):
        pass
    assert err.getvalue() == ""
