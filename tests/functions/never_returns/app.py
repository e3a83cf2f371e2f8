import time


def handler(event, context):
    print("still here", flush=True)
    while True:
        time.sleep(3600)
