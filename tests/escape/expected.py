"""What is expected of every attack: which outcomes mean that the sandbox held."""

from __future__ import annotations

import tomllib
from pathlib import Path

_TABLES: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("expected.toml").read_text())
UNSHOWN = _TABLES.pop("unshown")
GROUPS = tuple(_TABLES)
EXPECTED = {name: outcomes for group in _TABLES.values() for name, outcomes in group.items()}
assert len(EXPECTED) == sum(map(len, _TABLES.values())), "two attacks have one name"
