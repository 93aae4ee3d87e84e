"""Networks named in a config, each with options of its model and of its training."""

from __future__ import annotations

from typing import Any, NamedTuple

from ml_collections import ConfigDict


class Net(NamedTuple):
    """A network to train, as an entry (name, model, options, changes) of `config.nets`.

    Attributes:
      name: for people and file names.
      model: what is built, such as a key of `models.MODELS`.
      options: of the model.
      changes: fields of the config's `train` that are its own.
    """

    name: str
    model: str
    options: dict[str, Any]
    changes: dict[str, Any]


def nets_of(config: ConfigDict) -> list[Net]:
    """The networks of a config."""
    return [
        Net(name, model, dict(options), dict(changes))
        for name, model, options, changes in config.nets
    ]


def train_options(config: ConfigDict, net: Net) -> ConfigDict:
    """The config's `train` with the changes of a network; ValueError for unknown fields."""
    options = config.train.to_dict()
    unknown = [field for field in net.changes if field not in options]
    if unknown:
        raise ValueError(
            f"nets: {net.name} changes {', '.join(unknown)}, which train has not; choose from "
            f"{', '.join(options)}"
        )
    return ConfigDict({**options, **net.changes})
