def handler(event, context):
    scope = {"event": event, "context": context}
    exec(event["code"], scope)
    return scope.get("result")
