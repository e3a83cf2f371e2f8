"""A thumbnail of a JPEG: {"image": base64, "size": pixels} gives {"image": base64, "width": ..., "height": ...}."""

import base64
import io

from PIL import Image


def handler(event, context):
    picture = Image.open(io.BytesIO(base64.b64decode(event["image"], validate=True)))
    original = picture.size
    picture.thumbnail((event.get("size", 128),) * 2)
    target = io.BytesIO()
    picture.convert("RGB").save(target, "JPEG", quality=85)
    return {
        "image": base64.b64encode(target.getvalue()).decode(),
        "width": picture.width,
        "height": picture.height,
        "original": list(original),
    }
