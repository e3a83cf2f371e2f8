"""docs/api.md: which operations of AWS Lambda there are here. `python -m tests.support.api_page >docs/api.md`."""

from __future__ import annotations

import tempfile
import tomllib
from pathlib import Path

from sandboxd.api.service_model import ServiceModel
from tests.support.places import REPOSITORY

PAGE = REPOSITORY / "docs" / "api.md"
_HEAD = """# Operations

What there is of the AWS Lambda API (botocore's model of 2015-03-31). `python -m tests.support.api_page` makes this page
and a test holds it to the code. What is not there is answered by `NotImplementedException` (501) with its name, and a
member of a request that asks for something that is not there by an error that names it.

{yes} operations are done, {partly} in part, {no} not.

| operation | here | |
|---|---|---|
"""


def page(offered: set[str]) -> str:
    """The page, for the operations that are offered. Raises ValueError where docs/api.toml does not fit them."""
    notes = tomllib.loads((REPOSITORY / "docs" / "api.toml").read_text())
    every = sorted(ServiceModel.load(set()).operations)
    if wrong := set(notes["partly"]) - offered:
        raise ValueError(f"in part, but not offered: {sorted(wrong)}")
    rows, unused = [], set(notes["no"])
    for name in every:
        reason = next((part for part in notes["no"] if part in name), None)
        if name in offered:
            rows.append((name, "in part" if name in notes["partly"] else "yes", notes["partly"].get(name, "")))
        elif reason is None:
            raise ValueError(f"why is there no {name}?")
        else:
            unused.discard(reason)
            rows.append((name, "no", notes["no"][reason]))
    if unused:
        raise ValueError(f"reasons for what is there: {sorted(unused)}")
    count = {here: sum(row[1] == here for row in rows) for here in ("yes", "in part", "no")}
    head = _HEAD.format(yes=count["yes"], partly=count["in part"], no=count["no"])
    return head + "".join(f"| {' | '.join(row).rstrip()} |\n" for row in rows)


def main() -> None:
    """Print the page."""
    from tests.api.conftest import Endpoint

    with tempfile.TemporaryDirectory() as directory:
        endpoint = Endpoint(Path(directory))
        endpoint.start()
        try:
            print(page(endpoint.api.offered), end="")
        finally:
            endpoint.stop()


if __name__ == "__main__":
    main()
