"""What the commands print: JSON lines for programs, sizes and times for people, progress bars for terminals.

Owns: the shape of every line on standard output, when a bar is shown.
Must not know: stores, engines, which command prints.

With `--json` a command writes JSON lines: one object per thing, nothing else, on standard output. Times are ISO 8601 in UTC, sizes bytes.
Without it, control characters of names are shown as \\xNN on a terminal, and passed on as they are to a pipe.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

import click

from s3mount.model import ObjectInfo

NS_PER_S = 1_000_000_000
UNITS = "KMGTPE"


class Progress(Protocol):
    """Called with how much more is done, from any thread; *total* is the whole, where it became known only now."""

    def __call__(self, done: int, total: int | None = None, /) -> None: ...


def json_option(function: Any) -> Any:
    """The option `--json` (parameter `as_json`)."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON lines, one object per thing, for programs.")(function)


def human_option(function: Any) -> Any:
    """The option `-H/--human` (parameter `human`)."""
    return click.option("-H", "--human", is_flag=True, help="Print sizes as 1.5M rather than bytes.")(function)


def print_json(record: Mapping[str, Any]) -> None:
    """One line of JSON."""
    click.echo(json.dumps(record, ensure_ascii=True))


def shown(name: str) -> str:
    """*name* as it may be printed: on a terminal, control characters would be commands to it."""
    if not sys.stdout.isatty():
        return name
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in name)


def size_text(size: int, *, human: bool = False) -> str:
    """*size* in bytes, or as 999, 1.5K, 15M (powers of 1024)."""
    if not human or size < 1024:
        return str(size)
    power = min((size.bit_length() - 1) // 10, len(UNITS))
    value = size / 1024**power
    if value >= 1023.5 and power < len(UNITS):
        value, power = value / 1024, power + 1
    return f"{value:.1f}{UNITS[power - 1]}" if value < 9.95 else f"{value:.0f}{UNITS[power - 1]}"


def files_text(count: int) -> str:
    """As in `1 file` or `3 files`."""
    return "1 file" if count == 1 else f"{count} files"


def time_text(time_ns: int) -> str:
    """Local time to the second."""
    return datetime.fromtimestamp(time_ns // NS_PER_S, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def time_json(time_ns: int) -> str:
    """ISO 8601 in UTC, with microseconds."""
    moment = datetime.fromtimestamp(time_ns // NS_PER_S, tz=UTC).replace(microsecond=time_ns % NS_PER_S // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def object_json(info: ObjectInfo, url: str) -> dict[str, Any]:
    """Everything known about an object."""
    return {
        "kind": "object",
        "url": url,
        "key": info.key,
        "size": info.size,
        "etag": info.etag,
        "modified": time_json(info.mtime_ns),
        "content_type": info.content_type,
        "storage_class": info.storage_class,
        "metadata": dict(info.metadata) if info.metadata is not None else None,
        "file_id": info.file_id,
        "links": info.links,
        "version_id": info.version_id,
    }


def no_progress(done: int, total: int | None = None, /) -> None:
    """For where nobody looks."""


@contextmanager
def progress_bar(label: str, length: int | None, *, hidden: bool = False) -> Iterator[Progress]:
    """A bar on stderr while *length* (bytes or things; None: unknown) is worked off; nothing where stderr is no terminal."""
    if hidden or not sys.stderr.isatty():
        yield no_progress
        return
    lock = threading.Lock()
    with click.progressbar(length=length or 0, label=label, file=sys.stderr, show_pos=not length) as bar:

        def advance(done: int, total: int | None = None, /) -> None:
            with lock:
                if total is not None:
                    bar.length, bar.show_pos = total, False
                bar.update(done)

        yield advance
