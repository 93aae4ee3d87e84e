"""Files and folders of published masked autoencoders: theirs read, ours written as theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import PyTree

from recon_jax.models.masked_autoencoder import MaskedAutoencoder
from recon_jax.models.published import Published, published_autoencoder
from recon_jax.models.published_entries import leaves_of
from recon_jax.models.published_layouts import hugging_face, to_published
from recon_jax.models.vit import EPSILON, grid_positions
from recon_jax.models.weight_files import read_weights


def _weights_of_folder(folder: Path) -> Path:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    if list(folder.glob("*.index.json")):
        raise ValueError(
            f"{folder} holds weights in several files; save them as one, model.safetensors"
        )
    raise ValueError(f"{folder} holds neither model.safetensors nor pytorch_model.bin")


def _config_of_folder(folder: Path) -> dict[str, Any]:
    """What config.json says; ValueError if it cannot be read or is of another network."""
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} has no config.json; give the file of weights and heads=...")
    try:
        config = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}; download it again") from error
    activation = config.get("hidden_act", "gelu")
    if activation != "gelu":
        raise ValueError(f"{path} has hidden_act={activation!r}; only the exact 'gelu' is built")
    return config


def load_published(
    path: str | Path,
    *,
    heads: int | None = None,
    decoder_heads: int | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> Published:
    """`published_autoencoder` of a file of weights, or of a folder as Hugging Face has them.

    Of a folder, numbers of heads that are not given come from its config.json. The layer norms
    have epsilon 1e-6, as in the original training; where config.json has more, a note says so.
    (Converted files say 1e-12, which moves outputs by about 1e-5.)

    Args:
      path: a file for `read_weights`, or a folder with config.json and model.safetensors or
        pytorch_model.bin.
      heads: see `published_autoencoder`, as for the next two.
      decoder_heads: of the decoder.
      image_size: to use the model at.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: for a file of PyTorch where that is not installed.
      ValueError: if a file is damaged, or as `published_autoencoder` does.
    """
    path, notes = Path(path), ()
    if path.is_dir():
        config = _config_of_folder(path)
        if heads is None:
            heads = config.get("num_attention_heads", 12)
        if decoder_heads is None:
            decoder_heads = config.get("decoder_num_attention_heads", 16)
        epsilon = config.get("layer_norm_eps", 1e-12)
        if epsilon > EPSILON:
            notes = (f"layer norms have epsilon {EPSILON:g}, config.json says {epsilon:g}",)
        path = _weights_of_folder(path)
    weights = read_weights(path)
    try:
        found = published_autoencoder(
            weights, heads=heads, decoder_heads=decoder_heads, image_size=image_size
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return found._replace(notes=found.notes + notes)


def to_huggingface(params: PyTree, model: MaskedAutoencoder) -> dict[str, np.ndarray]:
    """The parameters by the names and in the shapes of Hugging Face's ViTMAEForPreTraining.

    The positions of the model's own grid go with them. `safetensors.numpy.save_file` writes the
    result as model.safetensors, beside a config.json of `huggingface_config`.

    Args:
      params: of the model; with the encoder alone they become those of a ViTMAEModel.
      model: of square images.

    Returns:
      float32 arrays by name.

    Raises:
      ValueError: if images are not square, or parameters are not those of the model.
    """
    _require_square(model)
    halves = tuple(half for half in ("encoder", "decoder") if half in params)
    layout = hugging_face("vit." if "decoder" in halves else "")
    widths = {"encoder": model.width, "decoder": model.decoder_width}
    flat = flatten_dict(params, sep="/")
    entries = {}
    for half in halves:
        grid = grid_positions(model.grid, widths[half], model.position_grid)
        rows = np.concatenate([np.zeros_like(grid[:1]), grid])[None]
        entries[layout.positions[half]] = rows
    for path, blocks, shape in leaves_of(model, halves):
        value = np.asarray(flat[path]) if path in flat else np.zeros(0)
        if value.shape != (blocks,) * (blocks > 0) + shape:
            raise ValueError(
                f"params do not belong to the model: {path} has shape {value.shape}, not {shape} "
                f"in each of {blocks} blocks; give the params that the model was trained with"
            )
        for layer, part in enumerate(value if blocks else value[None]):
            names = layout.names(path, layer)
            parts = np.split(to_published(path, part, model.patch_size), len(names))
            entries.update(zip(names, parts, strict=True))
    return {name: np.ascontiguousarray(e, np.float32) for name, e in entries.items()}


def huggingface_config(model: MaskedAutoencoder) -> dict[str, Any]:
    """What config.json must say of the model, for Hugging Face's ViTMAEConfig.

    Args:
      model: of square images.

    Raises:
      ValueError: if images are not square.
    """
    _require_square(model)
    return {
        "model_type": "vit_mae",
        "image_size": model.image_shape[0],
        "num_channels": model.image_shape[2],
        "patch_size": model.patch_size,
        "hidden_size": model.width,
        "intermediate_size": 4 * model.width,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.heads,
        "decoder_hidden_size": model.decoder_width,
        "decoder_intermediate_size": 4 * model.decoder_width,
        "decoder_num_hidden_layers": model.decoder_depth,
        "decoder_num_attention_heads": model.decoder_heads,
        "hidden_act": "gelu",
        "layer_norm_eps": EPSILON,
    }


def _require_square(model: MaskedAutoencoder) -> None:
    height, width, _ = model.image_shape
    if height != width:
        raise ValueError(
            f"images of {height} x {width} are not square, as those of Hugging Face's ViTMAE must "
            "be; build the model with a square image_shape"
        )
