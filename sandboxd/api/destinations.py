"""Which targets a function may name for what becomes of its events: those that there is a place for.

Room: service. May: words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from sandboxd.api.errors import invalid_parameter

_QUEUES = ("sqs", "sns")
_AT_SERVICES = re.compile(r"arn:aws[a-z-]*:(?:sqs|sns):([a-z0-9-]+):(\d{12}):[A-Za-z0-9_-]{1,256}")


@dataclass(frozen=True, slots=True)
class Destinations:
    """Targets of other services: those that the configuration names by their ARN, if they are the account's by `owner`,
    and, where it has an endpoint of `services`, every queue and topic there of one region and account. Those of others
    nobody's role could permit."""

    named: Collection[str]
    owner: Callable[[str], str]
    services: bool
    region: str
    account: str

    def check(self, arn: str) -> None:
        """Raise InvalidParameterValueException where there is no place for a target."""
        if arn in self.named and self.owner(arn) == self.account:
            return
        if not self.services:
            raise invalid_parameter(
                f"sandboxd has no destination {arn}: its configuration names none under [destinations], and no "
                "endpoint_url under [services] where queues and topics would be."
            )
        found = _AT_SERVICES.fullmatch(arn)
        if found is None or found.groups() != (self.region, self.account):
            raise invalid_parameter(
                f"sandboxd has no destination {arn}: its configuration names none under [destinations], and at the "
                "endpoint of its services only standard queues and topics of the function's region and account are."
            )

    def check_dead_letter_queue(self, arn: str) -> None:
        """Raise InvalidParameterValueException where a target cannot be a dead-letter queue."""
        if arn.split(":")[2] not in _QUEUES:
            raise invalid_parameter(f"The provided target ARN {arn} is invalid: it is no SQS queue and no SNS topic.")
        self.check(arn)
