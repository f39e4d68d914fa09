"""Workers count in rows of their own; whoever is asked adds them up."""

from __future__ import annotations

import os

from s3mount.server.figures import Board, exposition


def test_rows_add_up() -> None:
    board = Board(2)
    one, two = board.row(0), board.row(1)
    one.count_request("GET", 200, 0.002)
    two.count_request("GET", 206, 3.0)
    two.count_request("BREW", 404, 0.0001)
    text = exposition(board, {"space_bytes": ("Size.", 5)})
    assert 's3mount_requests_total{method="GET",status="2xx"} 2\n' in text
    assert 's3mount_requests_total{method="other",status="4xx"} 1\n' in text
    assert 's3mount_request_seconds_bucket{le="0.0025"} 2\n' in text
    assert 's3mount_request_seconds_bucket{le="5.0"} 3\n' in text
    assert 's3mount_request_seconds_bucket{le="+Inf"} 3\n' in text
    assert "s3mount_request_seconds_count 3\n" in text
    assert "# TYPE s3mount_space_bytes gauge\ns3mount_space_bytes 5\n" in text


def test_another_process_counts_in_the_same_memory() -> None:
    board = Board(1)
    pid = os.fork()
    if pid == 0:
        board.row(0).add("received_bytes_total", 7)
        os._exit(0)
    os.waitpid(pid, 0)
    assert board.total("received_bytes_total") == 7


def test_a_worker_that_comes_back_keeps_counts_and_forgets_what_was_under_way() -> None:
    board = Board(1)
    row = board.row(0)
    row.add("received_bytes_total", 7)
    row.set("requests_in_flight", 3)
    board.row(0)
    assert board.total("received_bytes_total") == 7
    assert board.total("requests_in_flight") == 0
