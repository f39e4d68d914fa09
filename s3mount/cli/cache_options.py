"""The options of a mount that say how much is remembered of a store behind a network, where, and for how long.

Owns: their spelling, their help, their defaults where these depend on the mount.
Must not know: what a cache does with them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from s3mount.cache.options import CacheOptions
from s3mount.config import parse_size

MEMORY = click.option(
    "--memory-limit",
    type=parse_size,
    metavar="SIZE",
    default="512M",
    show_default=True,
    help="s3://: data buffers and tables together; parts that are being sent come on top, up to half as much.",
)
FOLDER = click.option(
    "--cache-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="s3://: keep what was read here as well, and across mounts. Default: in memory only.",
)
SIZE = click.option(
    "--cache-size", type=parse_size, metavar="SIZE", default="10G", show_default=True, help="s3://: what --cache-dir may grow to."
)
ATTRIBUTES = click.option(
    "--attributes",
    type=click.Choice(["list", "full"]),
    help="s3://: what a listing says, or modes, owners and links too, by a HEAD per object. Default: list with --read-only, else full.",
)


def cache_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """These options, handed to *function* as one parameter `cache`; it has the parameters `metadata_ttl` and `read_only` itself."""

    @functools.wraps(function)
    def with_cache(*arguments: Any, memory_limit: int, cache_dir: Path | None, cache_size: int, attributes: Any, **given: Any) -> Any:
        cache = CacheOptions(
            memory_limit=memory_limit,
            folder=cache_dir and cache_dir.expanduser().absolute(),
            disk_limit=cache_size,
            metadata_ttl_s=given["metadata_ttl"],
            attributes=attributes or ("list" if given["read_only"] else "full"),
        )
        return function(*arguments, cache=cache, **given)

    for option in (ATTRIBUTES, SIZE, FOLDER, MEMORY):
        with_cache = option(with_cache)
    return with_cache
