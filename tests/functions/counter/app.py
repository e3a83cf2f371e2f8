"""Counts its invocations in this process: what comes back tells one environment from another."""

import os
import uuid

IDENTITY = str(uuid.uuid4())
COUNT = 0


def handler(event, context):
    global COUNT
    COUNT += 1
    return {"identity": IDENTITY, "count": COUNT, "generation": os.environ.get("GENERATION", "")}
