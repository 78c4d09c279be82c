"""The one JSON object that a command prints with `--json`."""

import json
from datetime import date
from typing import Any


def print_json(answer: Any) -> None:
    """Prints it on one line. Times and days are in ISO 8601, as other programs read them."""
    print(json.dumps(answer, default=_text))


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)
