"""What is JSON and what is not.

Room: model.
"""

from __future__ import annotations

import gc
import json


def _refuse_constant(name: str) -> None:
    raise ValueError(f"Unrecognized token '{name}'")


# Numbers stay text: nothing is computed with them, and Python refuses to convert integers of 4,300 digits.
_DECODE = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse_constant).decode


def check_json(payload: bytes) -> None:
    """Raise ValueError, with the reason, where a payload is no JSON document in UTF-8."""
    gc.disable()  # six megabytes can be two million lists: looking for cycles among them takes longer than all else
    try:
        _DECODE(payload.decode())
    except RecursionError:
        raise ValueError("Document nesting depth exceeds the maximum allowed") from None
    finally:
        gc.enable()
