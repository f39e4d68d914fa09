"""The hash that follows a log while it is written."""

from __future__ import annotations

import random
import threading

from blake3 import blake3

from s3mount.fs.running_hash import AHEAD, RunningHash

PIECES = [bytes([number]) * (number + 1) for number in range(AHEAD)]


def places() -> list[tuple[int, bytes]]:
    return [(sum(map(len, PIECES[:number])), piece) for number, piece in enumerate(PIECES)]


def add_all(running: RunningHash, pieces: list[tuple[int, bytes]]) -> None:
    for position, piece in pieces:
        running.add(position, memoryview(piece))


def test_pieces_may_come_in_any_order() -> None:
    whole = b"".join(PIECES)
    for seed in range(20):
        running, order = RunningHash(), places()
        random.Random(seed).shuffle(order)
        add_all(running, order)
        assert running.digest(len(whole)) == blake3(whole).digest()


def test_pieces_may_come_from_many_threads() -> None:
    running = RunningHash()
    threads = [threading.Thread(target=add_all, args=(running, places()[start::4])) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = b"".join(PIECES)
    assert running.digest(len(whole)) == blake3(whole).digest()


def test_the_hash_of_another_length_is_not_known() -> None:
    running = RunningHash()
    running.add(0, memoryview(b"abc"))
    assert running.digest(2) is None
    assert running.digest(4) is None
    assert running.digest(3) == blake3(b"abc").digest()


def test_a_piece_that_never_comes_makes_the_hash_unknown_and_keeps_nothing_in_memory() -> None:
    running = RunningHash()
    for number in range(3 * AHEAD):
        running.add(10 + number, memoryview(b"x"))
        assert len(running._ahead) <= AHEAD + 1
    running.add(0, memoryview(bytes(10)))
    assert running.digest(10 + 3 * AHEAD) is None
