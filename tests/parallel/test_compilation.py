"""Compiler options and the cache of compiled functions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from recon_jax import parallel
from recon_jax.parallel import compilation


def test_fast_jit_computes_the_same():
    x = jnp.linspace(-1.0, 1.0, 12).reshape(3, 4)
    np.testing.assert_allclose(parallel.fast_jit(jnp.tanh)(x), jnp.tanh(x), rtol=1e-12)
    donated = parallel.fast_jit(lambda a: a + 1, donate_argnums=0)
    donated(y := jnp.ones(3))
    assert y.is_deleted()


def test_compiler_options_that_xla_does_not_know_are_left_out(monkeypatch):
    def refuse(*args, **options):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: No such compile option")

    compilation._probed_cpu_options.cache_clear()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(jax, "jit", refuse)
            assert parallel.cpu_compiler_options() == {}
    finally:
        compilation._probed_cpu_options.cache_clear()


def test_compiler_options_are_for_the_cpu_alone(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert parallel.cpu_compiler_options() == {}


def test_arrays_are_taken_out_of_a_function_and_put_back():
    def total(scale, values, *, shift, name):
        return scale * values["a"] + shift, name

    parts = 2, {"a": np.arange(3.0)}
    fn = functools.partial(total, *parts, shift=jnp.ones(3), name="sum")
    frame, arrays = parallel.take_arrays(fn)
    assert [array.shape for array in arrays] == [(3,), (3,)]
    found, name = parallel.put_arrays(frame, arrays)()
    np.testing.assert_array_equal(found, [1, 3, 5])
    assert name == "sum"
    found, _ = parallel.put_arrays(frame, [10 * array for array in arrays])()
    np.testing.assert_array_equal(found, [10, 30, 50])
    again = functools.partial(total, *parts, shift=np.zeros(3), name="sum")
    assert parallel.take_arrays(again)[0] == frame
    assert frame.is_key


def test_equal_numbers_of_other_types_make_other_frames():
    frames = [
        parallel.take_arrays(functools.partial(max, np.ones(2), n))[0] for n in (1, 1.0, True)
    ]
    assert len(set(frames)) == 3


def test_what_no_cache_may_hold_is_no_key():
    for fn in (max, functools.partial(max, 1), functools.partial(max, np.ones(2), [{1, 2}])):
        frame, arrays = parallel.take_arrays(fn)
        assert not frame.is_key
        assert len(arrays) == (len(frame.static) == 2)
        assert parallel.put_arrays(frame, arrays) is fn or isinstance(fn, functools.partial)
