import os
import time

time.sleep(float(os.environ["SECONDS"]))


def handler(event, context):
    return {"left": context.get_remaining_time_in_millis()}
