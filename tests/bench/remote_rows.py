"""The rows: which work, on which wire, with which options, judged how.

Owns: the list.
Must not know: how a row is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench import remote_loads as loads
from tests.bench import remote_verdicts as verdicts
from tests.bench.remote_loads import Run, Sizes
from tests.bench.remote_verdicts import Verdict


@dataclass(frozen=True, slots=True)
class Row:
    """`options` are s3mount's; FOLDER in them is a local folder that a remount finds again.

    *prepare* is not measured. `slow`: how many times slower the wire is than usual; 0: no limits. `loop`: what the bare
    loop does beside, and on how many connections. `ours_only`: the peers have nothing like it.
    """

    issue: int
    title: str
    unit: str
    work: Callable[[Run], float]
    verdict: Verdict
    options: Sequence[str] = ()
    prepare: Callable[[Run], object] | None = None
    slow: float = 1.0
    loop: tuple[str, int] | None = None
    tls: bool = False
    ours_only: bool = False


READ = ("--read-only",)
READERS, WRITERS = ("read", 16), ("write", 16)
WARM = ("--read-only", "--cache-dir", "FOLDER/cache", "--metadata-ttl")
MINUTE = (*READ, "--metadata-ttl", "60s")
ALL = (*WARM, "1s", "--attributes", "full")
LATER = ("--write-back",)


def flat(sizes: Sizes) -> int:
    return sizes.flat_keys


def full(sizes: Sizes) -> int:
    return sizes.full_keys


def number(requests: int) -> Callable[[Sizes], int]:
    return lambda sizes: requests


long_flat, long_full = loads.list_long("flat", flat), loads.list_long("full", full)
again_flat, again_full = loads.list_and_remount("flat"), loads.list_and_remount("full")

ROWS = (
    # the first mount of a real data set
    Row(4, "sequential read, no latency", "MB/s", loads.read_sequentially, verdicts.sequential, READ, slow=0, loop=("read", 8)),
    Row(4, "sequential read over TLS, no latency", "MB/s", loads.read_sequentially, verdicts.processor_tls, READ, slow=0, tls=True),
    Row(4, "sequential read", "MB/s", loads.read_sequentially, verdicts.sequential_slow(1), READ, loop=READERS),
    Row(4, "sequential read, tenfold slower", "MB/s", loads.read_sequentially, verdicts.sequential_slow(10), READ, slow=10, loop=READERS),
    Row(4, "cp -r of small files", "files/s", loads.copy_small_out, verdicts.small_out, READ),
    Row(4, "random 4 KiB reads, 8 threads", "per s", loads.read_randomly, verdicts.randomly, READ),
    Row(4, "read a second time", "MB/s", loads.read_again, verdicts.no_gets, READ, prepare=loads.read_again),
    Row(
        4,
        "read again after a remount",
        "MB/s",
        loads.read_again,
        verdicts.no_gets,
        (*WARM, "1s"),
        prepare=loads.read_and_remount,
        ours_only=True,
    ),
    # names
    Row(5, "ls -l, flat", "keys/s", long_flat, verdicts.pages(flat, spare=5), READ),
    Row(5, "ls -f | head", "per s", loads.first_name, verdicts.at_most(number(5)), READ),
    Row(5, "find -size, deep", "files/s", loads.find_large, verdicts.at_most(number(15)), READ),
    Row(5, "du -s, the second", "files/s", loads.sum_up, verdicts.at_most(number(0)), MINUTE, prepare=loads.sum_up),
    Row(5, "stat in a directory not listed", "per s", loads.ask_for_names, verdicts.at_most(number(5)), READ),
    Row(5, "stat of absent names", "per s", loads.ask_for_absent_names, verdicts.at_most(number(0)), MINUTE, prepare=loads.list_names),
    Row(5, "ls -l after a remount", "keys/s", long_flat, verdicts.pages(flat, spare=0), (*WARM, "1s"), prepare=again_flat, ours_only=True),
    Row(
        5,
        "ls -l after a remount, in time",
        "keys/s",
        long_flat,
        verdicts.at_most(number(0)),
        (*WARM, "1h"),
        prepare=again_flat,
        ours_only=True,
    ),
    Row(5, "ls -l with all attributes", "keys/s", long_full, verdicts.heads_once, ALL),
    Row(5, "ls -l with all attributes, remounted", "keys/s", long_full, verdicts.heads_never, ALL, prepare=again_full, ours_only=True),
    # writing
    Row(
        6,
        "sequential write, no latency",
        "MB/s",
        loads.write_sequentially,
        verdicts.written,
        prepare=loads.prepare_large,
        slow=0,
        loop=("write", 8),
    ),
    Row(6, "sequential write", "MB/s", loads.write_sequentially, verdicts.written_slow(1), prepare=loads.prepare_large, loop=WRITERS),
    Row(
        6,
        "sequential write, tenfold slower",
        "MB/s",
        loads.write_sequentially,
        verdicts.written_slow(10),
        prepare=loads.prepare_large,
        slow=10,
        loop=WRITERS,
    ),
    Row(6, "cp -r of small files in", "files/s", loads.copy_small_in, verdicts.small_in, prepare=loads.make_tree),
    Row(
        6,
        "cp -r of small files in, --write-back",
        "files/s",
        loads.copy_small_in,
        verdicts.small_in_later,
        LATER,
        prepare=loads.make_tree_and_time_the_disk,
    ),
    Row(6, "rm -r", "files/s", loads.remove_tree, verdicts.removed, prepare=loads.fill_place),
    Row(6, "rm -r, --write-back", "files/s", loads.remove_tree, verdicts.removed_later, LATER, prepare=loads.fill_place, ours_only=True),
    Row(6, "4 KiB changed in the middle", "per s", loads.edit_middle, verdicts.edited, prepare=loads.put_large),
    Row(6, "rename of a directory", "files/s", loads.rename_tree, verdicts.renamed, prepare=loads.fill_place),
    Row(6, "rsync -a, unchanged", "files/s", loads.sync_again, verdicts.synced, prepare=loads.sync_first),
    Row(6, "eight large files at once", "MB/s", loads.write_eight, verdicts.bounded, prepare=loads.make_place, slow=0),
)
