"""Compiling for the CPU as fast as for accelerators, and keeping what was compiled."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

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
