"""Names for what can fail while an environment is made.

Room: root, parent side. May: turn an OSError into a StepFailed.
"""

from __future__ import annotations

from sandboxd.errors import StepFailed


class step:  # noqa: N801  # reads as a with-statement
    """Names the step that an OSError ended."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            raise StepFailed(self._name, error.errno or 0, str(error)) from error
