"""Filter patterns: AWS's documented examples, an evaluator of brute force beside it, and what is hostile."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.model.event_filter import Pattern, TooCostly, matches_any


def _fits(pattern: Any, body: Any, **others: Any) -> bool:
    text = body if isinstance(body, str) else json.dumps(body)
    return matches_any([Pattern.parse(json.dumps(pattern))], {"body": text, "messageId": "m"} | others)


# https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html, "Filter rule syntax"
@pytest.mark.parametrize(
    ("rules", "fitting", "others"),
    [
        ([None], [None], ["null", 0, ""]),
        ([""], [""], [None, " "]),
        (["Alice"], ["Alice", ["Bob", "Alice"]], ["alice", "Alice ", ["Bob"], {"Alice": 1}]),
        ([{"equals-ignore-case": "alice"}], ["ALICE", "Alice"], ["Alic", 1]),
        (["New York", "Chicago"], ["Chicago"], ["Boston"]),
        ([{"anything-but": ["Winter"]}], ["Summer", 1], ["Winter"]),
        ([{"anything-but": "Winter"}], ["Summer"], ["Winter", []]),
        ([{"anything-but": [1, 2]}], [3, "1"], [1, 2.0]),
        ([{"anything-but": {"prefix": "us-"}}], ["eu-1"], ["us-1"]),
        ([{"anything-but": {"suffix": ["png", "jpg"]}}], ["a.txt"], ["a.jpg", "b.png"]),
        ([{"numeric": ["=", 100]}], [100, 100.0, 1e2], [101, "100", True]),
        ([{"numeric": [">", 10, "<=", 20]}], [10.5, 20, [1, 15]], [10, 20.1, "15"]),
        ([300], [300, 300.0], ["300", True]),
        ([True], [True], [1, "true", False]),
        ([{"exists": True}], ["", 0, False, None, [1]], [[], {"a": 1}]),
        ([{"exists": False}], [[], {"a": 1}], ["", None]),
        ([{"prefix": "us-"}], ["us-east-1"], ["eu-us-", 1]),
        ([{"prefix": {"equals-ignore-case": "US-"}}], ["us-east-1", "Us-"], ["u"]),
        ([{"suffix": ".png"}], ["a.png"], ["a.png.gz"]),
        ([{"cidr": "10.0.0.0/24"}], ["10.0.0.7"], ["10.0.1.7", "::1", "x", 7]),
        ([{"wildcard": "a*b*c"}], ["abc", "a-b-b-c", "abbc"], ["ac", "abcd", "acb", 1]),
        ([{"wildcard": "*"}], ["", "x"], [1]),
        ([{"wildcard": "aba*aba"}], ["abaaba"], ["ababa", "aba"]),
        (["x", {"numeric": ["<", 5]}, None], ["x", 4, None], [5, "y"]),
    ],
)
def test_a_rule_is_as_documented(rules: list[Any], fitting: list[Any], others: list[Any]) -> None:
    for value in fitting:
        assert _fits({"body": {"place": rules}}, {"place": value}), value
    for value in others:
        assert not _fits({"body": {"place": rules}}, {"place": value}), value


def test_fields_are_all_needed_and_one_of_a_choice() -> None:
    pattern = {"body": {"Location": ["NY"], "$or": [{"Day": ["Mon"]}, {"Hour": [{"numeric": ["<", 9]}]}]}}
    assert _fits(pattern, {"Location": "NY", "Day": "Mon", "Hour": 12})
    assert _fits(pattern, {"Location": "NY", "Day": "Tue", "Hour": 8})
    assert not _fits(pattern, {"Location": "NY", "Day": "Tue", "Hour": 12})
    assert not _fits(pattern, {"Location": "LA", "Day": "Mon"})


def test_what_is_missing() -> None:
    assert _fits({"body": {"a": {"b": [{"exists": False}]}}}, {})
    assert _fits({"body": {"a": {"b": [{"exists": False}]}}}, {"a": 5})
    assert not _fits({"body": {"a": {"b": [{"anything-but": "x"}]}}}, {"a": {}})


def test_the_fields_of_one_object_in_a_list_count_together() -> None:
    pattern = {"body": {"a": {"x": [1], "y": [2]}}}
    assert _fits(pattern, {"a": [{"x": 0}, [{"x": 1, "y": 2}]]})
    assert not _fits(pattern, {"a": [{"x": 1, "y": 0}, {"x": 0, "y": 2}]})


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        # "Properly filtering Amazon SQS messages"
        ({"body": ["hello", {"prefix": "x"}]}, ["hello", "xy", "x{"], ["hell", '["hello"]', '{"hello": 1}']),
        ({"body": {"a": [1]}}, ['{"a": 1}', ' {"a": [1]}', '[{"a": 1}]'], ["a", '{"a": 1', '"a"', "1", '{"a": NaN}']),
        ({"body": {"a": [{"exists": False}]}}, ["{}"], ["plain", '{"a": 1}']),
        ({"messageId": ["m"]}, ["plain", "{}"], []),
        ({"messageId": ["n"]}, [], ["plain", "{}"]),
    ],
)
def test_text_is_matched_as_text_and_json_as_json(pattern: Any, fitting: list[str], others: list[str]) -> None:
    assert [_fits(pattern, body) for body in fitting] == [True] * len(fitting)
    assert [_fits(pattern, body) for body in others] == [False] * len(others)


def test_one_of_several_patterns_is_enough() -> None:
    patterns = [Pattern.parse('{"body": {"a": [1]}}'), Pattern.parse('{"body": ["x"]}')]
    assert [matches_any(patterns, {"body": body}) for body in ('{"a": 1}', "x", "y")] == [True, True, False]
    assert not matches_any([], {"body": "x"})


@pytest.mark.parametrize(
    "text",
    [
        "", "null", '"simple"', "[]", "{}", '{"a": {}}', '{"a": []}', '{"a": "b"}', '{"a": 1}', '{"a": [[1]]}', "{",
        "nan", '{"a": [NaN]}', '{"a": [{}]}', '{"a": [{"prefix": "x", "suffix": "y"}]}', '{"a": [{"prefix": 1}]}',
        '{"a": [{"prefix": {"suffix": "x"}}]}', '{"a": [{"like": "x"}]}', '{"a": [{"exists": "true"}]}',
        '{"a": [{"numeric": []}]}', '{"a": [{"numeric": ["=="]}]}', '{"a": [{"numeric": ["=", "1"]}]}',
        '{"a": [{"numeric": ["<", 1, ">", 0]}]}', '{"a": [{"numeric": [">", 2, "<", 1]}]}', '{"a": [{"numeric": 1}]}',
        '{"a": [{"numeric": [[], 1]}]}', '{"a": [{"numeric": ["=", true]}]}', '{"a": [{"anything-but": []}]}',
        '{"a": [{"anything-but": [null]}]}', '{"a": [{"anything-but": [["x"]]}]}', '{"a": [{"anything-but": {}}]}',
        '{"a": [{"anything-but": {"prefix": [1]}}]}', '{"a": [{"anything-but": {"exists": true}}]}',
        '{"a": [{"cidr": "10.0.0.0"}]}', '{"a": [{"cidr": "x/8"}]}', '{"a": [{"cidr": 1}]}',
        '{"a": [{"wildcard": "a**"}]}', '{"$or": [{"a": [1]}, {}]}', '{"$or": [{"a": [1]}]}',
        '{"a":' * 40 + "[1]" + "}" * 40, '{"a":' * 1_300 + "[1]" + "}" * 1_300, '{"a":' + "[" * 4_000,
    ],
)  # fmt: skip
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(ValueError):
        Pattern.parse(text)


# by brute force

_SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b", "ab"])
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)
_RULES = st.lists(_SCALARS, min_size=1, max_size=3)
_PATTERNS = st.recursive(
    st.dictionaries(st.sampled_from("abc"), _RULES, min_size=1, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
    max_leaves=6,
)


def _scalars(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [leaf for item in value for leaf in _scalars(item)]
    return [] if isinstance(value, dict) else [value]


def _objects(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [found for item in value for found in _objects(item)]
    return [value] if isinstance(value, dict) else []


def _plainly(pattern: Any, value: Any) -> bool:
    if isinstance(pattern, list):
        return any(json.dumps(rule) == json.dumps(leaf) for rule in pattern for leaf in _scalars(value))
    return any(all(name in o and _plainly(part, o[name]) for name, part in pattern.items()) for o in _objects(value))


@given(_PATTERNS, _VALUES)
def test_it_decides_as_brute_force_does(pattern: Any, value: Any) -> None:
    assert _fits({"body": pattern}, [value]) == _plainly(pattern, value)


@given(st.text(), st.text())
def test_nothing_but_the_errors_that_are_named_comes_of_any_text(text: str, body: str) -> None:
    try:
        pattern = Pattern.parse(text)
    except ValueError:
        return
    matches_any([pattern], {"body": body})


@given(st.lists(st.sampled_from(["a", "b", "ab", "*"]), max_size=8).map("".join), st.text("ab", max_size=8))
def test_a_wildcard_stands_for_any_text(text: str, value: str) -> None:
    def plainly(pattern: str, rest: str) -> bool:
        if not pattern:
            return not rest
        if pattern[0] == "*":
            return any(plainly(pattern[1:], rest[i:]) for i in range(len(rest) + 1))
        return rest[:1] == pattern[0] and plainly(pattern[1:], rest[1:])

    if "**" not in text:
        assert _fits({"body": {"a": [{"wildcard": text}]}}, {"a": value}) == plainly(text, value)


# what is hostile


def test_a_body_that_is_nested_deeply_or_has_a_long_number_is_only_that() -> None:
    pattern = {"body": {"a": [{"numeric": [">", 5]}]}}
    assert _fits(pattern, '{"a": ' + "9" * 5_000 + "}")
    assert not _fits(pattern, '{"a": ' + "[" * 200_000 + "]" * 200_000 + "}")
    assert not _fits(pattern, '{"a": ' + "[" * 400 + "]" * 400 + "}")
    assert _fits(pattern, '{"a": ' + "[" * 400 + "6" + "]" * 400 + "}")


def test_too_many_values_for_many_rules_end_the_matching() -> None:
    rules = [{"numeric": ["=", number + 0.5]} for number in range(100)]
    with pytest.raises(TooCostly):
        _fits({"body": {"a": rules}}, {"a": list(range(200_000))})
    with pytest.raises(TooCostly):
        _fits({"body": {"a": [{"wildcard": f"*a*{n}"} for n in range(150)]}}, {"a": ["a" * 2_000] * 1_000})
