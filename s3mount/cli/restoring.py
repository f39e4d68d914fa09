"""`s3mount restore`: have archived objects brought back.

Owns: its options and what it prints.
Must not know: how a request is made.
"""

from __future__ import annotations

import click
import trio

from s3mount.cli.output import json_option, print_json, shown
from s3mount.cli.places import parse_object_url
from s3mount.cli.remote import Remote
from s3mount.cli.store_options import Choice, store_options
from s3mount.config import StoreUrl
from s3mount.errors import UsageError


def parse_archived(text: str) -> StoreUrl:
    """A URL of an object that may be archived. Raises UsageError for one of the embedded store, which has no archive."""
    url = parse_object_url(text)
    if url.scheme != "s3":
        raise UsageError(f"{text} is never archived: restore is for s3://.")
    return url


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
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
def restore(urls: tuple[str, ...], days: int, tier: str, choice: Choice, as_json: bool) -> None:
    """Have archived objects brought back.

    An object in an archive (GLACIER, DEEP_ARCHIVE) cannot be read before that is done, which takes from minutes to two days.
    The command returns at once; `s3mount stat` shows the object, reading it succeeds when it is back.
    """
    parsed = [parse_archived(url) for url in urls]

    async def ask() -> None:
        remote = Remote(choice)
        for url in parsed:
            begun = await remote.restore(url, days=days, tier=tier.capitalize())
            if as_json:
                print_json({"kind": "object", "url": str(url), "restoring": True, "begun": begun})
            else:
                click.echo(f"{shown(str(url))}: {'will be restored' if begun else 'is being restored already'}")

    trio.run(ask)
