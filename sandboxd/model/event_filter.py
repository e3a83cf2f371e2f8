"""Filter patterns of event source mappings: parsed once, and matched with an amount of work that has a bound.

Room: model.
Source: https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html,
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html and, for lists and for what is
missing, https://github.com/aws/event-ruler

A pattern is a tree of names whose leaves are lists of rules; a place holds what a record has there, through lists too.
Patterns are their function's, records are strangers': depth of the one and leaves of the other are bounded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

_DEEPEST = 32  # objects within objects
_WORK = 200_000  # comparisons for one record: some tenths of a second
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "=": lambda value, bound: value == bound,
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
}

Test = Callable[[Any], bool]


class TooCostly(Exception):
    """A record has so many values where a pattern looks that it is left alone."""


@dataclass(frozen=True, slots=True)
class _Rules:
    """What may stand at a place; one of them is enough."""

    exact: frozenset[tuple[str, Any]]
    tests: tuple[Test, ...]
    present: bool  # anything, so long as there is something
    absent: bool


@dataclass(frozen=True, slots=True)
class Pattern:
    """What the fields of one object have to be: all of `fields`, and of each of `choices` one."""

    fields: tuple[tuple[str, Pattern | _Rules], ...]
    choices: tuple[tuple[Pattern, ...], ...]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """The pattern that a text is. Raises ValueError."""
        try:
            return _pattern(_read(text), 1)
        except RecursionError:
            raise ValueError("nested too deeply") from None


def matches_any(patterns: Iterable[Pattern], record: Mapping[str, Any]) -> bool:
    """Whether a record of a queue satisfies one of the patterns. Raises TooCostly.

    A body that is a JSON object or list is matched as that, any other as the text that it is;
    a pattern of the other kind does not match it.
    """
    body = _body(record["body"])
    work = _Work()
    return any(_fits_body(pattern, body) and _matches(pattern, {**record, "body": body}, work) for pattern in patterns)


def _fits_body(pattern: Pattern, body: Any) -> bool:
    structured = isinstance(body, dict | list)
    return all(structured == isinstance(part, Pattern) for name, part in pattern.fields if name == "body")


def _body(text: str) -> Any:
    try:
        found = _read(text) if text.lstrip()[:1] in ("{", "[") else text
    except (ValueError, RecursionError):
        return text
    return found


def _read(text: str) -> Any:
    return json.loads(text, parse_int=_number, parse_constant=_refuse)


def _number(digits: str) -> float:
    return (
        int(digits) if len(digits) < 20 else float(digits)
    )  # Python refuses to convert 4,300 digits to a whole number


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# matching


class _Work:
    """What is left of a record's share."""

    def __init__(self) -> None:
        self._left = _WORK

    def spend(self, amount: int) -> None:
        self._left -= amount
        if self._left < 0:
            raise TooCostly


def _matches(pattern: Pattern, value: Any, work: _Work) -> bool:
    """Whether one of the objects at a place is as the pattern says; where there is none, it is one without fields."""
    objects = [found for found in _flat(value, work) if isinstance(found, dict)] or [{}]
    return any(_matches_object(pattern, found, work) for found in objects)


def _matches_object(pattern: Pattern, found: Mapping[str, Any], work: _Work) -> bool:
    for name, part in pattern.fields:
        work.spend(1)
        value = found.get(name, ())  # nothing, as an empty list is nothing
        if not (_matches(part, value, work) if isinstance(part, Pattern) else _allow(part, value, work)):
            return False
    return all(any(_matches_object(choice, found, work) for choice in choices) for choices in pattern.choices)


