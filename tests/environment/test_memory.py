"""memory.stat of both versions of cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxd.environment import memory

V1 = """cache 4096000
rss 1
shmem 2
mapped_file 3
hierarchical_memory_limit 134217728
total_cache 400000000
total_rss 30000000
total_rss_huge 5
total_shmem 1000
total_mapped_file 7
"""
V2 = """anon 30000000
file 400000000
kernel 900
kernel_stack 32
shmem 1000
anon_thp 77
shmem_thp 88
inactive_anon 99
"""


@pytest.mark.parametrize(("text", "used"), [(V1, 30_001_000), (V2, 30_001_000), ("", 0)])
def test_used_memory_is_anonymous_and_shared(tmp_path: Path, text: str, used: int) -> None:
    file = tmp_path / "memory.stat"
    file.write_text(text)
    with file.open("rb") as opened:
        assert memory.used_bytes(opened.fileno()) == used
        assert memory.used_bytes(opened.fileno()) == used  # from the start each time
