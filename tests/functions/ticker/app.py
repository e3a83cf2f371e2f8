import threading
import time

TICKS = 0


def tick():
    global TICKS
    while True:
        time.sleep(0.01)
        TICKS += 1


threading.Thread(target=tick, daemon=True).start()


def handler(event, context):
    before = TICKS
    time.sleep(event.get("seconds", 0))
    return {"ticks": before, "monotonic": time.monotonic()}
