"""Files of named arrays as others publish them: safetensors and PyTorch."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors

_SAFETENSORS_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
# Where training scripts put the parameters when they save more than these.
_WRAPPERS = ("model", "state_dict")


def _as_float32(array: np.ndarray) -> np.ndarray:
    """Floating numbers of any width as float32; others as they are."""
    return array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    content = path.read_bytes()
    try:
        entries = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is damaged, cut short or not a safetensors file ({error}); download it again"
        ) from error
    unknown = {name: e["dtype"] for name, e in entries if e["dtype"] not in _SAFETENSORS_DTYPES}
    if unknown:
        raise ValueError(
            f"{path} holds numbers that NumPy has no type for, {unknown}; save it with one of "
            f"{', '.join(_SAFETENSORS_DTYPES)}"
        )

    def array(entry):
        flat = np.frombuffer(entry["data"], _SAFETENSORS_DTYPES[entry["dtype"]])
        return _as_float32(flat.reshape(entry["shape"]))

    return {name: array(entry) for name, entry in entries}


def _load_torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{path.name} is a file of PyTorch, which reads it: pip install -e '.[torch]'; "
            "safetensors files need no PyTorch"
        ) from error
    try:
        # Training scripts store their command line too; a Namespace runs no code when it is read.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # bytes that are no pickle can raise nearly anything
        raise ValueError(
            f"{path} is damaged, cut short, or not a PyTorch file of arrays alone "
            f"({type(error).__name__}: {str(error)[:200]}); download it again, or save the "
            "state_dict alone"
        ) from error


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    content = _load_torch(path)
    import torch

    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, not named arrays; save a state_dict"
        )
    others = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ValueError(
            f"{path} holds more than arrays: {', '.join(others[:8])}; save the state_dict alone, "
            f"or under {' or '.join(map(repr, _WRAPPERS))}"
        )

    def array(tensor):
        tensor = tensor.detach()
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()

    return {str(name): array(tensor) for name, tensor in content.items()}


_READERS = {
    ".safetensors": _read_safetensors,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".bin": _read_torch,
}


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file of weights by name, floating numbers as float32.

    PyTorch files are read without running any code of theirs (`weights_only`), and opened down to
    the parameters if these stand under "model" or "state_dict".

    Args:
      path: a .safetensors, .pth, .pt or .bin file.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: for a file of PyTorch where that is not installed.
      ValueError: if the file has another ending, is damaged, or holds other things than arrays.
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise ValueError(
            f"{path} has an ending that is not known; a file of weights ends with "
            f"{', '.join(_READERS)}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; download the weights first and give their place")
    return _READERS[path.suffix](path)
