def handler(event, context):
    return {"hello": event.get("name", "world") if isinstance(event, dict) else event}
