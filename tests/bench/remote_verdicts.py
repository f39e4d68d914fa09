"""What came of a row, and the sentence that compares it with its aim.

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


# -- verdicts ----------------------------------------------------------------------------------


def best(peers: Results) -> Result | None:
    mounts = [result for name, result in peers.items() if name != "bare loop"]
    return max(mounts, key=lambda result: result.rate) if mounts else None


def beside(ours: Result, peers: Results) -> str:
    peer = best(peers)
    return f"{ours.rate / peer.rate:.2f} x the better peer" if peer else "no peer"


def sequential(ours: Result, peers: Results, sizes: Sizes) -> str:
    share = f"{ours.rate / peers['bare loop'].rate:.2f} of the bare loop (reach 0.6)"
    return f"{beside(ours, peers)} (reach 2), {share}, {per_gib(ours, sizes):.2f} s of CPU per GiB (reach 1.0)"


def sequential_slow(times: float) -> Verdict:
    """On a wire so many *times* slower than usual: at ten, not even a busy processor matters, only what is under way at once."""

    def verdict(ours: Result, peers: Results, sizes: Sizes) -> str:
        share = f"{ours.rate * 1e6 / (CONNECTIONS * RATE / times):.2f} of {CONNECTIONS} connections (reach 0.9)"
        loop = f"{ours.rate / peers['bare loop'].rate:.2f} of the bare loop on so many"
        first = float(ours.notes[0].split()[2]) / 1000 / (LATENCY_S * times)
        return f"{share}, {loop}, first byte in {first:.1f} round trips (reach 2), {beside(ours, peers)}"

    return verdict


def per_gib(ours: Result, sizes: Sizes) -> float:
    return ours.cost.cpu_s * (1 << 30) / sizes.large


def processor_tls(ours: Result, peers: Results, sizes: Sizes) -> str:
    return f"{per_gib(ours, sizes):.2f} s of CPU per GiB (reach 1.8), {beside(ours, peers)}"


def small_out(ours: Result, peers: Results, sizes: Sizes) -> str:
    return f"{beside(ours, peers)} (reach 5), {ours.requests(*KIND_READ)} GETs (reach {int(sizes.small_files * 1.05)})"


def randomly(ours: Result, peers: Results, sizes: Sizes) -> str:
    sent = sum(ours.counts[kind].sent for kind in KIND_READ) / (sizes.random_reads * PAGE)
    ideal = sizes.random_reads * LATENCY_S / 8
    return f"{sent:.1f} x the bytes read (reach 3), {ours.seconds / ideal:.2f} x the ideal time (reach 1.2)"


def no_gets(ours: Result, peers: Results, sizes: Sizes) -> str:
    return f"{ours.requests(*KIND_READ)} GETs (reach 0)"


def pages(count: Callable[[Sizes], int], *, spare: int) -> Verdict:
    def verdict(ours: Result, peers: Results, sizes: Sizes) -> str:
        needed = -(-count(sizes) // 1000)
        others = ours.counts.total - ours.counts["LIST"].requests
        at_once = f"{ours.counts['LIST'].peak} at once (reach 4)"
        said = f"{ours.counts['LIST'].requests} LISTs and {others} others (reach {needed} and {spare} more in all), {at_once}"
        return f"{said}, {ours.cost.peak_mib:.0f} MiB (reach 300), {beside(ours, peers)}"

    return verdict


def at_most(requests: Callable[[Sizes], int]) -> Verdict:
    def verdict(ours: Result, peers: Results, sizes: Sizes) -> str:
        return f"{ours.counts.total} requests (reach {requests(sizes)}), {beside(ours, peers)}"

    return verdict


def heads_once(ours: Result, peers: Results, sizes: Sizes) -> str:
    heads = ours.counts["HEAD"]
    return f"{heads.requests} HEADs (reach {sizes.full_keys}), {heads.peak} at once (reach 64), {ours.requests('LIST')} LISTs"


def heads_never(ours: Result, peers: Results, sizes: Sizes) -> str:
    return f"{ours.requests('HEAD')} HEADs (reach 0), {ours.requests('LIST')} LISTs (reach {-(-sizes.full_keys // 1000)})"


def beside_loop(ours: Result, peers: Results) -> str:
    return f"{ours.rate / peers['bare loop'].rate:.2f} of the bare loop, {beside(ours, peers)} (reach 2)"


def written(ours: Result, peers: Results, sizes: Sizes) -> str:
    return f"{beside_loop(ours, peers)}, {per_gib(ours, sizes):.2f} s of CPU per GiB"


def written_slow(times: float) -> Verdict:
    """As `sequential_slow`."""

    def verdict(ours: Result, peers: Results, sizes: Sizes) -> str:
        share = f"{ours.rate * 1e6 / (CONNECTIONS * RATE / times):.2f} of {CONNECTIONS} connections (reach 0.8)"
        return f"{share}, {written(ours, peers, sizes)}"

    return verdict


def small_in(ours: Result, peers: Results, sizes: Sizes) -> str:
    each = ours.counts.total / sizes.small_files
    trips = ours.seconds / (sizes.small_files * LATENCY_S)
    return f"{each:.2f} requests a file (reach 1.2), {trips:.2f} x one round trip a file (reach 1.3), {beside(ours, peers)}"


def small_in_later(ours: Result, peers: Results, sizes: Sizes) -> str:
    return f"{ours.counts.total / sizes.small_files:.2f} requests a file (reach 1.2), {beside(ours, peers)}"


def removed(ours: Result, peers: Results, sizes: Sizes) -> str:
    return f"{ours.requests('DELETE')} DELETEs (reach {sizes.small_files} and the directories), {ours.counts.total} requests in all"


def removed_later(ours: Result, peers: Results, sizes: Sizes) -> str:
    return f"{ours.requests('DeleteObjects')} DeleteObjects (reach 10), {ours.requests('DELETE')} DELETEs (reach 0)"


def edited(ours: Result, peers: Results, sizes: Sizes) -> str:
    up = sum(ours.counts[kind].received for kind in ("PUT", "UploadPart")) / MiB
    down = sum(ours.counts[kind].sent for kind in KIND_READ) / MiB
    return f"{up:.1f} MiB up (reach 16), {down:.1f} MiB down (reach 8)"


def renamed(ours: Result, peers: Results, sizes: Sizes) -> str:
    ideal = 2 * sizes.small_files * LATENCY_S / 32
    at_once = f"{ours.counts['COPY'].peak} copies at once"
    return f"{ours.seconds / ideal:.1f} x of 2 x {sizes.small_files} requests in 32 (reach 3), {at_once}, {beside(ours, peers)}"


def synced(ours: Result, peers: Results, sizes: Sizes) -> str:
    return f"{ours.requests('HEAD')} HEADs (reach 0), {ours.requests('LIST')} LISTs of {ours.counts.total} requests"


def bounded(ours: Result, peers: Results, sizes: Sizes) -> str:
    return f"{ours.cost.peak_mib:.0f} MiB (reach 512 + 150)"
