"""TestLambdaVersions: publish, show, list, delete."""

from __future__ import annotations

from tests.aws.player import FUNCTION, VERSION, Player


def publish_version_on_create(play: Player) -> None:
    play.create_bare("create_response", Publish=True)
    play.step("get_function_result", "get_function", FunctionName=FUNCTION)
    play.step("get_function_version_result", "get_function", FunctionName=FUNCTION, Qualifier="1")
    play.step("get_function_latest_result", "get_function", FunctionName=FUNCTION, Qualifier="$LATEST")
    play.step("list_versions_result", "list_versions_by_function", FunctionName=FUNCTION)
    description = "Repeated version description :)"
    play.step("repeated_publish_response", "publish_version", FunctionName=FUNCTION, Description=description)
    play.step("list_versions_result_after_publish", "list_versions_by_function", FunctionName=FUNCTION)


def version_lifecycle(play: Player) -> None:
    play.create_bare("create_response", Description="No version :(")
    play.step("get_function_result", "get_function", FunctionName=FUNCTION)
    play.step("list_versions_result", "list_versions_by_function", FunctionName=FUNCTION)
    update = "update_function_configuration"
    play.step("first_update_response", update, FunctionName=FUNCTION, Description="First version :)")
    play.wait()
    play.step("first_update_get_function", "get_function", FunctionName=FUNCTION)
    description = "First version description :)"
    play.step("first_publish_response", "publish_version", FunctionName=FUNCTION, Description=description)
    one = {"FunctionName": FUNCTION, "Qualifier": "1"}
    play.step("first_publish_get_function", "get_function", **one)
    play.step("first_publish_get_function_config", "get_function_configuration", **one)
    play.step("second_update_response", update, FunctionName=FUNCTION, Description="Second version :))")
    play.wait()
    play.step("first_publish_get_function_after_update", "get_function", **one)
    play.step("second_publish_response", "publish_version", FunctionName=FUNCTION)
    description = "Third version description :)))"
    play.step("third_publish_response", "publish_version", FunctionName=FUNCTION, Description=description)
    play.step("list_versions_result_after_third_publish", "list_versions_by_function", FunctionName=FUNCTION)
    play.ask("delete_function", FunctionName=f"{FUNCTION}:1")
    step = "list_versions_result_after_deletion_of_first_version"
    play.step(step, "list_versions_by_function", FunctionName=FUNCTION)


def publish_with_wrong_sha256(play: Player) -> None:
    play.create_bare("create_response")
    shown = play.step("get_fn_response", "get_function", FunctionName=FUNCTION)
    publish = {"FunctionName": FUNCTION, "CodeSha256": "somenonexistentsha256"}
    play.step("publish_wrong_sha256_exc", "publish_version", **publish)
    publish["CodeSha256"] = shown["Configuration"]["CodeSha256"]
    play.step("publish_result", "publish_version", **publish)


def publish_with_wrong_revisionid(play: Player) -> None:
    play.create_bare("create_response")
    shown = play.step("get_fn_response", "get_function", FunctionName=FUNCTION)
    publish = {"FunctionName": FUNCTION, "RevisionId": "a" * 8}
    play.step("publish_wrong_revisionid_exc", "publish_version", **publish)
    publish["RevisionId"] = shown["Configuration"]["RevisionId"]
    play.step("publish_result", "publish_version", **publish)


def publish_with_update(play: Player) -> None:
    play.create_bare("create_response")
    play.step("get_function_result", "get_function", FunctionName=FUNCTION)
    update = {"FunctionName": FUNCTION, "ZipFile": VERSION, "Publish": True}
    play.step("update_function_code_result", "update_function_code", **update)
    play.step("get_function_version_result", "get_function", FunctionName=FUNCTION, Qualifier="1")
    play.step("get_function_latest_result", "get_function", FunctionName=FUNCTION, Qualifier="$LATEST")
