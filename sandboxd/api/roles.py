"""What functions may do as they run, by the roles that are kept here; a role that changes has them run anew.

Room: service. May: retire environments.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from sandboxd.api.authorize import Authorizer
from sandboxd.api.concurrency import Allotments
from sandboxd.api.errors import invalid_parameter
from sandboxd.api.names import Names
from sandboxd.api.protocols import Scheduler
from sandboxd.api.trust import lets_lambda_assume
from sandboxd.errors import ApiError
from sandboxd.model.function import FunctionVersion, Policy
from sandboxd.model.iam.network import check_role, network, statements
from sandboxd.model.iam.policy import MalformedPolicy
from sandboxd.model.network import Network, Permission
from sandboxd.store.principals import Identity
from sandboxd.store.store import Store

_NOT_ASSUMED = "The role defined for the function cannot be assumed by Lambda."
_QUEUES = {"sqs": "SendMessage on SQS", "sns": "Publish on SNS"}


class Roles:
    """The roles of one account, as its functions have them."""

    def __init__(
        self, store: Store, names: Names, authorizer: Authorizer, scheduler: Scheduler, allotments: Allotments
    ) -> None:
        self._store, self._names, self._authorizer = store, names, authorizer
        self._scheduler, self._allotments = scheduler, allotments

    def network(self, function: FunctionVersion) -> Network:
        """What an environment of a function may reach.

        Raises AccessDeniedException where its role is kept here and cannot be assumed, ServiceException where role and
        function together come to more than the router has room for.
        """
        role = self._authorizer.role(function)
        if role is not None and not lets_lambda_assume(role, function.role, function.arn, self._names.account):
            raise ApiError("AccessDeniedException", _NOT_ASSUMED, 403)
        try:
            return self._network(function, role)
        except ValueError as error:
            raise ApiError("ServiceException", _too_much(function, error), 500, fault="Service") from None

    def check(self, function: FunctionVersion) -> None:
        """Raise InvalidParameterValueException where a function cannot have the role that it names."""
        role = self._authorizer.role(function)
        if role is None:
            return
        if not lets_lambda_assume(role, function.role, function.arn, self._names.account):
            raise invalid_parameter(_NOT_ASSUMED)
        self.check_network(function)
        queue = json.loads(dict(function.settings).get("DeadLetterConfig", "{}")).get("TargetArn")
        if queue and not self._authorizer.may_send(function, queue):
            action = _QUEUES[queue.split(":")[2]]
            raise invalid_parameter(f"The provided execution role does not have permissions to call {action}")

    def check_network(self, function: FunctionVersion) -> None:
        """Raise InvalidParameterValueException where role and function together name more than the router holds."""
        try:
            self._network(function, self._authorizer.role(function))
        except ValueError as error:
            raise invalid_parameter(_too_much(function, error)) from None

    def check_role(self, role: Identity) -> None:
        """Raise MalformedPolicy where a role that is to be cannot be judged, or the router cannot hold it."""
        check_role(role.policies())
        bounds = role.bounds()
        check_role([] if bounds is None else [bounds], opens=False)
        settings: set[Policy] = set()
        for function in self._functions_of(role.name):
            if function.policy not in settings:
                settings.add(function.policy)
                try:
                    self._network(function, role)
                except ValueError as error:
                    raise MalformedPolicy(_too_much(function, error)) from None

    def changed(self, name: str, before: Identity | None, after: Identity | None) -> None:
        """A role is another: environments of its functions end, if what they stand on does."""
        if before is not None and after is not None and _ground(before) == _ground(after):
            return
        self._retire(self._functions_of(name))

    def renew(self) -> None:
        """End every environment that has credentials: they last for so long."""
        every = self._store.functions.every_version()
        self._retire(version for version in every if self._authorizer.role(version))

    def _network(self, function: FunctionVersion, role: Identity | None) -> Network:
        policy = function.policy
        if role is None:
            return Network(policy.egress, policy.hosts)
        own = Permission(policy.egress, policy.hosts) if policy.stated else None
        context = {**self._authorizer.context(function), "aws:principalaccount": self._names.account}
        return network(role.policies(), context, own, role.bounds())

    def _functions_of(self, name: str) -> list[FunctionVersion]:
        every = self._store.functions.every_version()
        here = f"arn:aws:iam::{self._names.account}:role/"
        return [v for v in every if v.role.startswith(here) and v.role.rpartition("/")[2] == name]

    def _retire(self, versions: Iterable[FunctionVersion]) -> None:
        names = set()
        for version in versions:
            self._scheduler.retire(version.key)
            names.add(version.name)
        for name in names:  # what is provisioned is made anew
            self._allotments.apply(name)


def _ground(role: Identity) -> tuple[object, ...]:
    bounds = role.bounds()
    return role.trust, statements(role.policies()), None if bounds is None else statements([bounds])


def _too_much(function: FunctionVersion, error: ValueError) -> str:
    return f"The network destinations of the function {function.name} and its role {function.role}: {error}"
