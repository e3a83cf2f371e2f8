"""A function's configuration: from the members of a request to values, and from values to AWS's answer.

Room: service. May: check values. May not: I/O.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sandboxd.api.destinations import Destinations
from sandboxd.api.errors import invalid_parameter, not_offered_member
from sandboxd.api.kept_members import check_snapstart, described, kept
from sandboxd.api.revisions import Revisions
from sandboxd.api.runtimes import ARCHITECTURE, check_architectures, check_runtime
from sandboxd.model.function import FunctionVersion
from sandboxd.model.limits import Limits
from sandboxd.store.images import Images

_SHOWN = 16_384  # characters of oversized variables that the answer repeats

# https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime
RESERVED_VARIABLES = frozenset(
    (
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_DEFAULT_REGION",
        "AWS_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_LAMBDA_RUNTIME_API",
        "LAMBDA_TASK_ROOT",
        "LAMBDA_RUNTIME_DIR",
    )
)

# Members that are taken where they ask for what every function has anyway; any other value is refused.
_STANDING: dict[str, tuple[Any, ...]] = {
    "CapacityProviderConfig": (),
    "DurableConfig": (),
    "AcceleratorConfig": (),
    "FileSystemConfigs": ([],),
    "ImageConfig": ({},),
    "KMSKeyArn": ("",),
    "PackageType": ("Zip",),
    "PublishTo": (),
    "RuntimeConfig": (),
    "TenancyConfig": (),
    "VpcConfig": ({}, {"SubnetIds": [], "SecurityGroupIds": []}),
}


@dataclass(frozen=True, slots=True)
class Configurations:
    """Checks and describes the configurations of one instance's functions."""

    limits: Limits
    images: Images
    region: str
    revisions: Revisions
    destinations: Destinations

    def check(self, members: Mapping[str, Any]) -> None:
        """Raise InvalidParameterValueException where a value is not allowed, or asks for what is not offered."""
        if "Architectures" in members:
            check_architectures(members["Architectures"])
        variables = members.get("Environment", {}).get("Variables")
        if variables:
            _check_variables(variables, self.limits.environment_bytes)
        if "Runtime" in members:
            check_runtime(members["Runtime"], self.images)
        if "MemorySize" in members:
            self._check_memory(members["MemorySize"])
        queue = members.get("DeadLetterConfig", {}).get("TargetArn")
        if queue:
            self.destinations.check_dead_letter_queue(queue)
        for name, standing in _STANDING.items():
            if name in members and members[name] not in standing:
                raise not_offered_member(name)

    def merged(self, version: FunctionVersion, members: Mapping[str, Any]) -> FunctionVersion:
        """The version with the members of a request in it, as a new revision."""
        changes: dict[str, Any] = {}
        plain = {
            "Role": "role",
            "Handler": "handler",
            "Description": "description",
            "Timeout": "timeout",
            "MemorySize": "memory_size",
            "Runtime": "runtime",
        }
        changes |= {plain[name]: value for name, value in members.items() if name in plain}
        if "Environment" in members:
            changes["variables"] = tuple(members["Environment"].get("Variables", {}).items())
        if "EphemeralStorage" in members:
            changes["ephemeral_storage"] = members["EphemeralStorage"]["Size"]
        changes["settings"] = kept(version, members)
        merged = replace(version, **changes, revision_id=new_revision(), last_modified=now_text())
        check_snapstart(merged)
        return merged

    def initial(self, name: str, arn: str, members: Mapping[str, Any]) -> FunctionVersion:
        """The first version of a function, still without code, with AWS's defaults for what the request leaves out."""
        bare = FunctionVersion(
            name=name,
            version="$LATEST",
            arn=arn,
            runtime="",
            role="",
            handler="",
            code_digest="",
            code_size=0,
            memory_size=self.limits.memory_mb_min,
            timeout=3,
            revision_id="",
            last_modified="",
            architectures=(ARCHITECTURE,),
        )
        return self.merged(bare, members)

    def describe(
        self, version: FunctionVersion, qualifier: str | None = None, *, listed: bool = False
    ) -> dict[str, Any]:
        """AWS's FunctionConfiguration; the ARN names the qualifier by which the version was meant.

        `listed` leaves out what ListFunctions leaves out.
        """
        answer: dict[str, Any] = {
            "FunctionName": version.name,
            "FunctionArn": f"{version.arn}:{qualifier}" if qualifier else version.arn,
            "Runtime": version.runtime,
            "Role": version.role,
            "Handler": version.handler,
            "CodeSize": version.code_size,
            "Description": version.description,
            "Timeout": version.timeout,
            "MemorySize": version.memory_size,
            "LastModified": version.last_modified,
            "CodeSha256": base64.b64encode(bytes.fromhex(version.code_digest)).decode(),
            "Version": version.version,
            "RevisionId": self.revisions.of(version),
            "PackageType": "Zip",
            "Architectures": list(version.architectures),
            "EphemeralStorage": {"Size": version.ephemeral_storage},
        }
        answer |= described(version)
        if version.layers:
            answer["Layers"] = [{"Arn": layer.arn, "CodeSize": layer.code_size} for layer in version.layers]
        if version.variables is not None:
            answer["Environment"] = {"Variables": dict(version.variables)}
        return answer if listed else answer | self._describe_state(version)

    def _describe_state(self, version: FunctionVersion) -> dict[str, Any]:
        answer: dict[str, Any] = {"State": version.state}
        being_created = ("The function is being created.", "Creating")
        if version.state == "Pending":
            answer["StateReason"], answer["StateReasonCode"] = being_created
        else:
            answer["LastUpdateStatus"] = version.last_update_status
            if version.state == "Failed":
                answer |= {"StateReason": version.state_reason, "StateReasonCode": "InternalError"}
            if version.last_update_status == "InProgress":
                answer["LastUpdateStatusReason"], answer["LastUpdateStatusReasonCode"] = being_created
        digest = self.images.digest(version.runtime)
        if digest is not None:
            answer["RuntimeVersionConfig"] = {"RuntimeVersionArn": f"arn:aws:lambda:{self.region}::runtime:{digest}"}
        return answer

    def check_unzipped(self, version: FunctionVersion) -> None:
        """Raise InvalidParameterValueException where code and layers together are too large, or too many files."""
        limits, layers = self.limits, version.layers
        size = version.unzipped.size + sum(layer.unzipped.size for layer in layers)
        if size > limits.unzipped_bytes:
            raise invalid_parameter(
                "Function code combined with layers exceeds the maximum allowed size of "
                f"{limits.unzipped_bytes} bytes. The actual size is {size} bytes."
            )
        files = sum(layer.unzipped.files for layer in layers)
        if files > limits.zip_entries:
            raise invalid_parameter(
                f"The layers of a function have at most {limits.zip_entries} files and directories together here. "
                f"The actual number is {files}."
            )

    def _check_memory(self, size: int) -> None:
        limits = self.limits
        words = "'MemorySize' value failed to satisfy constraint: Member must "
        if size > limits.memory_mb_max:
            raise invalid_parameter(f"{words}have value less than or equal to {limits.memory_mb_max}")
        if size % limits.memory_mb_step:
            raise invalid_parameter(f"{words}be a multiple of {limits.memory_mb_step}")


def new_revision() -> str:
    """A RevisionId."""
    return str(uuid.uuid4())


def now_text() -> str:
    """This moment in the form of AWS's LastModified."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"


def _check_variables(variables: Mapping[str, str], limit: int) -> None:
    unable = "Lambda was unable to configure your environment variables because the environment variables you have "
    reserved = [name for name in variables if name in RESERVED_VARIABLES]
    if reserved:
        raise invalid_parameter(
            f"{unable}provided contains reserved keys that are currently not supported for modification. "
            f"Reserved keys used in this request: {', '.join(reserved)}"
        )
    # execve ends a variable at its first NUL: what follows would be a variable of its own.
    holed = next((name for name, value in variables.items() if "\0" in value), None)
    if holed is not None:
        raise invalid_parameter(f"{unable}provided contains a null character in the value of {holed}")
    measured = json.dumps(variables, separators=(",", ":"), ensure_ascii=False)
    if len(measured.encode()) > limit:
        text = f"{limit // 1024}KB" if limit % 1024 == 0 else f"{limit} byte"
        raise invalid_parameter(f"{unable}provided exceeded the {text} limit. String measured: {measured[:_SHOWN]}")
