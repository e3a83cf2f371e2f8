"""Everything that a function can see of how it is run."""

import os
import time


def handler(event, context):
    return {
        "environ": dict(os.environ),
        "cwd": os.getcwd(),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "time_zone": list(time.tzname),
        "context": {
            "aws_request_id": context.aws_request_id,
            "function_name": context.function_name,
            "function_version": context.function_version,
            "invoked_function_arn": context.invoked_function_arn,
            "log_group_name": context.log_group_name,
            "log_stream_name": context.log_stream_name,
            "memory_limit_in_mb": context.memory_limit_in_mb,
            "client_context": context.client_context and context.client_context.custom,
            "identity": context.identity is not None,
            "remaining_ms": context.get_remaining_time_in_millis(),
        },
    }
