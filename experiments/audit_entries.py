"""The entries of `config.encoders`: their kinds, and what is refused before data is read."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments import trained
from experiments.nets import Net, train_options
from recon_jax import audit, models

OBJECTIVES = ("classification", "reconstruction", "denoising")
POOLS = ("none", "mean", "first")
NORMALIZATIONS = ("none", "channels", "global", "imagenet")
FAMILIES = ("classifier", "masked_autoencoder")

# Options of each kind with their defaults; those whose default is None must be given.
NETWORK = {
    "model": None,
    "options": {},
    "layer": "",
    "pool": "none",
    "normalize": "none",
}
KINDS = {
    "train": {**NETWORK, "objective": None, "corruption": (), "changes": {}},
    "random": NETWORK,
    "checkpoint": {**NETWORK, "run": None},
    "weights": {"path": None, "family": "classifier", "heads": 0, "pool": "none"},
    "python": {"function": None},
}


class Entry(NamedTuple):
    """An encoder to audit.

    Attributes:
      name: for people and file names.
      kind: a key of `KINDS`.
      options: of the kind, with defaults filled in.
    """

    name: str
    kind: str
    options: dict[str, Any]


def entries_of(config: ConfigDict) -> list[Entry]:
    """The encoders of a config; ValueError for what is no entry, or has unknown options."""
    entries = [_entry(item) for item in config.encoders]
    names = [entry.name for entry in entries]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"encoders must be one or more of different names, got {names}")
    return entries


def _entry(item: Any) -> Entry:
    if not isinstance(item, Sequence) or isinstance(item, str) or len(item) != 3:
        raise ValueError(
            f"encoders holds {item!r}; give (name, kind, options), such as "
            "('mine', 'python', {'function': 'my_module:encode'})"
        )
    name, kind, options = item[0], item[1], dict(item[2])
    trained.require_choice(f"encoders: kind of {name}", kind, KINDS)
    defaults = KINDS[kind]
    unknown = [option for option in options if option not in defaults]
    if unknown:
        raise ValueError(
            f"encoders: {name} has no option {', '.join(unknown)}; {kind!r} takes "
            f"{', '.join(defaults)}"
        )
    missing = [
        option for option, value in defaults.items() if value is None and not options.get(option)
    ]
    if missing:
        raise ValueError(f"encoders: {name} needs {', '.join(missing)}")
    return Entry(str(name), kind, {**defaults, **options})


def validate_entry(config: ConfigDict, entry: Entry) -> None:
    """Raise ValueError for an entry that cannot work, before any data is read."""
    where, options = f"encoders: {entry.name}, ", entry.options
    if "model" in options:
        trained.require_choice(f"{where}model", options["model"], models.MODELS)
        trained.require_choice(f"{where}normalize", options["normalize"], NORMALIZATIONS)
    if "pool" in options:
        trained.require_choice(f"{where}pool", options["pool"], POOLS)
    if entry.kind == "train":
        trained.require_choice(f"{where}objective", options["objective"], OBJECTIVES)
        if bool(options["corruption"]) != (options["objective"] == "denoising"):
            raise ValueError(
                f"{where}corruption goes with the objective denoising, such as "
                "('patch_subset', 0.75, 4), and with no other"
            )
        _require_objective(where, entry)
        if options["normalize"] != "none":
            raise ValueError(
                f"{where}normalize={options['normalize']!r}: what is trained here sees pixels in "
                "[0, 1]; leave it at 'none'"
            )
        trained.validate_training(train_fields_of(config, entry), f"{where}train")
    if entry.kind == "checkpoint" and not (Path(options["run"]) / "checkpoints").is_dir():
        raise ValueError(
            f"{where}run={options['run']!r} is not the folder of a run: it has no checkpoints/; "
            "give one such as WORKDIR/runs/NAME"
        )
    if entry.kind == "weights":
        trained.require_choice(f"{where}family", options["family"], FAMILIES)
        if not Path(options["path"]).exists():
            raise ValueError(f"{where}path={options['path']!r}: there is no such file")
    if entry.kind == "python":
        load_function(entry)


def is_classifier(entry: Entry) -> bool:
    """Whether the network of an entry returns one array, the logits of classes."""
    return "num_classes" in inspect.signature(models.MODELS[entry.options["model"]]).parameters


def _require_objective(where: str, entry: Entry) -> None:
    """Raise ValueError for a model that is no autoencoder, or no classifier, as it must be."""
    constructor = models.MODELS[entry.options["model"]]
    constructor = getattr(constructor, "func", constructor)
    autoencoder = inspect.isclass(constructor) and issubclass(constructor, models.Autoencoder)
    objective = entry.options["objective"]
    fits = is_classifier(entry) if objective == "classification" else autoencoder
    if not fits:
        needed = "a classifier" if objective == "classification" else "an autoencoder"
        raise ValueError(
            f"{where}model={entry.options['model']!r} is not for the objective {objective}; give "
            f"{needed}"
        )


def train_fields_of(config: ConfigDict, entry: Entry) -> ConfigDict:
    """The config's `train` with the changes of an entry; ValueError for unknown fields."""
    options = entry.options
    return train_options(config, Net(entry.name, options["model"], {}, options["changes"]))


def load_function(entry: Entry) -> Callable[..., Any] | audit.Encoder:
    """The function of a "python" entry; ValueError if it cannot be found, or is none."""
    address = entry.options["function"]
    module, colon, name = address.partition(":")
    if not (module and colon and name):
        raise ValueError(
            f"encoders: {entry.name}, function={address!r} is no module:name, such as "
            "'my_module:encode'"
        )
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"encoders: {entry.name}, module {module!r} cannot be imported ({error}); run the "
            "command in its folder, or put that on PYTHONPATH"
        ) from error
    function = functools.reduce(
        lambda owner, part: getattr(owner, part, None), name.split("."), found
    )
    if not (callable(function) or isinstance(function, audit.Encoder)):
        public = [key for key, value in vars(found).items() if callable(value) and key[0] != "_"]
        raise ValueError(
            f"encoders: {entry.name}, {address!r} is not a function; {module} has "
            f"{', '.join(sorted(public)) or 'none'}"
        )
    return function


def make_model(
    entry: Entry, image_shape: tuple[int, int, int], num_classes: int, dtype: str
) -> Any:
    """The Flax module of an entry; ValueError for options that it has not."""
    name, options = entry.options["model"], dict(entry.options["options"])
    takes = inspect.signature(models.MODELS[name]).parameters
    # Some models make images of a shape, others classes.
    known = {"image_shape": image_shape, "num_classes": num_classes, "dtype": jnp.dtype(dtype)}
    for option, value in known.items():
        if option in takes:
            options.setdefault(option, value)
    return models.make_model(name, **options)
