"""A function's version: everything that one execution environment is made from.

Room: model.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from sandboxd.model.egress import EgressRule, HostRule
from sandboxd.model.layer import AttachedLayer, Unzipped


@dataclass(frozen=True, slots=True)
class Policy:
    """What a function may do beyond computing: nothing unless named.

    `stated`: egress and hosts were said, be it that there are none: a role that is kept here opens nothing else then.
    """

    egress: tuple[EgressRule, ...] = ()
    hosts: tuple[HostRule, ...] = ()
    invoke: bool = False  # the Lambda endpoint's door inside the sandbox
    stated: bool = False


@dataclass(frozen=True, slots=True)
class FunctionVersion:
    """One immutable state of a function; `$LATEST` gets a new one (and a new revision_id) with every update.

    `arn` is the function's, whatever the version: below the API functions are known by it, for names are an account's.
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
    last_published: int = 0  # of $LATEST: numbers are never given twice
    published_from: str = ""  # of a published version: $LATEST's `content` at that moment
    settings: tuple[tuple[str, str], ...] = ()  # further configuration members, as JSON text by member name
    layers: tuple[AttachedLayer, ...] = ()  # the lowest first
    unzipped: Unzipped = field(default_factory=Unzipped)  # what its code takes

    @property
    def key(self) -> str:
        """What environments are reused by: the same key means the same account, code and configuration."""
        return f"{self.arn}:{self.version}:{self.revision_id}"

    @property
    def account(self) -> str:
        """Whose it is."""
        return self.arn.split(":", 5)[4]

    @property
    def packages(self) -> tuple[str, ...]:
        """The digests of everything that it is made from."""
        return (self.code_digest, *(layer.digest for layer in self.layers))

    @property
    def logging(self) -> dict[str, str]:
        """LoggingConfig, as far as it is not what every function has."""
        found: dict[str, str] = json.loads(dict(self.settings).get("LoggingConfig", "{}"))
        return found

    @property
    def content(self) -> str:
        """A digest of code and configuration: of two versions with the same nothing that a client can set differs."""
        variables = None if self.variables is None else sorted(self.variables)
        members = (
            self.runtime, self.role, self.handler, self.code_digest, self.memory_size, self.timeout, self.description,
            self.ephemeral_storage, self.architectures, variables, self.settings, self.layers,
        )  # fmt: skip
        return hashlib.sha256(repr(members).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Alias:
    """A name for a version, and for a second one that gets `weight` (0 to 1) of the invocations."""

    function: str
    name: str
    version: str
    description: str
    revision_id: str
    second_version: str = ""
    weight: float = 0.0
