"""A function's version: everything that one execution environment is made from.

Room: model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network


@dataclass(frozen=True, slots=True, order=True)
class EgressRule:
    """One permitted destination: a network and a TCP/UDP port range (0 to 65535 for any)."""

    network: IPv4Network
    port_first: int
    port_last: int

    def __str__(self) -> str:
        ports = f"{self.port_first}" if self.port_first == self.port_last else f"{self.port_first}-{self.port_last}"
        return f"{self.network}:{ports}"

    @classmethod
    def parse(cls, text: str) -> EgressRule:
        """Read `CIDR:PORT`, `CIDR:FIRST-LAST` or `ADDRESS:PORT`; raises ValueError that names what is wrong."""
        network_text, separator, ports = text.rpartition(":")
        if not separator:
            raise ValueError(f"egress {text!r}: expected CIDR:PORT or CIDR:FIRST-LAST")
        try:
            network = IPv4Network(network_text, strict=True)
        except ValueError as error:
            raise ValueError(f"egress {text!r}: {error}") from error
        first, _, last = ports.partition("-")
        if not (first.isascii() and first.isdigit()) or (last and not (last.isascii() and last.isdigit())):
            raise ValueError(f"egress {text!r}: port {ports!r} is not a number or FIRST-LAST")
        low, high = int(first), int(last or first)
        if not 0 < low <= high <= 65_535:
            raise ValueError(f"egress {text!r}: port {ports!r} is not within 1 to 65535")
        return cls(network, low, high)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a function may do beyond computing: nothing unless named."""

    egress: tuple[EgressRule, ...] = ()
    invoke: bool = False  # the Lambda endpoint's door inside the sandbox


@dataclass(frozen=True, slots=True)
class FunctionVersion:
    """One immutable state of a function; `$LATEST` gets a new one (and a new revision_id) with every update.

    Sizes in MB are mebibytes as at AWS; `timeout` in seconds; `code_digest` is the package's SHA-256 in hex;
    `last_modified` is AWS's text form.
    """

    name: str
    version: str
    arn: str
    runtime: str
    role: str
    handler: str
    code_digest: str
    code_size: int
    memory_size: int
    timeout: int
    revision_id: str
    last_modified: str
    description: str = ""
    ephemeral_storage: int = 512
    architectures: tuple[str, ...] = ("x86_64",)
    variables: tuple[tuple[str, str], ...] | None = None
    policy: Policy = field(default_factory=Policy)
    state: str = "Pending"
    state_reason: str = ""  # why it is Failed; Pending and InProgress have AWS's standing words
    last_update_status: str = "InProgress"
    extra: tuple[tuple[str, str], ...] = ()  # further configuration members, as JSON text by member name

    @property
    def key(self) -> str:
        """What environments are reused by: the same key means the same code and configuration."""
        return f"{self.name}:{self.version}:{self.revision_id}"
