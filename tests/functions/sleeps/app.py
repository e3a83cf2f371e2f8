import time
import uuid

IDENTITY = str(uuid.uuid4())


def handler(event, context):
    time.sleep(event["seconds"])
    return {"slept": event["seconds"], "identity": IDENTITY}
