import os


def handler(event, context):
    os._exit(event["code"])
