"""Condition operators.

Room: model.
Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html and
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_multi-value-conditions.html
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network

from sandboxd.model.iam.glob import Context, Wild, expand, matches, variables

_Match = Callable[[tuple[Wild, ...], str], bool]


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator on one key: `values` of which any is enough, or, negated, none may match."""

    key: str  # in lower case
    values: tuple[str, ...]
    match: _Match
    wild: bool = False
    negated: bool = False
    if_exists: bool = False
    quantifier: str = ""  # "ForAllValues", "ForAnyValue" or nothing
    null: bool = False

    def holds(self, context: Context, allows: bool) -> bool:
        """Whether the request meets the condition; where a value needs a variable that it lacks, nothing is allowed."""
        found = context.get(self.key)
        given = (found,) if isinstance(found, str) else found or ()
        if self.null:
            return (not given) in {value.lower() == "true" for value in self.values}
        if not given:
            if self.quantifier:
                return self.quantifier == "ForAllValues" or self.if_exists
            return self.negated or self.if_exists
        expanded = [expand(value, context, wild=self.wild) for value in self.values]
        if allows and None in expanded:
            return False
        patterns = [pattern for pattern in expanded if pattern is not None]
        tests = (any(self.match(pattern, value) for pattern in patterns) != self.negated for value in given)
        # Of several values without a quantifier, each has to pass a negated test, and one any other.
        every = self.quantifier == "ForAllValues" or (self.negated and not self.quantifier)
        return all(tests) if every else any(tests)

    def keys(self) -> set[str]:
        """The keys that the answer depends on. Raises ValueError for a variable that is none."""
        return {self.key}.union(*map(variables, self.values))


def parse_condition(name: str, key: str, values: tuple[str, ...]) -> Condition:
    """The condition of an operator's name. Raises ValueError."""
    quantifier, colon, rest = name.rpartition(":")
    if colon and quantifier not in ("ForAllValues", "ForAnyValue"):
        raise ValueError(f"Invalid Condition type : {name[:100]}")
    if rest == "Null":
        condition = Condition(key.lower(), values, _text, null=True)
    else:
        base = rest.removesuffix("IfExists")
        if base not in _OPERATORS:
            raise ValueError(f"Invalid Condition type : {name[:100]}")
        match, wild, negated = _OPERATORS[base]
        condition = Condition(key.lower(), values, match, wild, negated, base != rest, quantifier)
    condition.keys()
    return condition


def _plain(pattern: Iterable[Wild]) -> str:
    return "".join(character for character, _ in pattern)


def _text(pattern: tuple[Wild, ...], value: str) -> bool:
    return _plain(pattern) == value


def _text_ignoring_case(pattern: tuple[Wild, ...], value: str) -> bool:
    return _plain(pattern).casefold() == value.casefold()


def _arn(pattern: tuple[Wild, ...], value: str) -> bool:
    # Each of the six parts is matched alone.
    wanted = _parts(pattern)
    given = value.split(":", 5)
    return len(wanted) == len(given) == 6 and all(map(matches, wanted, given))


def _parts(pattern: tuple[Wild, ...]) -> list[tuple[Wild, ...]]:
    parts: list[tuple[Wild, ...]] = []
    begin = 0
    for index, item in enumerate(pattern):
        if item == (":", False) and len(parts) < 5:
            parts.append(pattern[begin:index])
            begin = index + 1
    return [*parts, pattern[begin:]]


def _address(pattern: tuple[Wild, ...], value: str) -> bool:
    try:
        return ip_address(value) in ip_network(_plain(pattern), strict=False)
    except ValueError:
        return False


def _numbers(compare: Callable[[float, float], bool]) -> _Match:
    return functools.partial(_compared, float, compare)


def _dates(compare: Callable[[float, float], bool]) -> _Match:
    return functools.partial(_compared, _moment, compare)


def _compared(
    read: Callable[[str], float], compare: Callable[[float, float], bool], pattern: tuple[Wild, ...], value: str
) -> bool:
    try:
        return compare(read(value), read(_plain(pattern)))
    except ValueError:
        return False


def _moment(text: str) -> float:
    """Seconds of the epoch, of such a number or of ISO 8601."""
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


# Name: how a value is matched, whether wildcards count, whether the answer is turned round.
_OPERATORS: dict[str, tuple[_Match, bool, bool]] = {
    "StringEquals": (_text, False, False),
    "StringNotEquals": (_text, False, True),
    "StringEqualsIgnoreCase": (_text_ignoring_case, False, False),
    "StringNotEqualsIgnoreCase": (_text_ignoring_case, False, True),
    "StringLike": (matches, True, False),
    "StringNotLike": (matches, True, True),
    "ArnEquals": (_arn, True, False),
    "ArnLike": (_arn, True, False),
    "ArnNotEquals": (_arn, True, True),
    "ArnNotLike": (_arn, True, True),
    "Bool": (_text_ignoring_case, False, False),
    "IpAddress": (_address, False, False),
    "NotIpAddress": (_address, False, True),
    "NumericEquals": (_numbers(operator.eq), False, False),
    "NumericNotEquals": (_numbers(operator.eq), False, True),
    "NumericLessThan": (_numbers(operator.lt), False, False),
    "NumericLessThanEquals": (_numbers(operator.le), False, False),
    "NumericGreaterThan": (_numbers(operator.gt), False, False),
    "NumericGreaterThanEquals": (_numbers(operator.ge), False, False),
    "DateEquals": (_dates(operator.eq), False, False),
    "DateNotEquals": (_dates(operator.eq), False, True),
    "DateLessThan": (_dates(operator.lt), False, False),
    "DateLessThanEquals": (_dates(operator.le), False, False),
    "DateGreaterThan": (_dates(operator.gt), False, False),
    "DateGreaterThanEquals": (_dates(operator.ge), False, False),
}
