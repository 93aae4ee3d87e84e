"""How every recipe begins: with a variant that it knows."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict


def named_config(
    variant: str, variants: Mapping[str, Any], default: str = "embedded"
) -> ConfigDict:
    """A config with nothing but the name of the variant; the default's if that is empty.

    Raises:
      ValueError: if there is no such variant, with those there are.
    """
    name = variant or default
    if name not in variants:
        raise ValueError(f"unknown variant {name!r}; choose one of {', '.join(variants)}")
    config = ConfigDict()
    config.name = name
    return config
