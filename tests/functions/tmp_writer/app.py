"""Writes more to /tmp than its memory holds, and reads it back."""

import os

BLOCK = 1024 * 1024


def pattern(number):
    return number.to_bytes(8, "big") * (BLOCK // 8)


def handler(event, context):
    path = "/tmp/" + event.get("name", "big")
    with open(path, "wb", buffering=0) as file:
        for number in range(event["mb"]):
            file.write(pattern(number))
    with open(path, "rb", buffering=0) as file:
        wrong = sum(file.read(BLOCK) != pattern(number) for number in range(event["mb"]))
    size = os.path.getsize(path)
    if not event.get("keep"):
        os.unlink(path)
    about = os.statvfs("/tmp")
    return {"bytes": size, "wrong": wrong, "capacity_mb": about.f_blocks * about.f_frsize // BLOCK}
