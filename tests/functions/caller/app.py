"""Calls another function by boto3, as one does on AWS: with nothing configured."""

import json

import boto3

CLIENT = boto3.client("lambda")


def handler(event, context):
    answer = CLIENT.invoke(FunctionName=event["function"], Payload=json.dumps(event["payload"]))
    return {
        "status": answer["StatusCode"],
        "error": answer.get("FunctionError"),
        "payload": json.load(answer["Payload"]),
    }
