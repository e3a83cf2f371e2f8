def handler(event, context):
    held = [bytearray(b"\xa5" * (1024 * 1024)) for _ in range(event["mb"])]
    return {"mb": len(held)}
