"""How much memory an environment uses, page cache left out.

Room: service. May: read the memory.stat that the builder passed out.
"""

from __future__ import annotations

import os
import re

# Anonymous and shared memory: what stays when the kernel takes back all it can. Page cache is charged to the group and
# goes under pressure, so a function that wrote 400 MB to /tmp has not used them; kernel memory (stacks, page tables)
# is left out because cgroup v1 does not show it. v1's own rows leave out groups below, hence total_.
_V1 = re.compile(rb"^total_(?:rss|shmem) (\d+)$", re.MULTILINE)
_V2 = re.compile(rb"^(?:anon|shmem) (\d+)$", re.MULTILINE)


def used_bytes(memory_stat: int) -> int:
    """Anonymous and shared memory in bytes, by either version's memory.stat. Raises OSError once the group is gone."""
    text = os.pread(memory_stat, 16_384, 0)
    return sum(map(int, _V1.findall(text) or _V2.findall(text)))