def _allow(rules: _Rules, value: Any, work: _Work) -> bool:
    nothing = True
    for leaf in _flat(value, work):
        if isinstance(leaf, dict):
            continue
        nothing = False
        if rules.present or _key(leaf) in rules.exact:
            return True
        work.spend(len(rules.tests) * (1 + len(leaf) // 1024 if isinstance(leaf, str) else 1))
        if any(test(leaf) for test in rules.tests):
            return True
    return nothing and rules.absent


def _flat(value: Any, work: _Work) -> Iterator[Any]:
    """What a value is, or what a list of lists holds; a body may be nested deeper than Python calls functions."""
    waiting = [iter((value,))]
    while waiting:
        for found in waiting[-1]:
            work.spend(1)
            if isinstance(found, list | tuple):
                waiting.append(iter(found))
                break
            yield found
        else:
            waiting.pop()


def _key(value: Any) -> tuple[str, Any]:
    """A value by which it is found; Python's True is 1, JSON's is not."""
    return ("number" if _is_number(value) else type(value).__name__), value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# parsing


def _pattern(document: Any, depth: int) -> Pattern:
    if not isinstance(document, dict) or not document:
        raise ValueError("not an object with something in it")
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    fields: list[tuple[str, Pattern | _Rules]] = []
    choices = []
    for name, value in document.items():
        if name == "$or" and isinstance(value, list) and len(value) > 1 and all(isinstance(v, dict) for v in value):
            choices.append(tuple(_pattern(choice, depth + 1) for choice in value))
        elif isinstance(value, list):
            fields.append((name, _rules(value)))
        else:
            fields.append((name, _pattern(value, depth + 1)))
    return Pattern(tuple(fields), tuple(choices))


def _rules(values: list[Any]) -> _Rules:
    if not values:
        raise ValueError("an empty list")
    exact, tests, exists = set(), [], set()
    for value in values:
        if isinstance(value, list):
            raise ValueError("a list in a list")
        if not isinstance(value, dict):
            exact.add(_key(value))
            continue
        operator, operand = _one(value)
        if operator == "exists":
            if not isinstance(operand, bool):
                raise ValueError("exists: neither true nor false")
            exists.add(operand)
        else:
            tests.append(_test(operator, operand))
    return _Rules(frozenset(exact), tuple(tests), True in exists, False in exists)


def _one(value: dict[str, Any]) -> tuple[str, Any]:
    if len(value) != 1:
        raise ValueError("a rule has one operator")
    return next(iter(value.items()))


def _test(operator: str, operand: Any) -> Test:
    match operator:
        case "prefix" | "suffix" | "equals-ignore-case" | "wildcard":
            return _text_test(operator, operand)
        case "anything-but":
            return _anything_but(operand)
        case "numeric":
            return _numeric(operand)
        case "cidr":
            return _cidr(operand)
    raise ValueError(f"no operator {operator[:100]}")


def _text_test(operator: str, operand: Any) -> Test:
    fold = False
    if operator in ("prefix", "suffix") and isinstance(operand, dict):
        inner, operand = _one(operand)
        fold = inner == "equals-ignore-case"
        if not fold:
            raise ValueError(f"no operator {inner[:100]} in {operator}")
    if not isinstance(operand, str):
        raise ValueError(f"{operator}: not a text")
    if operator == "wildcard":
        return _wildcard(operand)
    text = operand.lower() if fold or operator == "equals-ignore-case" else operand
    comparisons: dict[str, Callable[[str], bool]] = {
        "prefix": lambda value: (value.lower() if fold else value).startswith(text),
        "suffix": lambda value: (value.lower() if fold else value).endswith(text),
        "equals-ignore-case": lambda value: value.lower() == text,
    }
    compare = comparisons[operator]
    return lambda value: isinstance(value, str) and compare(value)


def _wildcard(text: str) -> Test:
    if "**" in text or "\\" in text:
        raise ValueError("wildcard: ** and escapes are not offered")
    first, *others = text.split("*")
    if not others:
        return lambda value: bool(value == text)
    *middle, last = others

    def fits(value: Any) -> bool:
        if not isinstance(value, str) or not value.startswith(first) or not value.endswith(last):
            return False
        place, end = len(first), len(value) - len(last)
        for part in middle:  # each where it comes first: what is left for the others is longest so
            place = value.find(part, place, end)
            if place < 0:
                return False
            place += len(part)
        return place <= end

    return fits


def _anything_but(operand: Any) -> Test:
    if isinstance(operand, dict):
        operator, inner = _one(operand)
        texts = inner if isinstance(inner, list) else [inner]
        if not texts or operator not in ("prefix", "suffix", "equals-ignore-case", "wildcard"):
            raise ValueError(f"anything-but: no operator {operator[:100]}")
        tests = [_text_test(operator, text) for text in texts]
        return lambda value: not any(test(value) for test in tests)
    values = operand if isinstance(operand, list) else [operand]
    if not values or not all(isinstance(value, str) or _is_number(value) for value in values):
        raise ValueError("anything-but: texts and numbers only")
    keys = frozenset(map(_key, values))
    return lambda value: _key(value) not in keys


def _numeric(operand: Any) -> Test:
    if not isinstance(operand, list) or len(operand) not in (2, 4):
        raise ValueError("numeric: not a list of an operator and a number, once or twice")
    pairs = list(zip(operand[::2], operand[1::2], strict=True))
    if not all(isinstance(operator, str) and operator in _COMPARISONS and _is_number(n) for operator, n in pairs):
        raise ValueError("numeric: not an operator and a number")
    if len(pairs) == 2:
        (low, bottom), (high, top) = pairs
        if low not in (">", ">=") or high not in ("<", "<=") or bottom >= top:
            raise ValueError("numeric: not a range")
    return lambda value: _is_number(value) and all(_COMPARISONS[operator](value, bound) for operator, bound in pairs)


def _cidr(operand: Any) -> Test:
    if not isinstance(operand, str) or "/" not in operand:
        raise ValueError("cidr: not an address block")
    network = ip_network(operand, strict=False)

    def within(value: Any) -> bool:
        try:
            return isinstance(value, str) and ip_address(value) in network
        except ValueError:
            return False

    return within
