"""Likelihoods with compiled functions."""

from functools import cache

import jax

from recon_jax.losses.likelihoods import make_likelihood


@cache
def compiled(name, channels, levels, **options):
    """The likelihood, its functions compiled, so without the checks made outside jit."""
    likelihood = make_likelihood(name, channels, levels, **options)
    functions = {
        field: jax.jit(getattr(likelihood, field)) for field in ("log_prob", "sample", "mean")
    }
    return likelihood._replace(**functions)
