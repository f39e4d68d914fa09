"""`s3mount store check|sweep|scrub|rebuild`: looking after the embedded store's folder.

Owns: their options, what they print, the exit status: 1 where something is wrong with the folder.
Must not know: how the engine checks and mends.

A report is a value of the engine's: its numbers are printed as counts under their names, its lists as sentences. Lists of these names are
problems: PROBLEMS. With --json the report is one JSON object.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from s3mount.cli.open_store import data_folder, open_engine
from s3mount.cli.output import json_option, print_json, progress_bar, shown
from s3mount.cli.store_options import data_option
from s3mount.config import parse_duration
from s3mount.engine.engine import Engine

# What a user must hear of, and what makes the exit status 1.
PROBLEMS = ("problems", "damaged", "lost")

Totals = Callable[[int, int], None]
"""The engine's progress: what is done, and what there is to do."""


@click.group()
def store() -> None:
    """Look after the embedded store's folder.

    It looks after itself: a crash, a power cut and a lost index are mended when it is opened next.
    """


@store.command()
@data_option
@json_option
@click.pass_context
def check(ctx: click.Context, data: Path | None, as_json: bool) -> None:
    """Check the folder's invariants.

    Reads the log and the index, not the objects' bytes (scrub does). Exit status 1 where one is violated.
    """
    with _engine(data) as engine:
        problems = engine.check()
    ctx.exit(_tell("check", data, {"problems": list(problems)}, as_json=as_json))


@store.command()
@click.option("--grace", default="1h", show_default=True, metavar="DURATION", help="Leave alone what is younger.")
@data_option
@json_option
@click.pass_context
def sweep(ctx: click.Context, grace: str, data: Path | None, as_json: bool) -> None:
    """Drop what crashed and killed processes left behind.

    Running mounts do this by and by. Nothing that an object needs is ever dropped.
    """
    seconds = parse_duration(grace)
    with _engine(data) as engine:
        report = engine.sweep(grace_seconds=seconds)
    ctx.exit(_tell("sweep", data, record_of(report), as_json=as_json))


@store.command()
@data_option
@json_option
@click.pass_context
def scrub(ctx: click.Context, data: Path | None, as_json: bool) -> None:
    """Read every stored byte and verify its hash.

    What does not match is reported and moved into quarantine, never deleted. Exit status 1 where that happened.
    """
    with _engine(data) as engine, totals_bar("Reading", hidden=as_json) as progress:
        report = engine.scrub(progress)
    ctx.exit(_tell("scrub", data, record_of(report), as_json=as_json))


@store.command()
@click.option("--salvage", is_flag=True, help="Leave out records that cannot be read, and say what is lost, rather than give up.")
@data_option
@json_option
@click.pass_context
def rebuild(ctx: click.Context, salvage: bool, data: Path | None, as_json: bool) -> None:
    """Make the index anew from the log.

    Nobody else may use the folder meanwhile. Exit status 1 where something was lost.
    """
    with totals_bar("Replaying", hidden=as_json) as progress:
        report = Engine.rebuild(data_folder(data), salvage=salvage, progress=progress)
    ctx.exit(_tell("rebuild", data, record_of(report), as_json=as_json))


@contextmanager
def _engine(data: Path | None) -> Iterator[Engine]:
    engine = open_engine(data_folder(data), create=False)
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def totals_bar(label: str, *, hidden: bool) -> Iterator[Totals]:
    """A bar for work that tells its whole length as it goes along."""
    done_before = 0
    with progress_bar(label, None, hidden=hidden) as progress:

        def advance(done: int, total: int) -> None:
            nonlocal done_before
            progress(done - done_before, total)
            done_before = done

        yield advance


def record_of(report: Any) -> dict[str, Any]:
    """A report's fields by name: numbers, and lists of sentences."""
    return {
        field.name: list(map(str, value)) if isinstance(value := getattr(report, field.name), list | tuple) else value
        for field in dataclasses.fields(report)
    }


def _tell(action: str, data: Path | None, record: Mapping[str, Any], *, as_json: bool) -> int:
    problems = [line for name in PROBLEMS for line in record.get(name, ())]
    folder = data_folder(data)
    if as_json:
        print_json({"kind": action, "folder": str(folder), "clean": not problems, **record})
        return 1 if problems else 0
    for line in problems:
        click.echo(shown(line))
    counts = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in record.items() if not isinstance(value, list))
    verdict = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}" if problems else "clean"
    click.echo(f"{folder}: {verdict}{f' ({counts})' if counts else ''}")
    return 1 if problems else 0
