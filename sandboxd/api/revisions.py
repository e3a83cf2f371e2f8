"""RevisionIds: a policy that changes renews that of its function, version or alias, publishing that of the function;
nothing else of them is renewed by either, no environment.

Room: service. May: read the store's maps.
"""

from __future__ import annotations

import uuid

from sandboxd.model.arn import LATEST
from sandboxd.model.function import Alias, FunctionVersion
from sandboxd.store.settings import Settings

KIND = "Policy"  # of the documents: Statement, RevisionId, and RevisionOf, which is whose RevisionId it stands for


class Revisions:
    """The present RevisionIds, as the API shows them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def of(self, subject: FunctionVersion | Alias) -> str:
        """The RevisionId of a version or an alias."""
        if isinstance(subject, Alias):
            document = self._settings.get(KIND, subject.function, subject.name)
        else:
            document = self._settings.get(KIND, subject.name, "" if subject.version == LATEST else subject.version)
        own = own_revision(subject)
        return own if document is None or document["RevisionOf"] != own else str(document["RevisionId"])


def own_revision(subject: FunctionVersion | Alias) -> str:
    """The RevisionId of a version or an alias, whatever became of its policy."""
    if isinstance(subject, FunctionVersion) and subject.version == LATEST and subject.last_published:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{subject.revision_id}:{subject.last_published}"))
    return subject.revision_id
