"""What a result on disk is of, as JSON content: whether work may go on from it, and why not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, Mapping):
        return {prefix: content}
    return {
        name: value
        for key, item in content.items()
        for name, value in _flat(item, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def identity_differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Lines "field: stored X, now Y" for the fields in which two JSON contents differ."""
    old, new = _flat(stored), _flat(now)

    def show(fields, name):
        return json.dumps(fields[name]) if name in fields else "absent"

    return [
        f"{name}: stored {show(old, name)}, now {show(new, name)}"
        for name in sorted(old.keys() | new.keys())
        if name not in old or name not in new or old[name] != new[name]
    ]


def json_content(identity: Mapping[str, Any] | None) -> dict[str, Any]:
    """The identity as JSON would give it back: lists for tuples, text for keys.

    Raises:
      ValueError: if it holds something JSON cannot.
    """
    try:
        return json.loads(json.dumps(dict(identity or {}), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"identity must hold only numbers, text, lists and dicts ({error}); it is what a "
            "resumed run must agree on"
        ) from error
