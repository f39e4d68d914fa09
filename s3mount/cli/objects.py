"""`s3mount cp`, `mv`, `rm` and `cat`.

Owns: their options and what they print.
Must not know: how bytes move, how a tree is gone through.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click
import trio

from s3mount.cli import transfer
from s3mount.cli.copying import Copier, Item, remove_below, remove_empty_folders, rename_within, total_bytes
from s3mount.cli.open_store import Stores
from s3mount.cli.output import Progress, json_option, no_progress, print_json, progress_bar, shown
from s3mount.cli.places import File, Place, parse_bucket_url, parse_object_url, parse_place, plain_name
from s3mount.cli.store_options import Choice, store_options
from s3mount.cli.walk import for_each
from s3mount.config import StoreUrl
from s3mount.errors import NotFound, UsageError
from s3mount.model import Key
from s3mount.store.api import ObjectStore


class Report:
    """Says what was done, on standard output: JSON lines, one line per thing, or nothing."""

    def __init__(self, *, as_json: bool, verbose: bool) -> None:
        self._as_json = as_json
        self._verbose = verbose

    @property
    def talks(self) -> bool:
        """Whether lines appear, which a progress bar would mix with."""
        return self._as_json or self._verbose

    def __call__(self, line: str, **record: Any) -> None:
        if self._as_json:
            print_json(record)
        elif self._verbose:
            click.echo(shown(line))


verbose_option = click.option("-v", "--verbose", is_flag=True, help="Print a line for each thing that is done.")


@click.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.argument("target", metavar="TARGET")
@click.option("-r", "--recursive", is_flag=True, help="Copy directories and prefixes with all below them.")
@click.option("--content-type", metavar="TYPE", help="The objects' content type; default: by the file's name, or the source object's.")
@verbose_option
@store_options
@json_option
def cp(
    sources: tuple[str, ...], target: str, recursive: bool, content_type: str | None, verbose: bool, choice: Choice, as_json: bool
) -> None:
    """Copy between files and objects, either way, or between objects.

    SOURCE and TARGET are files, URLs such as local://BUCKET/KEY, or - for standard input or output.
    As with cp, a TARGET that is a directory (a bucket, a key that ends in /, a prefix with keys below it, a folder)
    takes the copies in under the sources' own names.
    """
    report = Report(as_json=as_json, verbose=verbose)
    places = [parse_place(source) for source in sources]
    goal = parse_place(target)

    async def copy() -> None:
        async with Stores(choice) as stores:
            copier = Copier(stores, content_type)
            await _copy_all(copier, await copier.targets(places, goal), recursive=recursive, move=False, report=report)
            await stores.sync()

    trio.run(copy)


Pairs = Sequence[tuple[Place, Place]]


async def _copy_all(copier: Copier, pairs: Pairs, *, recursive: bool, move: bool, report: Report) -> None:
    length = None if report.talks else await _length(copier, pairs, recursive=recursive)
    with progress_bar("Moving" if move else "Copying", length, hidden=report.talks or length is None) as progress:

        async def work(item: Item) -> None:
            await _copy_one(copier, item, progress, move=move, report=report)

        await for_each(copier.plan(pairs, recursive=recursive), work)


async def _length(copier: Copier, pairs: Pairs, *, recursive: bool) -> int | None:
    """The bytes there are to copy, if a bar will be shown that wants to know."""
    if not sys.stderr.isatty():
        return None
    return await total_bytes(copier.plan(pairs, recursive=recursive))


async def _copy_one(copier: Copier, item: Item, progress: Progress, *, move: bool, report: Report) -> None:
    await copier.copy(item, progress)
    if move:
        await copier.remove_source(item)
    report(f"{item.source} -> {item.target}", source=str(item.source), target=str(item.target), size=item.size, moved=move)


@click.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.argument("target", metavar="TARGET")
@verbose_option
@store_options
@json_option
def mv(sources: tuple[str, ...], target: str, verbose: bool, choice: Choice, as_json: bool) -> None:
    """Move or rename objects and whole prefixes.

    Within a bucket that is a rename: one step, whatever lies below a prefix. Between buckets, and between files and objects, it is a copy;
    each source goes when its copy is complete.
    """
    report = Report(as_json=as_json, verbose=verbose)
    trio.run(_move, [parse_place(source) for source in sources], parse_place(target), choice, report)


async def _move(sources: Sequence[Place], target: Place, choice: Choice, report: Report) -> None:
    async with Stores(choice) as stores:
        copier = Copier(stores)
        for source, place in await copier.targets(sources, target):
            if str(source) == "-" or str(target) == "-":
                raise UsageError("mv moves files and objects; standard input and output are for cp.")
            await _move_one(copier, source, place, report)
        await stores.sync()


async def _move_one(copier: Copier, source: Place, place: Place, report: Report) -> None:
    store = await copier.store_of(source)
    if isinstance(source, StoreUrl) and isinstance(place, StoreUrl) and source.store == place.store and _can_rename(store):
        keys = await rename_within(await copier.stores.open(source), source, place)
        report(f"{source} -> {place}", source=str(source), target=str(place), keys=keys, moved=True)
        return
    await _copy_all(copier, [(source, place)], recursive=True, move=True, report=report)
    if isinstance(source, File) and source.path.is_dir():
        await remove_empty_folders(source.path)


def _can_rename(store: ObjectStore | None) -> bool:
    return store is not None and store.capabilities.atomic_rename


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@click.option("-r", "--recursive", is_flag=True, help="Remove prefixes with all below them (of a bucket's URL: all its objects).")
@click.option("-f", "--force", is_flag=True, help="Do not mind what is not there.")
@verbose_option
@store_options
@json_option
def rm(urls: tuple[str, ...], recursive: bool, force: bool, verbose: bool, choice: Choice, as_json: bool) -> None:
    """Remove objects.

    With -r, what lies below the URL too, as if it were a directory: local://bucket/a does not stand for local://bucket/ab.
    """
    parsed = [parse_bucket_url(url) if recursive else parse_object_url(url) for url in urls]
    report = Report(as_json=as_json, verbose=verbose)

    async def remove() -> None:
        async with Stores(choice) as stores:
            for url in parsed:
                removed = await (_remove_tree if recursive else _remove_object)(await stores.open(url), url, report)
                if not removed and not force:
                    raise NotFound(f"There is nothing at {url}.")
                report(f"{url}", url=str(url), objects=removed, removed=True)
            await stores.sync()

    trio.run(remove)


async def _remove_object(store: ObjectStore, url: StoreUrl, report: Report) -> int:
    try:
        await store.head(Key(url.key))
    except NotFound:
        if (await store.find(plain_name(url))).is_directory:
            raise UsageError(f"{url} is a prefix: remove what is below it with -r.") from None
        return 0
    await store.delete(Key(url.key))
    return 1


async def _remove_tree(store: ObjectStore, url: StoreUrl, report: Report) -> int:
    with progress_bar(f"Removing {url}", None, hidden=report.talks) as progress:
        return await remove_below(store, url, progress)


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@store_options
def cat(urls: tuple[str, ...], choice: Choice) -> None:
    """Write objects to standard output.

    Each is one version of its object from its first byte to its last, whatever others write meanwhile.
    """
    parsed = [parse_object_url(url) for url in urls]

    async def write() -> None:
        async with Stores(choice) as stores:
            for url in parsed:
                pin = await (await stores.open(url)).pin(Key(url.key))
                try:
                    await transfer.write_out(pin, sys.stdout.buffer, no_progress)
                finally:
                    await pin.aclose()

    trio.run(write)
