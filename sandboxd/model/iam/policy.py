"""Policy documents: what they may hold, and as what the evaluator takes them.

Room: model.
Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from typing import Any

from sandboxd.model.iam.conditions import Condition, parse_condition
from sandboxd.model.iam.glob import Wild, literal, variables

# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html: characters of a managed policy
IDENTITY_LIMIT = 6144
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html: bytes of a function's policy
RESOURCE_LIMIT = 20_480
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html: characters of a role's trust policy
TRUST_LIMIT = 2048

_VERSIONS = ("2012-10-17", "2008-10-17")
_ELEMENTS = {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}
_PRINCIPALS = {"Principal", "NotPrincipal"}
_ACTION = re.compile(r"\*|[a-zA-Z0-9*?-]+:[a-zA-Z0-9*?]+")
_RESOURCE = re.compile(r"\*|arn:[^:]*:[^:]*:[^:]*:[^:]*:.+", re.DOTALL)
_ASSUME = re.compile(r"sts:(AssumeRole|AssumeRoleWith[A-Za-z]+|\*|SetSourceIdentity|SetContext|TagSession)")
_SID = re.compile(r"[a-zA-Z0-9_-]*")


class MalformedPolicy(ValueError):
    """What is not a policy; its text says why, in IAM's words where IAM has words."""


