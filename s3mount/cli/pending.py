"""`s3mount pending`, `retry`, `discard` and `export`: what could not be stored, and what becomes of it.

Owns: the four commands and what they print.
Must not know: where it is found (pending_items), how a record is sent (pending_send) or written out
(pending_export).

Nothing is lost by itself: a file whose close failed stays with its mount, which tries again; what the mount could not store by its end
stays in the journal of its bucket, under this user's state directory, until it is stored, exported or discarded here. All four work with
and without a running mount.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click
import trio

from s3mount.cli.open_store import Stores
from s3mount.cli.output import (
    NS_PER_S,
    human_option,
    json_option,
    print_json,
    progress_bar,
    shown,
    size_text,
    time_json,
)
from s3mount.cli.pending_export import export as export_record
from s3mount.cli.pending_export import export_from_mount
from s3mount.cli.pending_items import Item, everything, named, under
from s3mount.cli.pending_places import reached_as
from s3mount.cli.pending_send import decide, drain, remove, send
from s3mount.cli.places import path_of
from s3mount.cli.report import sentence
from s3mount.cli.store_options import Choice, store_options
from s3mount.errors import Busy, S3MountError, Unavailable, UsageError
from s3mount.fuse.control import PATIENCE_S

# What nobody sends by itself, or what has failed: these are for the user to deal with. The rest is on its way.
FOR_THE_USER = frozenset({"waiting", "failed", "kept"})

# How long a file may be held by a try that is just under way, as after each close, before it counts as in use.
HELD_S = 5.0
LOOK_AGAIN_S = 0.2

all_option = click.option("--all", "-a", "everything_there", is_flag=True, help="All that is listed.")


def age_text(since_ns: int) -> str:
    """How long ago, in the largest whole unit."""
    if not since_ns:
        return "-"
    seconds = max(0, time.time_ns() - since_ns) // NS_PER_S
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def item_json(item: Item) -> dict[str, Any]:
    return {
        "kind": "pending",
        "id": item.id or None,
        "url": str(item.url),
        "key": item.url.key,
        "state": item.state,
        "removal": item.is_removal,
        "size": item.size,
        "since": time_json(item.since_ns) if item.since_ns else None,
        "reason": item.reason or None,
        "tries": item.tries,
        "mountpoint": str(item.mount.path) if item.mount else None,
    }


def item_text(item: Item, *, human: bool) -> str:
    size = "removal" if item.is_removal else size_text(item.size, human=human)
    line = f"{item.id or '-':12} {size:>12} {age_text(item.since_ns):>4}  {item.state:8} {shown(str(item.url))}"
    return f"{line}\n{'':15}{shown(item.reason)}" if item.reason else line


# -- pending ------------------------------------------------------------------------------------


@click.command()
@click.argument("places", metavar="[URL|MOUNTPOINT]...", nargs=-1)
@human_option
@json_option
def pending(places: tuple[str, ...], human: bool, as_json: bool) -> None:
    """List what is not stored: why, since when, how large.

    Without an operand, everything of this user: in running mounts, and in the journals of all buckets, mounted or not. The states: waiting
    (its mount tries again), sending, queued (a mount with --write-back sends it), failed (refused for good), kept (its mount is over),
    renaming (its mount may neither copy nor delete the object, as a rename asks for, and tries again: what to do is to give it the right).
    """
    for item in under(everything(), places):
        if as_json:
            print_json(item_json(item))
        else:
            click.echo(item_text(item, human=human))


# -- what becomes of it -----------------------------------------------------------------------


def chosen(names: Sequence[str], *, everything_there: bool, queued: bool = False) -> list[Item]:
    """What the operands of a command mean; with --all, they are the places to look in. Raises UsageError, NotFound.

    *queued*: what no mount sends although it waits for one counts as well, and what renames have left.
    """
    items = everything()
    if everything_there:
        left = "queued" if queued else ""
        wanted = FOR_THE_USER | {"renaming"} if queued else FOR_THE_USER
        return [item for item in under(items, names) if item.state in wanted or (item.state == left and item.mount is None)]
    if not names:
        raise UsageError("Say what: a URL or an id that s3mount pending lists, or --all.")
    return named(items, names)


class Outcome:
    """What was done, told line by line; `finish` ends the command with 1 where something was not."""

    def __init__(self, done: str, *, as_json: bool) -> None:
        self._done = done
        self._as_json = as_json
        self._failed = 0

    async def each(self, items: Sequence[Item], act: Callable[[Item], Awaitable[Any]]) -> None:
        """Do *act* for each, whatever becomes of the others."""
        for item in items:
            try:
                more = await act(item)
            except (S3MountError, OSError) as error:
                self._failed += 1
                self._tell(item, error=sentence(error))
            else:
                self._tell(item, error=None, **(more or {}))

    def _tell(self, item: Item, *, error: str | None, **more: Any) -> None:
        done = "renamed" if item.is_renaming else self._done
        if self._as_json:
            print_json({**item_json(item), "done": None if error else done, "error": error, **more})
        elif error:
            click.echo(f"s3mount: {shown(str(item.url))}: {error}", err=True)
        else:
            click.echo(f"{shown(str(item.url))}: {done}{''.join(f' {value}' for value in more.values())}")

    def finish(self) -> None:
        if self._failed:
            sys.stdout.flush()
            raise click.exceptions.Exit(1)


@click.command()
@click.argument("names", metavar="[URL|ID]...", nargs=-1)
@all_option
@click.option("--overwrite", is_flag=True, help="Store it over whatever is there by now.")
@store_options
@json_option
def retry(names: tuple[str, ...], everything_there: bool, overwrite: bool, choice: Choice, as_json: bool) -> None:
    """Store now what could not be stored before, and finish what a rename has left.

    On the conditions on which it was to be stored: what somebody else has written meanwhile is not overwritten, unless --overwrite says so.
    The service is asked as the mount asked it; options say it anew. With --all, the operands are URLs or mount points to look in.
    """
    items = chosen(names, everything_there=everything_there, queued=True)
    outcome = Outcome("stored", as_json=as_json)

    async def work() -> None:
        async with Reached(choice, writes=True) as reached:
            await outcome.each(items, lambda item: _retry(reached, item, overwrite=overwrite))

    trio.run(work)
    outcome.finish()


async def _retry(reached: Reached, item: Item, *, overwrite: bool) -> None:
    if item.is_held:
        failed = (await _ask(item, "retry"))["failed"]
        if failed:
            raise Unavailable(next(iter(failed.values())))
    elif item.state == "queued" and item.mount is not None:
        raise Busy("its mount sends it by itself: s3mount status shows how far that is, s3mount flush waits for it.")
    elif item.state == "kept" or overwrite:
        await send(await reached.stores(item), item, overwrite=overwrite)
    elif item.mount is not None:
        await decide(item, "retry")
    else:
        await drain(await reached.stores(item), item)


async def _ask(item: Item, verb: str) -> dict[str, Any]:
    mount = item.mount
    assert mount is not None
    patience_s = None if verb == "retry" else PATIENCE_S
    return await trio.to_thread.run_sync(lambda: mount.ask(verb, keys=[item.url.key], patience_s=patience_s))


@click.command()
@click.argument("names", metavar="[URL|ID]...", nargs=-1)
@all_option
@json_option
def discard(names: tuple[str, ...], everything_there: bool, as_json: bool) -> None:
    """Throw away what could not be stored.

    The bucket stays as it is, and the bytes are gone for good. With --all, the operands are URLs or mount points to look in.
    """
    items = chosen(names, everything_there=everything_there)
    outcome = Outcome("discarded", as_json=as_json)
    trio.run(lambda: outcome.each(items, _discard))
    outcome.finish()


async def _discard(item: Item) -> None:
    if item.is_renaming:
        raise Busy("a rename has the object, and nothing but its old name or a copy would go: give the mount the right to do that.")
    if item.is_held:
        with trio.move_on_after(HELD_S):
            while True:
                if item.url.key in (await _ask(item, "discard"))["discarded"]:
                    return
                await trio.sleep(LOOK_AGAIN_S)
        raise Busy("a process has it open, or it is being stored just now.")
    elif item.state == "queued" and item.mount is not None:
        raise Busy("its mount sends it: remove the file there.")
    elif item.mount is not None:
        await decide(item, "discard")
    else:
        await remove(item)


@click.command()
@click.argument("names", metavar="[URL|ID]...", nargs=-1)
@click.argument("target", metavar="TARGET", type=click.Path(path_type=Path))
@all_option
@click.option("--partial", is_flag=True, help="Write zeros for what cannot be had any more, rather than nothing.")
@store_options
@json_option
def export(names: tuple[str, ...], target: Path, everything_there: bool, partial: bool, choice: Choice, as_json: bool) -> None:
    """Write what could not be stored into local files.

    TARGET is a folder, or the name of the new file for a single one; nothing is overwritten. What an edit has in common with the object
    that it is an edit of is fetched from there. It stays pending: discard it afterwards.
    """
    items = [item for item in chosen(names, everything_there=everything_there, queued=True) if not (item.is_removal or item.is_renaming)]
    if len(items) > 1 and not target.is_dir():
        raise UsageError(f"{target} is not a folder, and there are {len(items)} files to write.")
    outcome = Outcome("written to", as_json=as_json)
    paths = {id(item): target / path_of(item.url.key).name if target.is_dir() else target for item in items}

    async def work() -> None:
        async with Reached(choice) as reached:
            await outcome.each(items, lambda item: _export(reached, item, paths[id(item)], partial=partial))

    trio.run(work)
    outcome.finish()


async def _export(reached: Reached, item: Item, path: Path, *, partial: bool) -> dict[str, str]:
    with progress_bar(f"Writing {path.name}", item.size) as progress:
        if item.is_held and item.mount is not None:
            prefix = item.mount.url.key
            inside = item.url.key.removeprefix(prefix if not prefix or prefix.endswith("/") else f"{prefix}/")
            await export_from_mount(item, path, item.mount.path / path_of(inside), progress)
        else:
            await export_record(await reached.stores(item), item, path, progress, partial=partial)
    return {"file": str(path)}


class Reached:
    """The stores of the buckets that the items of one command belong to, each reached as its mount reached it.

    *writes*: and written to as the mount did, which says otherwise where the service has no markers of directories, say.
    """

    def __init__(self, given: Choice, *, writes: bool = False) -> None:
        self._given = given
        self._writes = writes
        self._stores: dict[Path, Stores] = {}
        self._ends = AsyncExitStack()

    async def __aenter__(self) -> Reached:
        return self

    async def __aexit__(self, *what: Any) -> None:
        await self._ends.aclose()

    async def stores(self, item: Item) -> Stores:
        assert item.place is not None
        folder = item.place.folder
        if folder not in self._stores:
            stores = Stores(reached_as(item.place, self._given).choice, writes=self._writes)
            self._stores[folder] = await self._ends.enter_async_context(stores)
        return self._stores[folder]
