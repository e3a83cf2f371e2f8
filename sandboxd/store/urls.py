"""Functions' URLs: each a document of the settings, found by the id that its host name begins with.

Room: service. May: write rows.
"""

from __future__ import annotations

import secrets
import string
from dataclasses import asdict, dataclass, field
from typing import Any

from sandboxd.store.settings import Settings

_KIND = "FunctionUrl"
_LETTERS, _LENGTH = string.ascii_lowercase + string.digits, 32  # AWS's: 165 bits, which nobody guesses


@dataclass(frozen=True, slots=True)
class FunctionUrl:
    """One URL, of a function (`qualifier` is empty) or of an alias; times in ISO 8601, `cors` as AWS's Cors."""

    function: str
    qualifier: str
    auth_type: str
    invoke_mode: str
    cors: dict[str, Any]
    created: str
    modified: str
    id: str = field(default_factory=lambda: "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH)))

    @property
    def public(self) -> bool:
        """Whether requests need no signature."""
        return self.auth_type == "NONE"

    @property
    def streams(self) -> bool:
        """Whether an answer is sent on while it is made."""
        return self.invoke_mode == "RESPONSE_STREAM"


class Urls:
    """The URLs of one account: they go with their function or alias, as every setting does."""

    def __init__(self, settings: Settings, account: str, places: Places) -> None:
        self._settings, self.account, self._places = settings, account, places
        for function, qualifier, document in settings.every(_KIND):
            places.add(str(document["id"]), self, function, qualifier)

    def get(self, function: str, qualifier: str) -> FunctionUrl | None:
        """The URL of a function or an alias, or None."""
        document = self._settings.get(_KIND, function, qualifier)
        return None if document is None else FunctionUrl(function, qualifier, **document)

    def of(self, function: str) -> list[FunctionUrl]:
        """The URLs of a function: its own, then those of its aliases by name."""
        return [FunctionUrl(function, qualifier, **row) for qualifier, row in self._settings.of(_KIND, function)]

    async def put(self, url: FunctionUrl) -> None:
        """Add a URL or change it."""
        document = {name: value for name, value in asdict(url).items() if name not in ("function", "qualifier")}
        await self._settings.put(_KIND, url.function, document, url.qualifier)
        self._places.add(url.id, self, url.function, url.qualifier)

    async def remove(self, url: FunctionUrl) -> None:
        """Remove a URL: its id is not given again."""
        await self._settings.remove(_KIND, url.function, url.qualifier)


class Places:
    """Whose the URLs of all accounts are, by id."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[Urls, str, str]] = {}
        self._most = 64

    def add(self, url_id: str, urls: Urls, function: str, qualifier: str) -> None:
        """An account has a URL with an id."""
        if len(self._places) >= self._most:  # those that went away are not to become more than the others
            self._places = {known: place for known, place in self._places.items() if self.find(known)}
            self._most = 2 * len(self._places) + 64
        self._places[url_id] = urls, function, qualifier

    def find(self, url_id: str) -> tuple[str, FunctionUrl] | None:
        """The account that has a URL with an id, and the URL."""
        place = self._places.get(url_id)
        if place is None:
            return None
        urls, function, qualifier = place
        url = urls.get(function, qualifier)
        return (urls.account, url) if url is not None and url.id == url_id else None
