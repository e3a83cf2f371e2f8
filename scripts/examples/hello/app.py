import platform
from datetime import UTC, datetime


def handler(event, context):
    print(f"request {context.aws_request_id}: {context.get_remaining_time_in_millis()} ms left")
    return {
        "hello": event.get("name", "world"),
        "python": platform.python_version(),
        "memory_mb": int(context.memory_limit_in_mb),
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
