"""Patterns of policies: `*`, `?` and variables, matched in time that grows with the text and not with its tries.

Room: model.
Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_resource.html and
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping

Context = Mapping[str, str | tuple[str, ...]]  # a request's condition keys, by name in lower case
Wild = tuple[str, bool]  # a character, and whether it is the wildcard of that name

EVERYTHING: tuple[Wild, ...] = (("*", True),)

_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_NAME = re.compile(r"([a-zA-Z0-9:/_.+=@-]+)(?:, *'([^']*)')?")
_ESCAPES = ("*", "?", "$")


def variables(text: str) -> set[str]:
    """The condition keys, in lower case, that a text's variables need. Raises ValueError for what is no variable."""
    return {_parse(match[1])[0].lower() for match in _VARIABLE.finditer(text) if match[1] not in _ESCAPES}


def expand(text: str, context: Context, *, wild: bool = True) -> tuple[Wild, ...] | None:
    """A text with its variables in place, which are literal; None where the request lacks one that has no default."""
    found: list[Wild] = []
    begin = 0
    for match in _VARIABLE.finditer(text):
        found.extend(_wildcards(text[begin : match.start()], wild))
        begin = match.end()
        value: str | tuple[str, ...] | None = match[1]
        if value not in _ESCAPES:
            name, default = _parse(match[1])
            value = context.get(name.lower(), default)
        if not isinstance(value, str):
            return None
        found.extend((character, False) for character in value)
    found.extend(_wildcards(text[begin:], wild))
    return tuple(found)


def literal(text: str) -> tuple[Wild, ...]:
    """A text without variables."""
    return tuple(_wildcards(text, True))


def matches(pattern: tuple[Wild, ...], text: str, *, arn: bool = False) -> bool:
    """Whether a text is of a pattern.

    In an ARN no wildcard passes a colon but a `*` that ends its segment.
    """
    return pattern == EVERYTHING or _automaton(pattern, arn).accepts(text)


class _Automaton:
    """A pattern as one whole number whose bits are the places in it that a text may have reached."""

    __slots__ = ("_all", "_any", "_final", "_of", "_stars", "_stars_at_colon")

    def __init__(self, pattern: tuple[Wild, ...], arn: bool) -> None:
        self._of: dict[str, int] = {}  # by character: the places from which it leads on
        self._any = self._stars = self._stars_at_colon = 0
        place = 1
        for index, (character, wild) in enumerate(pattern):
            if not wild:
                self._of[character] = self._of.get(character, 0) | place
                place <<= 1
            elif character == "?":
                self._any |= place
                place <<= 1
            else:
                self._stars |= place
                following = pattern[index + 1] if index + 1 < len(pattern) else (":", False)
                if not arn or following == (":", False):
                    self._stars_at_colon |= place
        self._final = place
        if arn:
            self._of[":"] = self._of.get(":", 0)
        else:
            self._stars_at_colon = self._stars
        for character in self._of:
            if not (arn and character == ":"):
                self._of[character] |= self._any

    def accepts(self, text: str) -> bool:
        places = 1
        for character in text:
            stars = self._stars_at_colon if character == ":" else self._stars
            places = ((places & self._of.get(character, self._any)) << 1) | (places & stars)
            if not places:
                return False
        return bool(places & self._final)


@functools.lru_cache(1024)
def _automaton(pattern: tuple[Wild, ...], arn: bool) -> _Automaton:
    return _Automaton(pattern, arn)


def _wildcards(text: str, wild: bool) -> Iterator[Wild]:
    return ((character, wild and character in "*?") for character in text)


def _parse(variable: str) -> tuple[str, str | None]:
    match = _NAME.fullmatch(variable)
    if match is None:
        raise ValueError(f"${{{variable[:100]}}} is not a policy variable")
    return match[1], match[2]
