"""`s3mount restore`: have archived objects brought back.

Owns: its options and what it prints.
Must not know: how a request is made.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import click
import trio

from s3mount.cli.open_store import Stores
from s3mount.cli.output import json_option, print_json, shown
from s3mount.cli.places import as_prefix, parse_bucket_url, parse_object_url, with_key
from s3mount.cli.remote import Remote
from s3mount.cli.store_options import Choice, store_options
from s3mount.cli.walk import for_each, objects
from s3mount.config import StoreUrl
from s3mount.errors import Archived, NotFound, UsageError
from s3mount.store.api import ObjectStore

# The classes whose objects cannot be read before they are restored; INTELLIGENT_TIERING archives some and tells of none in a listing.
ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})


def parse_archived(text: str, *, recursive: bool = False) -> StoreUrl:
    """A URL of what may be archived. Raises UsageError for one of the embedded store, which has no archive."""
    url = parse_bucket_url(text) if recursive else parse_object_url(text)
    if url.scheme != "s3":
        raise UsageError(f"{text} is never archived: restore is for s3://.")
    return url


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@click.option("-r", "--recursive", is_flag=True, help="Restore every archived object below the URL.")
@click.option("--days", type=click.IntRange(min=1), default=7, show_default=True, help="How long the copies that can be read stay.")
@click.option(
    "--tier",
    type=click.Choice(["Standard", "Bulk", "Expedited"], case_sensitive=False),
    default="Standard",
    show_default=True,
    help="How fast, and how dear: hours, half a day, minutes.",
)
@store_options
@json_option
def restore(urls: tuple[str, ...], recursive: bool, days: int, tier: str, choice: Choice, as_json: bool) -> None:
    """Have archived objects brought back.

    An object in an archive (GLACIER, DEEP_ARCHIVE) cannot be read before that is done, which takes from minutes to two days.
    The command returns at once; `s3mount stat` shows the object, reading it succeeds when it is back.
    """
    parsed = [parse_archived(url, recursive=recursive) for url in urls]

    async def ask() -> None:
        remote = Remote(choice)

        async def one(url: StoreUrl) -> None:
            try:
                begun = await remote.restore(url, days=days, tier=tier.capitalize())
            except Archived:
                # The state that the service finds wrong is the other one here.
                raise UsageError(f"{shown(str(url))} is in no archive: it can be read as it is.") from None
            if as_json:
                print_json({"kind": "object", "url": str(url), "restoring": True, "begun": begun})
            else:
                click.echo(f"{shown(str(url))}: {'will be restored' if begun else 'is being restored already'}")

        async with Stores(choice) as stores:
            for url in parsed:
                if recursive:
                    await for_each(archived_below(await stores.open(url), url), one)
                else:
                    await one(url)

    trio.run(ask)


async def archived_below(store: ObjectStore, url: StoreUrl) -> AsyncGenerator[StoreUrl, None]:
    """The objects below *url* whose class is that of an archive. Raises NotFound where nothing at all is."""
    there = False
    async with aclosing(objects(store, as_prefix(url.key))) as listing:
        async for info in listing:
            there = True
            if info.storage_class in ARCHIVES:
                yield with_key(url, info.key)
    if not there:
        raise NotFound(f"There is nothing below {url}.")
