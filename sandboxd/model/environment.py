"""What the builder is asked to make: numbers and digests, never a path or a name.

Room: model.
"""

from __future__ import annotations

from dataclasses import dataclass

from sandboxd.model.egress import EgressRule


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """One execution environment. Digests are 32 raw bytes; sizes are MiB; `cpu_quota` is in 1/1000 of a CPU."""

    environment_id: int
    image_digest: bytes
    code_digest: bytes
    memory_mb: int
    tmp_mb: int
    pids: int
    open_files: int
    invoke_door: bool = False
    at_exec: bool = False  # a variable of the function is read at exec or import: its runtime cannot be booted ahead
    egress: tuple[EgressRule, ...] = ()
    host_ports: tuple[int, ...] = ()  # of the hosts that its policy names: for these, addresses may be opened
    layers: tuple[bytes, ...] = ()  # digests, the lowest first, none twice
    denied: tuple[EgressRule, ...] = ()  # closed, whatever `egress` or a name opens

    @property
    def cpu_quota(self) -> int:
        """CPU in proportion to memory, 1,769 MB being one CPU.

        Source: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
        """
        return max(50, self.memory_mb * 1000 // 1769)

    @property
    def linked(self) -> bool:
        """Whether anything outside is permitted."""
        return bool(self.egress or self.host_ports)
