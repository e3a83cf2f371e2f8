"""What a client means by a function name, as AWS reads it.

Room: service. May: words.
"""

from __future__ import annotations

from dataclasses import dataclass

from sandboxd.api.errors import access_denied, invalid_parameter
from sandboxd.errors import ApiError
from sandboxd.model.arn import function_arn, parse_function_reference


@dataclass(frozen=True, slots=True)
class Names:
    """Reads the names of one instance's functions."""

    region: str
    account: str

    def arn(self, name: str, qualifier: str | None = None) -> str:
        """The ARN of a function."""
        return function_arn(self.region, self.account, name, qualifier)

    def resolve(self, text: str, qualifier: str | None = None, action: str = "") -> tuple[str, str | None]:
        """Name and qualifier of a text that fits the model's pattern, and of a Qualifier beside it.

        Raises ApiError where the two qualifiers differ, or region or account are not this instance's.
        """
        reference = parse_function_reference(text)
        if reference is None:
            # The pattern of the newest model lets through what no function's name can be (a dot, $LATEST.PUBLISHED).
            raise ApiError("ResourceNotFoundException", f"Function not found: {self.arn(text)}", 404)
        if reference.region not in (None, self.region):
            words = f"Functions from '{reference.region}' are not reachable in this region ('{self.region}')"
            raise ApiError("ResourceNotFoundException", words, 404)
        if reference.account not in (None, self.account):
            arn = function_arn(self.region, reference.account or "", reference.name)
            raise access_denied(
                f"User: arn:aws:iam::{self.account}:root is not authorized to perform: lambda:{action} on resource: "
                f"{arn} because no resource-based policy allows the lambda:{action} action"
            )
        if reference.qualifier and qualifier and reference.qualifier != qualifier:
            raise invalid_parameter(
                "The derived qualifier from the function name does not match the specified qualifier."
            )
        return reference.name, qualifier or reference.qualifier