@dataclass(frozen=True, slots=True)
class Principals:
    """Whom a statement names: texts by kind ("AWS", "Service"); `*` is everybody."""

    named: frozenset[tuple[str, str]]
    negated: bool


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. Actions are in lower case; resources may hold variables."""

    allows: bool
    actions: tuple[tuple[Wild, ...], ...]
    not_actions: bool
    resources: tuple[str, ...]
    not_resources: bool
    principals: Principals | None  # None in the policy of an identity
    conditions: tuple[Condition, ...]
    sid: str = ""

    def keys(self) -> set[str]:
        """The condition keys that what it says depends on."""
        keys: set[str] = set().union(*map(variables, self.resources))
        return keys.union(*(condition.keys() for condition in self.conditions))


Policy = tuple[Statement, ...]


@functools.lru_cache(256)
def parse_identity(text: str) -> Policy:
    """The policy of a user or a role. Raises MalformedPolicy."""
    if len(text) > IDENTITY_LIMIT:
        raise MalformedPolicy(f"Cannot exceed quota for PolicySize: {IDENTITY_LIMIT}")
    return _parse(text, with_principals=False)


@functools.lru_cache(256)
def parse_resource(text: str) -> Policy:
    """The policy of a resource. Raises MalformedPolicy."""
    if len(text.encode()) > RESOURCE_LIMIT:
        raise MalformedPolicy(f"Maximum policy size of {RESOURCE_LIMIT} bytes exceeded")
    return _parse(text, with_principals=True)


@functools.lru_cache(256)
def parse_trust(text: str) -> Policy:
    """A role's trust policy: who may assume it. Raises MalformedPolicy.

    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_create_for-service.html
    """
    if len(text) > TRUST_LIMIT:
        raise MalformedPolicy(f"Cannot exceed quota for ACLSizePerRole: {TRUST_LIMIT}")
    return _parse(text, with_principals=True, trust=True)


def _parse(text: str, with_principals: bool, trust: bool = False) -> Policy:
    try:
        document = json.loads(text, object_pairs_hook=_unique)
        return _document(document, with_principals, trust)
    except RecursionError:
        raise MalformedPolicy("Syntax errors in policy.") from None
    except json.JSONDecodeError:
        raise MalformedPolicy("This policy contains invalid Json") from None
    except ValueError as error:
        raise MalformedPolicy(str(error)) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("Duplicate keys in policy.")
    return found


def _document(document: Any, with_principals: bool, trust: bool) -> Policy:
    if not isinstance(document, dict) or not document.keys() <= {"Version", "Id", "Statement"}:
        raise ValueError("Syntax errors in policy.")
    if document.get("Version", _VERSIONS[1]) not in _VERSIONS:
        raise ValueError("The policy must contain a valid version string")
    # Variables are plain text in the older version: rather than read a document in two ways, one of them is refused.
    if "${" in json.dumps(document) and document.get("Version") != _VERSIONS[0]:
        raise ValueError(f"Policy variables need Version {_VERSIONS[0]}")
    statements = document.get("Statement")
    rows = statements if isinstance(statements, list) else [statements]
    if not rows:
        raise ValueError("Syntax errors in policy.")
    policy = tuple(_statement(_of_trust(row) if trust else row, with_principals) for row in rows)
    sids = [statement.sid for statement in policy if statement.sid]
    if len(sids) != len(set(sids)):
        raise ValueError("Statement IDs (SID) in a single policy must be unique.")
    return policy


def _of_trust(row: Any) -> Any:
    """A statement of a trust policy as any other: its resource is the role."""
    if not isinstance(row, dict):
        return row
    for stray in ("Resource", "NotResource", "NotAction", "NotPrincipal"):
        if stray in row:
            raise ValueError(f"Has prohibited field {stray}")
    actions = row.get("Action", ())
    for action in actions if isinstance(actions, list) else [actions]:
        if not isinstance(action, str) or not _ASSUME.fullmatch(action):
            raise ValueError("AssumeRole policy may only specify STS AssumeRole actions.")
    return row | {"Resource": "*"}


def _statement(row: Any, with_principals: bool) -> Statement:
    allowed = _ELEMENTS | (_PRINCIPALS if with_principals else set())
    if not isinstance(row, dict) or not row.keys() <= allowed:
        stray = sorted(row.keys() - allowed) if isinstance(row, dict) else []
        if stray and stray[0] in _PRINCIPALS:
            raise ValueError("Policy document should not specify a principal.")
        raise ValueError("Syntax errors in policy.")
    if row.get("Effect") not in ("Allow", "Deny"):
        raise ValueError("Syntax errors in policy.")
    sid = row.get("Sid", "")
    if not isinstance(sid, str) or not _SID.fullmatch(sid):
        raise ValueError("Statement IDs (SID) must be alpha-numeric.")
    actions, not_actions = _either(row, "Action", "Policy statement must contain actions.")
    resources, not_resources = _either(row, "Resource", "Policy statement must contain resources.")
    for action in actions:
        if not _ACTION.fullmatch(action):
            raise ValueError("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
    for resource in resources:
        if not _RESOURCE.fullmatch(resource):
            raise ValueError(f'Resource {resource[:200]} must be in ARN format or "*".')
        variables(resource)
    return Statement(
        allows=row["Effect"] == "Allow",
        actions=tuple(literal(action.lower()) for action in actions),
        not_actions=not_actions,
        resources=resources,
        not_resources=not_resources,
        principals=_principals(row) if with_principals else None,
        conditions=_conditions(row.get("Condition", {})),
        sid=sid,
    )


def _either(row: dict[str, Any], name: str, missing: str) -> tuple[tuple[str, ...], bool]:
    """The texts of an element or of its negation, of which a statement has exactly one."""
    negated = f"Not{name}" in row
    if negated == (name in row):
        raise ValueError(missing)
    return _texts(row[f"Not{name}" if negated else name], missing), negated


def _texts(value: Any, wrong: str) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(wrong)
    return tuple(texts)


def _principals(row: dict[str, Any]) -> Principals:
    negated = "NotPrincipal" in row
    if negated == ("Principal" in row):
        raise ValueError("Policy statement must contain principals.")
    if negated and row["Effect"] == "Allow":
        # It would allow everybody but those: https://docs.aws.amazon.com/IAM/latest/UserGuide/
        # reference_policies_elements_notprincipal.html says never to.
        raise ValueError("Allow with NotPrincipal is not supported.")
    value = row["NotPrincipal" if negated else "Principal"]
    if value == "*":
        return Principals(frozenset({("*", "*")}), negated)
    if not isinstance(value, dict) or not value or not value.keys() <= {"AWS", "Service"}:
        raise ValueError("Invalid principal in policy")
    named = {(kind, text) for kind, texts in value.items() for text in _texts(texts, "Invalid principal in policy")}
    return Principals(frozenset(named), negated)


def _conditions(block: Any) -> tuple[Condition, ...]:
    if not isinstance(block, dict) or not all(isinstance(keys, dict) and keys for keys in block.values()):
        raise ValueError("Syntax errors in policy.")
    return tuple(
        parse_condition(name, key, _values(values)) for name, keys in block.items() for key, values in keys.items()
    )


def _values(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(item, str | int | float) for item in values):
        raise ValueError("Syntax errors in policy.")
    return tuple(str(item).lower() if isinstance(item, bool) else str(item) for item in values)
