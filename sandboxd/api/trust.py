"""Whether Lambda may assume a role that is kept here.

Room: service. May: judge.
"""

from __future__ import annotations

from sandboxd.model.iam.decision import Decision, Principal, Request, decide
from sandboxd.model.iam.policy import parse_trust
from sandboxd.store.principals import Identity

_LAMBDA = Principal((), service="lambda.amazonaws.com")
# Of a role that was made without one: https://docs.aws.amazon.com/lambda/latest/dg/lambda-intro-execution-role.html
DEFAULT = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, '
    '"Action": "sts:AssumeRole"}]}'
)


def lets_lambda_assume(role: Identity, role_arn: str, function_arn: str, account: str) -> bool:
    """Whether a role's trust policy lets the service run a function by it."""
    context = {"aws:sourceaccount": account, "aws:sourcearn": function_arn}
    request = Request(_LAMBDA, "sts:AssumeRole", role_arn, account, context)
    return decide(request, [], parse_trust(role.trust or DEFAULT)) is Decision.ALLOWED
