"""An alias with two versions, invoked by several callers at once: the share is exact, and no caller's is another's."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from tests.conftest import Deployed
from tests.support.daemon import FUNCTIONS, Daemon

CALLERS, EACH, WEIGHT = 4, 25, 0.3
CRITICAL = 30.665  # chi-square with 3 degrees of freedom at p = 0.000001: these draws are others with every run


def test_weights_over_real_invocations(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("evaluate", "weighed", Publish=True)
    daemon.wait_settled(name)
    client = daemon.lambda_client
    client.update_function_configuration(FunctionName=name, Description="second")
    daemon.wait_settled(name)
    client.publish_version(FunctionName=name)
    weights = {"AdditionalVersionWeights": {"2": WEIGHT}}
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1", RoutingConfig=weights)
    request = json.dumps({"code": "result = context.function_version"}).encode()

    def call(_: int) -> list[str]:
        ran = []
        for _ in range(EACH):
            answer = daemon.request("POST", f"{FUNCTIONS}/{name}:live/invocations", request)
            assert answer.status == 200 and "x-amz-function-error" not in answer.headers, answer
            ran.append(answer.headers["x-amz-executed-version"])
            assert answer.json == ran[-1]
        return ran

    with ThreadPoolExecutor(CALLERS) as pool:
        callers = list(pool.map(call, range(CALLERS)))
    assert sum(ran.count("2") for ran in callers) == round(CALLERS * EACH * WEIGHT)
    expected = EACH * WEIGHT
    statistic = sum((ran.count("2") - expected) ** 2 / expected / (1 - WEIGHT) for ran in callers)
    assert statistic < CRITICAL, [ran.count("2") for ran in callers]
