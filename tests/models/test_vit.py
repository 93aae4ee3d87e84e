import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from recon_jax.models import patchify, unpatchify
from recon_jax.models.vit import Attention, TransformerBlock, sincos_positions


def test_patches_are_rows_of_blocks_and_come_back():
    images = np.random.default_rng(0).random((2, 6, 8, 3))
    patches = np.asarray(patchify(images, 2))
    assert patches.shape == (2, 12, 12)
    np.testing.assert_array_equal(patches[1, 5].reshape(2, 2, 3), images[1, 2:4, 2:4])
    np.testing.assert_array_equal(unpatchify(patches, 2, (6, 8, 3)), images)


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"patch_size=4 does not divide image height 6; .* 1, 2"):
        patchify(np.zeros((1, 6, 8, 3)), 4)
    with pytest.raises(ValueError, match=r"must have shape \(N, 12, 12\) .* got \(1, 12, 9\)"):
        unpatchify(np.zeros((1, 12, 9)), 2, (6, 8, 3))


def test_positions_by_hand():
    found = sincos_positions(2, 3, 8)
    assert found.shape == (6, 8)
    t, rates = 2.0, np.array([1.0, 0.01])  # row 1, column 2
    expected = [*np.sin(t * rates), *np.cos(t * rates), *np.sin(rates), *np.cos(rates)]
    np.testing.assert_allclose(found[5], expected, rtol=1e-12)


def normed(x, p):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-6) * p["scale"] + p["bias"]


def attended(x, p, heads):
    """Head by head, query by query."""
    qkv = x @ p["qkv"]["kernel"] + p["qkv"]["bias"]
    q, k, v = (part.reshape(*x.shape[:2], heads, -1) for part in np.split(qkv, 3, axis=-1))
    mixed = np.zeros_like(q)
    for n, t, h in np.ndindex(*q.shape[:3]):
        scores = k[n, :, h] @ q[n, t, h] / np.sqrt(q.shape[-1])
        mixed[n, t, h] = scipy.special.softmax(scores) @ v[n, :, h]
    return mixed.reshape(x.shape) @ p["out"]["kernel"] + p["out"]["bias"]


def drawn(module, x):
    types = jax.eval_shape(module.init, jax.random.key(0), x)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: 0.5 * rng.standard_normal(leaf.shape), types)


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).standard_normal((2, 5, 12))


def test_attention_equals_numpy(tokens):
    module = Attention(3, jnp.float64)
    variables = drawn(module, tokens)
    expected = attended(tokens, variables["params"], 3)
    np.testing.assert_allclose(module.apply(variables, jnp.asarray(tokens)), expected, rtol=1e-10)


def test_a_block_equals_numpy(tokens):
    module = TransformerBlock(3, jnp.float64)
    variables = drawn(module, tokens)
    p = variables["params"]
    x = tokens + attended(normed(tokens, p["norm1"]), p["attention"], 3)
    y = normed(x, p["norm2"]) @ p["mlp1"]["kernel"] + p["mlp1"]["bias"]
    assert y.shape == (2, 5, 48)
    y = y * scipy.special.ndtr(y)
    expected = x + y @ p["mlp2"]["kernel"] + p["mlp2"]["bias"]
    np.testing.assert_allclose(
        module.apply(variables, jnp.asarray(tokens)), expected, rtol=1e-9, atol=1e-9
    )
