"""Compiling without optimization, where compiling is what takes the time."""

from functools import cache, partial

import jax

from recon_jax.losses.likelihoods import make_likelihood

quick = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@cache
def compiled(name, channels, levels, **options):
    """The likelihood, its functions compiled, so without the checks made outside jit."""
    likelihood = make_likelihood(name, channels, levels, **options)
    functions = {
        field: quick(getattr(likelihood, field)) for field in ("log_prob", "sample", "mean")
    }
    return likelihood._replace(**functions)
