"""Every scenario that AWS was recorded with, played: each step matches, or is listed with its reason.

Without `--aws-snapshots DIR` the answers in `data` are played.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandboxd.model.endpoint import parse
from sandboxd.model.limits import PROFILES
from tests.api.conftest import Endpoint
from tests.aws import differences
from tests.aws.answers import Steps, read
from tests.aws.player import Player, Stage
from tests.aws.scenarios import aliases, concurrency, event_invoke, functions, permissions, sizes, versions
from tests.support.moto import Moto

AREAS = {
    "TestLambdaAlias": aliases,
    "TestLambdaEventInvokeConfig": event_invoke,
    "TestLambdaFunction": functions,
    "TestLambdaPermissions": permissions,
    "TestLambdaReservedConcurrency": concurrency,
    "TestLambdaSizeLimits": sizes,
    "TestLambdaVersions": versions,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each recorded scenario."""
    if "scenario" in metafunc.fixturenames:
        directory = Path(metafunc.config.getoption("--aws-snapshots") or Path(__file__).parent / "data")
        found = [pytest.param(*item, id=item[0]) for item in read(directory).items()]
        metafunc.parametrize(("scenario", "recorded"), found)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, moto: Moto) -> Iterator[Stage]:
    """One endpoint for all scenarios."""
    endpoint = Endpoint(tmp_path_factory.mktemp("aws"), limits=PROFILES["current"], services_endpoint=parse(moto.url))
    endpoint.start()
    made = Stage(endpoint, moto)
    yield made
    made.close()
    endpoint.stop()


def test_scenario(stage: Stage, scenario: str, recorded: Steps, record_property: Callable[[str, object], None]) -> None:
    area, _, name = scenario.partition("::")
    name, _, arguments = name.removeprefix("test_").removesuffix("]").partition("[")
    play = Player(stage, recorded)
    try:
        getattr(AREAS[area], name)(play, *filter(None, arguments.split("-")))
    finally:
        stage.clear()
    matched = [step for step, difference in play.outcomes.items() if not difference]
    record_property("aws", (area, len(matched), len(recorded)))
    listed = differences.rows()
    problems = [
        f"{step} differs, and is not listed: {difference}"
        for step, difference in play.outcomes.items()
        if difference and (scenario, step) not in listed
    ]
    problems += [f"{step} is listed, and matches" for step in matched if (scenario, step) in listed]
    assert not problems, "\n" + "\n".join(problems)


def test_the_page_says_what_differs() -> None:
    assert differences.PAGE.read_text() == differences.page(), "python -m tests.aws.differences > docs/aws-answers.md"
