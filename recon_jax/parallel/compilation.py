"""Compiling for the CPU as fast as for accelerators, and keeping what was compiled."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np

from recon_jax.parallel.host import is_cpu


@cache
def _probed_cpu_options() -> dict[str, bool | str]:
    # jaxlib 0.10 computes the weight gradient of convolutions in a kernel 10 to 18 times slower
    # than XLA's own; this leaves that library only dot products and reductions.
    options: dict[str, bool | str] = {
        "xla_cpu_experimental_ynn_fusion_type": (
            "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
        )
    }
    try:
        jax.jit(lambda x: x + 1, compiler_options=options).lower(np.float32(0)).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


def cpu_compiler_options() -> dict[str, bool | str]:
    """Compiler options that make convolutions fast on the CPU, for `jax.jit(compiler_options=)`.

    The option is experimental, so it is tried once on a tiny function.

    Returns:
      The options; {} on another backend, or where this version of XLA does not know them.
    """
    return dict(_probed_cpu_options()) if is_cpu() else {}


def fast_jit(fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jax.jit` with `cpu_compiler_options`; `options` (donate_argnums, ...) go to `jax.jit`.

    Args:
      fn: the function.
      **options: of `jax.jit`.
    """
    return jax.jit(fn, compiler_options=cpu_compiler_options() or None, **options)


class Frame(NamedTuple):
    """A function without the arrays in it, by which programs may be told apart.

    Attributes:
      func: what is called.
      tree: structure of the arguments that a `functools.partial` holds; None if it is none.
      static: type and value of each that is not an array, and None in place of arrays.
    """

    func: Callable[..., Any]
    tree: Any
    static: tuple

    @property
    def is_key(self) -> bool:
        """Whether a cache may hold it: arrays were taken out, and the rest has a hash.

        A function of which nothing was taken out may hold the parameters of a network, which a
        cache would keep alive.
        """
        try:
            hash(self)
        except TypeError:
            return False
        return None in self.static


def take_arrays(fn: Callable[..., Any]) -> tuple[Frame, list[Any]]:
    """A function as a frame and the arrays in it; `put_arrays` is the inverse.

    Functions that differ in their arrays alone share a frame, and with it a program that takes the
    arrays as arguments: a network before and after training is compiled once.

    Args:
      fn: any function; of a `functools.partial`, the arrays among what it holds are taken out.

    Returns:
      The Frame, and the arrays in order.
    """
    if not isinstance(fn, partial):
        return Frame(fn, None, ()), []
    leaves, tree = jax.tree.flatten((fn.args, fn.keywords))
    is_array = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
    pairs = list(zip(leaves, is_array, strict=True))
    # With the type: 1, 1.0 and True are equal, and make other programs.
    static = tuple(None if taken else (type(leaf), leaf) for leaf, taken in pairs)
    return Frame(fn.func, tree, static), [leaf for leaf, taken in pairs if taken]


def put_arrays(frame: Frame, arrays: list[Any]) -> Callable[..., Any]:
    """The function of a frame with these arrays in it.

    Args:
      frame: from `take_arrays`.
      arrays: as many as were taken out, in order; they may be traced.
    """
    if frame.tree is None:
        return frame.func
    rest = iter(arrays)
    leaves = [next(rest) if entry is None else entry[1] for entry in frame.static]
    args, keywords = frame.tree.unflatten(leaves)
    return partial(frame.func, *args, **keywords)


def enable_compilation_cache(path: str | os.PathLike, *, min_seconds: float = 1.0) -> None:
    """Keep compiled functions on disk, so that the next process need not compile them again.

    Call it before anything is compiled.

    Args:
      path: a folder of its own; created if missing.
      min_seconds: only what took at least this long to compile is kept.
    """
    jax.config.update("jax_compilation_cache_dir", os.fspath(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float(min_seconds))
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
