"""The operations of one account, put together: an operation that is new gets its line here.

Room: service. May: make its parts. May not: be shared by two accounts; what they share is the host's.
"""

from __future__ import annotations

from dataclasses import dataclass

from sandboxd.api.account import AccountApi
from sandboxd.api.account_admin import AccountAdminApi
from sandboxd.api.aliases import AliasesApi
from sandboxd.api.authorize import Authorizer
from sandboxd.api.calls import Operations
from sandboxd.api.changes import Changes
from sandboxd.api.code_signing import CodeSigningApi
from sandboxd.api.concurrency import Allotments, ConcurrencyApi
from sandboxd.api.configuration import Configurations
from sandboxd.api.destinations import Destinations
from sandboxd.api.downloads import Downloads
from sandboxd.api.event_invoke import EventInvokeApi
from sandboxd.api.event_sources import EventSourcesApi
from sandboxd.api.function_urls import Addresses, FunctionUrlsApi
from sandboxd.api.functions import FunctionsApi
from sandboxd.api.invoke import InvokeApi
from sandboxd.api.kept import KeptApi
from sandboxd.api.layer_permissions import LayerPermissionsApi
from sandboxd.api.layers import LayersApi
from sandboxd.api.lookup import Lookup
from sandboxd.api.names import Names
from sandboxd.api.packages import Packages
from sandboxd.api.permissions import PermissionsApi
from sandboxd.api.protocols import Events, Logs, Scheduler
from sandboxd.api.provisioned import ProvisionedApi
from sandboxd.api.reclaim import Reclaimer
from sandboxd.api.revisions import Revisions
from sandboxd.api.roles import Roles
from sandboxd.api.service_model import Operation
from sandboxd.api.tags import TagsApi
from sandboxd.api.tasks import Tasks
from sandboxd.api.versions import VersionsApi
from sandboxd.config import Config
from sandboxd.services import Neighbours
from sandboxd.store.store import Store, Stores
from sandboxd.store.urls import Places, Urls


@dataclass(frozen=True, slots=True)
class Host:
    """What all accounts share; `invoke` is the model's Invoke."""

    config: Config
    scheduler: Scheduler
    events: Events
    logs: Logs
    reclaimer: Reclaimer
    downloads: Downloads
    tasks: Tasks
    invoke: Operation
    places: Places
    neighbours: Neighbours
    stores: Stores
    authorizer: Authorizer


class Handlers:
    """Every operation of one account, on its store."""

    def __init__(self, host: Host, store: Store) -> None:
        config, limits, scheduler = host.config, host.config.limits, host.scheduler
        self.store, self.names, self.authorizer = store, Names(config.region, store.account), host.authorizer
        names, revisions, changes = self.names, Revisions(store.settings), Changes()
        self._changes = changes
        destinations = Destinations(
            config.destinations, host.stores.owner, host.neighbours.sqs is not None, config.region, store.account
        )
        configurations = Configurations(limits, store.images, config.region, revisions, destinations)
        packages = Packages(store.code, limits, host.neighbours.s3)
        self.allotments = allotments = Allotments(store, names, changes, scheduler, limits)
        self.roles = Roles(store, names, self.authorizer, scheduler, allotments)
        lookup = Lookup(store, names, changes, revisions)
        versions = VersionsApi(store, configurations, lookup, changes, host.reclaimer, allotments)
        code_signing = CodeSigningApi(store, names, lookup)
        layers = LayersApi(store, host.stores, names, host.reclaimer, packages, host.downloads)
        self.functions = FunctionsApi(
            store, configurations, names, lookup, changes, versions, code_signing, layers, packages, host.reclaimer,
            allotments, self.roles, host.logs, host.downloads, host.tasks, scheduler.warm,
        )  # fmt: skip
        urls = Urls(store.settings, store.account, host.places)
        self._event_sources = EventSourcesApi(
            store,
            names,
            self.authorizer,
            host.events.sources,
            lambda invocation: self.invoke.run(invocation),
            host.tasks,
            config.event_concurrency,
        )
        self.operations: Operations = changes.in_turn(
            self.functions.operations()
            | versions.operations()
            | AliasesApi(store, names, lookup, revisions, allotments).operations()
            | code_signing.operations()
            | self._event_sources.operations()
            | EventInvokeApi(store, names, self.authorizer, destinations).operations()
            | FunctionUrlsApi(store, names, urls, Addresses.of(config)).operations()
            | ConcurrencyApi(store, names, lookup, allotments, limits).operations()
            | ProvisionedApi(store, names, lookup, allotments, scheduler, limits).operations()
            | PermissionsApi(store, names, changes, revisions).operations()
            | KeptApi(store, names, lookup).operations()
            | layers.operations()
            | TagsApi(store, names, lookup, changes).operations()
            | LayerPermissionsApi(layers, store.layers).operations()
            | AccountApi(store, limits, allotments, config.service_dir).operations()
        )
        self.admin = AccountAdminApi(store, self.functions, names, self.roles, host.logs)
        self.invoke = InvokeApi(store, scheduler, host.events, host.reclaimer, names, limits, host.invoke)

    @property
    def left(self) -> str:
        """What an account that is to be removed still has, in words; empty: nothing."""
        if len(self.store.functions) or self._changes.busy:
            return "functions"
        if any(self.store.layers.every_version()):
            return "layers"
        return "event source mappings" if self._event_sources.some else ""

    def begin(self) -> None:
        """Have the scheduler and the pollers do what the store says: once, at the start."""
        self.allotments.apply_all()
        self._event_sources.begin()
