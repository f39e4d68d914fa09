"""`make bench`: the engine by itself, then a mount of it, then the S3 endpoint, then mounts of one beside others.

Owns: the order.
Must not know: what is measured.
"""

from __future__ import annotations

import runpy

for name in (
    "tests.bench.bench_engine",
    "tests.bench.bench_mount",
    "tests.bench.bench_server",
    "tests.bench.bench_lane",
    "tests.bench.bench_remote",
):
    runpy.run_module(name, run_name="__main__")
