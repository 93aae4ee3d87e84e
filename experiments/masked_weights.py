"""Published weights in place of a pretraining: sizes for the config, images as they expect them."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments import masked_finetuning, masked_runs, trained
from recon_jax import data, models, parallel, training

# What the sizes of the weights decide.
SIZES = ("patch_size", "width", "depth", "heads", "decoder_width", "decoder_depth", "decoder_heads")


class Weights(NamedTuple):
    """Published weights.

    Attributes:
      params: of the autoencoder, or of its encoder alone.
      notes: what whoever uses them should know.
      image_shape: they are used at.
      digest: SHA-256 of the parameters.
    """

    params: Any
    notes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    digest: str

    @property
    def has_decoder(self) -> bool:
        """Whether there is something to reconstruct images with."""
        return "decoder" in self.params


def load(config: ConfigDict) -> Weights:
    """The weights of a config, whose model becomes theirs; notes are printed.

    Raises:
      ValueError: see `models.load_published`.
    """
    published = models.load_published(config.weights, image_size=config.data.image_size or None)
    model, has_decoder = published.model, "decoder" in published.params
    with config.unlocked():
        for name in SIZES if has_decoder else SIZES[:4]:
            config.model[name] = getattr(model, name)
        config.model.position_grid = model.position_grid
    if parallel.is_main():
        for note in published.notes:
            print(f"{config.weights}: {note}", file=sys.stderr, flush=True)
    digest = masked_finetuning.digest(published.params)
    return Weights(published.params, published.notes, tuple(model.image_shape), digest)


def fit_to(context: masked_runs.Context, weights: Weights) -> masked_runs.Context:
    """The run with images normalised as the weights expect them; ValueError for another shape."""
    shape = context.train.image_shape
    if shape != weights.image_shape:
        height, width, channels = weights.image_shape
        raise ValueError(
            f"images of {' x '.join(map(str, shape))} do not fit the weights, of {height} x "
            f"{width} x {channels}; set data.image_size={height}, or to another multiple of the "
            "patches at which the weights are to be used, on images with as many channels"
        )
    mean = np.broadcast_to(np.array(models.IMAGENET_MEAN, np.float64), shape)
    # One deviation a channel, where a fitted normalisation has one number.
    scale = np.array(models.IMAGENET_STD, np.float64).reshape(1, 1, 1, -1)
    return context._replace(normalization=data.Normalization("global", mean, scale))


def state_of(weights: Weights, trainer: trained.Trainer) -> training.TrainState:
    """A state with the weights; an encoder alone gets a new decoder, of which nothing is used."""
    state = trainer.init(0)
    params = {**state.params, **weights.params}
    return state._replace(params=params, ema_params=None if state.ema_params is None else params)
