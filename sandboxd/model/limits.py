"""The limits of the service, as two named profiles whose every member can be changed by itself.

Room: model. Source: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What a function may ask for; sizes in bytes unless the name says otherwise."""

    timeout_seconds: int = 900
    memory_mb_min: int = 128
    memory_mb_max: int = 3008
    memory_mb_step: int = 64
    ephemeral_storage_mb_min: int = 512
    ephemeral_storage_mb_max: int = 10_240
    zip_bytes: int = 50 * MIB
    unzipped_bytes: int = 250 * MIB
    zip_entries: int = 65_535
    concurrency: int = 1_000
    unreserved_concurrency: int = 100  # of which at least so much is left for functions that have nothing reserved
    billing_ms: int = 100
    sync_payload_bytes: int = 6 * MIB
    stream_payload_bytes: int = 20 * MIB
    async_payload_bytes: int = 1 * MIB
    environment_bytes: int = 4096
    init_seconds: int = 10
    pids: int = 1024
    open_files: int = 1024


PROFILES: dict[str, Limits] = {
    "classic": Limits(),
    "current": Limits(memory_mb_max=10_240, memory_mb_step=1, billing_ms=1, stream_payload_bytes=200 * MIB),
}
