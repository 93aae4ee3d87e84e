"""Flax modules as encoders."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree

from recon_jax import parallel
from recon_jax.audit.adapting import Constant, Output, as_constants, listed, normalized, pick
from recon_jax.audit.encoders import Encoder

_SOWN = "intermediates"
_OWN_VALUE = ("output", "__call__")  # entries that hold what a module returns


def _named(tree: Mapping, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Sown values by path; those of a module that is called again get a number."""
    for key, value in tree.items():
        path = prefix if key in _OWN_VALUE else (*prefix, key)
        if isinstance(value, Mapping):
            yield from _named(value, path)
            continue
        for call, entry in enumerate(value if isinstance(value, tuple) else (value,), start=1):
            yield "/".join(path if call == 1 else (*path, str(call))), entry


@dataclass(frozen=True)
class _FlaxCall:
    """How a module is called: a value with a hash, which one compiled program belongs to."""

    module: nn.Module
    method: Any
    layer: str | None
    output: Output
    wanted: tuple[str, ...] | None
    options: tuple[tuple[str, Any], ...]

    def init(self, key: Array, shape: tuple[int, ...]) -> PyTree:
        images = jnp.zeros((1, *shape), jnp.float32)
        return self.module.init(key, images, method=self.method, **dict(self.options))

    def _apply(self, variables: PyTree, images: Array, **mutable: Any) -> Any:
        options = {"method": self.method, **dict(self.options), **mutable}
        return self.module.apply(variables, images, **options)

    def _intermediates(self, variables: PyTree, images: Array) -> OrderedDict[str, Array]:
        """All that the module records or, if it records nothing, that its submodules return."""
        _, state = self._apply(variables, images, mutable=[_SOWN])
        if not state.get(_SOWN):
            _, state = self._apply(variables, images, mutable=[_SOWN], capture_intermediates=True)
        return OrderedDict(
            (name, value)
            for name, value in _named(state.get(_SOWN, {}))
            if name and getattr(value, "shape", ())[:1] == (len(images),)
        )

    def _chosen(self, found: Mapping[str, Array], names: Sequence[str]) -> OrderedDict[str, Array]:
        unknown = [name for name in names if name not in found]
        if unknown:
            raise ValueError(
                f"{type(self.module).__name__} has no layer {', '.join(map(repr, unknown))}; "
                f"choose from {listed(list(found)) or 'nothing: it records no layer'}"
            )
        return OrderedDict((name, found[name]) for name in found if name in names)

    def features(self, variables, mean, std, images: ArrayLike) -> Array:
        images = normalized(jnp.asarray(images), mean, std)
        what = type(self.module).__name__
        if self.layer is None:
            return pick(self._apply(variables, images), self.output, what)
        found = self._chosen(self._intermediates(variables, images), (self.layer,))
        return pick(found[self.layer], self.output, f"layer {self.layer!r} of {what}")

    def layers(self, variables, mean, std, images: ArrayLike) -> OrderedDict[str, Array]:
        found = self._intermediates(variables, normalized(jnp.asarray(images), mean, std))
        return found if self.wanted is None else self._chosen(found, self.wanted)

    def new_features(self, key, mean, std, images: ArrayLike) -> Array:
        return self.features(self.init(key, images.shape[1:]), mean, std, images)

    def new_layers(self, key, mean, std, images: ArrayLike) -> OrderedDict[str, Array]:
        return self.layers(self.init(key, images.shape[1:]), mean, std, images)


def flax_encoder(
    module: Any,
    variables: Any,
    *,
    method: str | Callable[..., Any] | None = None,
    layer: str | None = None,
    output: Output = None,
    layers: Sequence[str] | None = None,
    mean: Constant = None,
    std: Constant = None,
    image_shape: Sequence[int] | None = None,
    options: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Encoder:
    """A Flax Linen module with its variables as an encoder: of this library, or any other.

        flax_encoder(classifier, variables, layer="pooled")
        flax_encoder(autoencoder, variables, method="encode")
        flax_encoder(vae, variables, layer="latent", mean=0.5, std=0.5)
        flax_encoder(mae, variables, method="encode", output=lambda tokens: tokens[:, 0], ...)
        flax_encoder(simclr, variables, method="encode")
        flax_encoder(published.module, published.variables, mean=published.mean, std=published.std)

    The last is of `models.load_encoder`. Layers by name are what the module records, as for
    `models.apply_with_intermediates`; of a module that records nothing, what each submodule
    returns, as Flax's `capture_intermediates` has it. Only arrays with an entry for each image are
    taken. A random network of the same architecture has the module's own initialisation.

    Args:
      module: a flax.linen.Module, called as module.apply(variables, images, **options) on images
        (N, H, W, C).
      variables: {"params": ..., ...}.
      method: of the module in place of `__call__`, by name or itself.
      layer: whose representation the features are, by name; what the method returns if None.
      output: which of several things that are returned: a key or field ("latent"), an index, or a
        function of what is returned.
      layers: names to keep; all if None, none if empty.
      mean: subtracted from images in [0, 1]: a number, one a channel (C,), or one a pixel
        (H, W, C).
      std: by which images are then divided, likewise.
      image_shape: (H, W, C) for the initialisation of random networks; if None, that of the module,
        and if it has none, the network is initialised in each batch, which takes longer.
      options: further arguments of the method, such as {"train": False} where it has no default.
      name: what tables call it; by default that of the module's class.

    Returns:
      An Encoder that JAX compiles.

    Raises:
      ValueError: for bad means or deviations; when it is called, before anything is compiled, for a
        layer or output that is not there.
    """
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"module is {type(module).__name__}, not a flax.linen.Module; functions, such as "
            "functools.partial(apply, variables), are encoders as they are"
        )
    if not isinstance(variables, Mapping) or "params" not in variables:
        raise ValueError(
            'variables must be {"params": ..., ...} as module.init returns them; wrap parameters '
            'alone: {"params": params}'
        )
    wanted = None if layers is None else tuple(layers)
    call = _FlaxCall(module, method, layer, output, wanted, tuple(dict(options or {}).items()))
    constants = as_constants(mean, std)
    shape = getattr(module, "image_shape", None) if image_shape is None else image_shape
    # Run once, so compiling is what takes time: without optimisation a fifth of it.
    quick = {"xla_backend_optimization_level": 0} if parallel.is_cpu() else None
    # Not the method itself, which has no hash if the module has none.
    init = jax.jit(lambda *a: call.init(*a), static_argnums=1, compiler_options=quick)
    name = type(module).__name__ if name is None else name

    def encoder(features: Callable, layers: Callable, state: PyTree) -> Encoder:
        named = None if wanted == () else functools.partial(layers, state, *constants)
        return Encoder(name, functools.partial(features, state, *constants), named)

    def fresh(seed: int) -> Encoder:
        key = jax.random.key(seed)
        if shape is None:
            return encoder(call.new_features, call.new_layers, key)
        return encoder(call.features, call.layers, init(key, tuple(shape)))

    return encoder(call.features, call.layers, variables)._replace(fresh=fresh)
