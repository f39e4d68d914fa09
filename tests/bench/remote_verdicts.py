"""What came of a row, and the sentence that compares it with its aim: each figure says what to reach, and whether it is reached.

Owns: results, the wire's figures, the sentences.
Must not know: how the figures were got.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tests.bench.remote_field import Cost
from tests.bench.remote_loads import PAGE, MiB, Sizes
from tests.wire.front import Counts

LATENCY_S = 0.030
RATE = 90e6
# What one reader or writer may use of a service at once, and what the aims are counted in.
CONNECTIONS = 16
KIND_READ = ("GET", "GET-range")


@dataclass
class Result:
    """What came of it."""

    amount: float
    seconds: float
    counts: Counts
    cost: Cost
    notes: list[str]

    @property
    def rate(self) -> float:
        return self.amount / self.seconds

    def requests(self, *kinds: str) -> int:
        return sum(self.counts[kind].requests for kind in kinds)


Results = dict[str, Result]


class Verdict(Protocol):
    def __call__(self, ours: Result, peers: Results, sizes: Sizes) -> str: ...


# -- sentences ---------------------------------------------------------------------------------


def least(figure: float, unit: str, aim: float, *, places: int = 0) -> str:
    return f"{figure:.{places}f} {unit} ({reached(aim, figure >= aim)})"


def most(figure: float, unit: str, aim: float, *, places: int = 0) -> str:
    return f"{figure:.{places}f} {unit} ({reached(aim, figure <= aim)})"


def reached(aim: float, there: bool) -> str:
    return f"reach {aim:g}: {'reached' if there else 'NOT reached'}"


def best(peers: Results) -> Result | None:
    mounts = [result for name, result in peers.items() if name != "bare loop"]
    return max(mounts, key=lambda result: result.rate) if mounts else None


def beside(ours: Result, peers: Results, aim: float = 0) -> str:
    """Without *aim* as a figure only."""
    peer = best(peers)
    if peer is None:
        return "no peer"
    times, unit = ours.rate / peer.rate, "x the better peer"
    return least(times, unit, aim, places=2) if aim else f"{times:.2f} {unit}"


def of_connections(ours: Result, times: float, aim: float) -> str:
    share = ours.rate * 1e6 / (CONNECTIONS * RATE / times)
    return least(share, f"of {CONNECTIONS} connections", aim, places=2)


def per_gib(ours: Result, sizes: Sizes) -> float:
    return ours.cost.cpu_s * (1 << 30) / sizes.large


def processor(ours: Result, sizes: Sizes, aim: float) -> str:
    return most(per_gib(ours, sizes), "s of CPU per GiB", aim, places=2)


# -- reading -----------------------------------------------------------------------------------


def sequential(ours: Result, peers: Results, sizes: Sizes) -> str:
    share = least(ours.rate / peers["bare loop"].rate, "of the bare loop", 0.6, places=2)
    return f"{beside(ours, peers, 2)}, {share}, {processor(ours, sizes, 1.0)}"


def sequential_slow(times: float) -> Verdict:
    """On a wire so many *times* slower than usual: at ten, not even a busy processor matters, only what is under way at once."""

    def verdict(ours: Result, peers: Results, sizes: Sizes) -> str:
        loop = f"{ours.rate / peers['bare loop'].rate:.2f} of the bare loop on so many"
        first = float(ours.notes[0].split()[2]) / 1000 / (LATENCY_S * times)
        trips = most(first, "round trips to the first byte", 2, places=1)
        return f"{of_connections(ours, times, 0.9)}, {loop}, {trips}, {beside(ours, peers)}"

    return verdict


def processor_tls(ours: Result, peers: Results, sizes: Sizes) -> str:
    return f"{processor(ours, sizes, 1.8)}, {beside(ours, peers)}"


def small_out(ours: Result, peers: Results, sizes: Sizes) -> str:
    return f"{beside(ours, peers, 5)}, {most(ours.requests(*KIND_READ), 'GETs', int(sizes.small_files * 1.05))}"


def randomly(ours: Result, peers: Results, sizes: Sizes) -> str:
    sent = sum(ours.counts[kind].sent for kind in KIND_READ) / (sizes.random_reads * PAGE)
    ideal = sizes.random_reads * LATENCY_S / 8
    return f"{most(sent, 'x the bytes read', 3, places=1)}, {most(ours.seconds / ideal, 'x the ideal time', 1.2, places=2)}"


def no_gets(ours: Result, peers: Results, sizes: Sizes) -> str:
    return most(ours.requests(*KIND_READ), "GETs", 0)


# -- names -------------------------------------------------------------------------------------


def pages(count: Callable[[Sizes], int], *, spare: int) -> Verdict:
    def verdict(ours: Result, peers: Results, sizes: Sizes) -> str:
        needed = -(-count(sizes) // 1000)
        lists = ours.counts["LIST"]
        said = most(ours.counts.total, f"requests, {lists.requests} of them LISTs", needed + spare)
        at_once = least(lists.peak, "at once", min(4, needed))
        return f"{said}, {at_once}, {most(ours.cost.peak_mib, 'MiB', 300)}, {beside(ours, peers)}"

    return verdict


def at_most(requests: Callable[[Sizes], int]) -> Verdict:
    def verdict(ours: Result, peers: Results, sizes: Sizes) -> str:
        return f"{most(ours.counts.total, 'requests', requests(sizes))}, {beside(ours, peers)}"

    return verdict


def heads_once(ours: Result, peers: Results, sizes: Sizes) -> str:
    heads = ours.counts["HEAD"]
    at_once = least(heads.peak, "at once", min(64, sizes.full_keys))
    return f"{most(heads.requests, 'HEADs', sizes.full_keys)}, {at_once}, {listed(ours, sizes)}"


def heads_never(ours: Result, peers: Results, sizes: Sizes) -> str:
    return f"{most(ours.requests('HEAD'), 'HEADs', 0)}, {listed(ours, sizes)}"


def listed(ours: Result, sizes: Sizes) -> str:
    return most(ours.requests("LIST"), "LISTs", -(-sizes.full_keys // 1000))


# -- writing -----------------------------------------------------------------------------------


def written(ours: Result, peers: Results, sizes: Sizes) -> str:
    loop = f"{ours.rate / peers['bare loop'].rate:.2f} of the bare loop"
    return f"{loop}, {beside(ours, peers, 2)}, {per_gib(ours, sizes):.2f} s of CPU per GiB"


def written_slow(times: float) -> Verdict:
    """As `sequential_slow`."""

    def verdict(ours: Result, peers: Results, sizes: Sizes) -> str:
        return f"{of_connections(ours, times, 0.8)}, {written(ours, peers, sizes)}"

    return verdict


def each_file(ours: Result, sizes: Sizes) -> str:
    return most(ours.counts.total / sizes.small_files, "requests a file", 1.2, places=2)


def small_in(ours: Result, peers: Results, sizes: Sizes) -> str:
    trips = most(ours.seconds / (sizes.small_files * LATENCY_S), "x one round trip a file", 1.3, places=2)
    return f"{each_file(ours, sizes)}, {trips}, {beside(ours, peers)}"


def small_in_later(ours: Result, peers: Results, sizes: Sizes) -> str:
    """The notes are those of `make_tree_and_time_the_disk` and `copy_small_in`."""
    disk, both = (note.split() for note in ours.notes)
    on_disk, copied, later = float(disk[2]), float(both[1]), float(both[6])
    local = most(copied / on_disk, "x the local disk", 3, places=1)
    sent = most(later * 1000 / sizes.small_files, "s per 1000 files until all is in the bucket", 2, places=2)
    return f"{each_file(ours, sizes)}, {local}, {sent}, {beside(ours, peers)}"


def removed(ours: Result, peers: Results, sizes: Sizes) -> str:
    """One DELETE a file and one a directory (50 files in each, and the tree's own); besides those, pages of names."""
    deletes = most(ours.requests("DELETE"), "DELETEs", sizes.small_files + -(-sizes.small_files // 50) + 1)
    return f"{deletes}, {ours.requests('LIST')} LISTs of {ours.counts.total} requests"


def removed_later(ours: Result, peers: Results, sizes: Sizes) -> str:
    return f"{most(ours.requests('DeleteObjects'), 'DeleteObjects', 10)}, {most(ours.requests('DELETE'), 'DELETEs', 0)}"


def edited(ours: Result, peers: Results, sizes: Sizes) -> str:
    up = sum(ours.counts[kind].received for kind in ("PUT", "UploadPart")) / MiB
    down = sum(ours.counts[kind].sent for kind in KIND_READ) / MiB
    return f"{most(up, 'MiB up', 16, places=1)}, {most(down, 'MiB down', 8, places=1)}"


def renamed(ours: Result, peers: Results, sizes: Sizes) -> str:
    ideal = 2 * sizes.small_files * LATENCY_S / 32
    times = most(ours.seconds / ideal, f"x of 2 x {sizes.small_files} requests in 32", 3, places=1)
    return f"{times}, {ours.counts['COPY'].peak} copies at once, {beside(ours, peers)}"


def synced(ours: Result, peers: Results, sizes: Sizes) -> str:
    return f"{most(ours.requests('HEAD'), 'HEADs', 0)}, {ours.requests('LIST')} LISTs of {ours.counts.total} requests"


def bounded(ours: Result, peers: Results, sizes: Sizes) -> str:
    return most(ours.cost.peak_mib, "MiB", 512 + 150)
