import json
import time


def handler(event, context):
    failures = []
    for record in event["Records"]:
        message, received = json.loads(record["body"]), int(record["attributes"]["ApproximateReceiveCount"])
        group = record["attributes"].get("MessageGroupId", "-")
        print("MESSAGE", message["n"], group, received, len(event["Records"]))
        time.sleep(message.get("seconds", 0))
        if failures or received <= message.get("fails", 0):
            failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}
