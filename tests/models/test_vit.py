from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import vit_reference as reference
from jax.extend import core

from recon_jax.models import patchify, unpatchify
from recon_jax.models.positions import resize_positions, sincos_positions
from recon_jax.models.vit import (
    Attention,
    TokenDense,
    TokenMixer,
    TransformerBlock,
    ViTEncoder,
    drop_path,
    gelu,
    grid_positions,
)

DEPTH, HEADS, WIDTH = 3, 2, 8


def mixer(depth=DEPTH, **options):
    return TokenMixer(depth, HEADS, **{"dtype": jnp.float64, **options})


def drawn(module, *inputs):
    types = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: 0.5 * rng.standard_normal(leaf.shape), types)


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).standard_normal((2, 5, WIDTH))


@pytest.fixture(scope="module")
def variables(tokens):
    return drawn(mixer(), tokens)


@pytest.fixture(scope="module")
def loss(tokens):
    """(mixer, variables) -> a number in which every output counts differently."""
    weights = jnp.asarray(np.random.default_rng(2).standard_normal(tokens.shape))
    return lambda module, variables: jnp.vdot(module.apply(variables, jnp.asarray(tokens)), weights)


@pytest.fixture(scope="module")
def gradient(loss, variables):
    return jax.jit(jax.grad(partial(loss, mixer())))(variables)


def test_patches_are_rows_of_blocks_and_come_back():
    images = np.random.default_rng(0).random((2, 6, 8, 3))
    patches = np.asarray(patchify(images, 2))
    assert patches.shape == (2, 12, 12)
    np.testing.assert_array_equal(patches[1, 5].reshape(2, 2, 3), images[1, 2:4, 2:4])
    np.testing.assert_array_equal(patches, reference.cut(images, 2))
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
    np.testing.assert_allclose(found, reference.positions(2, 3, 8), rtol=1e-12)


def test_positions_of_another_grid_are_resized():
    np.testing.assert_array_equal(grid_positions((2, 3), 8, None), sincos_positions(2, 3, 8))
    np.testing.assert_array_equal(grid_positions((2, 3), 8, (2, 3)), sincos_positions(2, 3, 8))
    resized = resize_positions(sincos_positions(4, 4, 8), (4, 4), (2, 3))
    np.testing.assert_array_equal(grid_positions((2, 3), 8, (4, 4)), resized)
    assert np.abs(resized - sincos_positions(2, 3, 8)).max() > 0.1
    # And what the encoder adds to a patch is that, at the patch's own place.
    encoder = ViTEncoder((2, 3), 8, 1, 2, jnp.float64, position_grid=(4, 4))
    patches, kept = np.random.default_rng(0).random((2, 6, 4)), jnp.asarray([[5, 2], [0, 3]])
    variables = drawn(encoder, patches)
    inspect = jax.jit(partial(encoder.apply, mutable=["intermediates"]))
    state = inspect(variables, jnp.asarray(patches), kept)[1]["intermediates"]
    embedded = reference.linear(patches, variables["params"]["embed"]) + resized
    expected = np.stack([row[own] for row, own in zip(embedded, np.asarray(kept), strict=True)])
    np.testing.assert_allclose(state["tokens"][:, 1:], expected, rtol=1e-12, atol=1e-12)


def test_the_exact_gelu():
    x = np.linspace(-12, 12, 997)
    exact = x * (1 + scipy.special.erf(x / np.sqrt(2))) / 2
    np.testing.assert_allclose(gelu(jnp.asarray(x)), exact, rtol=1e-14, atol=1e-14)
    slope = scipy.special.ndtr(x) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    found = jax.vmap(jax.grad(gelu))(jnp.asarray(x))
    np.testing.assert_allclose(found, slope, rtol=1e-13, atol=1e-14)
    single = gelu(jnp.asarray(x, jnp.float32))
    assert single.dtype == jnp.float32
    exact = x.astype(np.float32).astype(float)
    exact = exact * scipy.special.ndtr(exact)
    np.testing.assert_allclose(single, exact, rtol=5e-7, atol=5e-7)
    half = gelu(jnp.asarray(x, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(float), gelu(jnp.asarray(x)), rtol=0.03, atol=0.03)


def test_a_linear_map_of_tokens_and_its_gradient(tokens):
    module = TokenDense(3, jnp.float64)
    variables = drawn(module, tokens)
    p, weights = variables["params"], np.random.default_rng(3).standard_normal((2, 5, 3))
    found, backward = jax.vjp(module.apply, variables, jnp.asarray(tokens))
    np.testing.assert_allclose(found, reference.linear(tokens, p), rtol=1e-12)
    gradient, upstream = backward(jnp.asarray(weights))
    kernel = np.einsum("ntd,ntk->dk", tokens, weights)
    np.testing.assert_allclose(gradient["params"]["kernel"], kernel, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gradient["params"]["bias"], weights.sum((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(upstream, weights @ p["kernel"].T, rtol=1e-12, atol=1e-12)


def test_attention_equals_numpy(tokens):
    module = Attention(HEADS, jnp.float64)
    variables = drawn(module, tokens)
    expected = reference.attended(tokens, variables["params"], HEADS)
    np.testing.assert_allclose(module.apply(variables, jnp.asarray(tokens)), expected, rtol=1e-10)


def test_the_softmax_is_in_float32_at_least(tokens):
    module = Attention(HEADS, jnp.bfloat16)
    traced = jax.make_jaxpr(module.apply)(drawn(module, tokens), jnp.asarray(tokens, jnp.bfloat16))
    assert traced.out_avals[0].dtype == jnp.bfloat16
    found = [e.invars[0].aval.dtype for e in equations(traced.jaxpr) if e.primitive.name == "exp"]
    assert found == [jnp.float32]


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for sub in core.jaxprs_in_params(equation.params):
            yield from equations(getattr(sub, "jaxpr", sub))


def test_a_block_equals_numpy(tokens):
    module = TransformerBlock(HEADS, jnp.float64, inspect=True)
    rate = jnp.float32(0)
    variables = drawn(module, tokens, rate)
    expected, mixed = reference.block(tokens, variables["params"], HEADS)
    found, inside = module.apply(variables, jnp.asarray(tokens), rate)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(inside["output"], found)
    np.testing.assert_allclose(inside["attention"], mixed, rtol=1e-9, atol=1e-9)


def test_stacked_blocks_are_applied_one_after_the_other(tokens, variables):
    inspect = jax.jit(partial(mixer().apply, mutable=["intermediates"]))
    found, state = inspect(variables, jnp.asarray(tokens))
    expected, inside = reference.mixer(tokens, variables["params"], HEADS)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    state = state["intermediates"]
    assert set(state) == {"block1", "block2", "block3"} | {f"block{i}/attention" for i in (1, 2, 3)}
    for i, x in enumerate(inside):
        np.testing.assert_allclose(state[f"block{i + 1}"], x, rtol=1e-9, atol=1e-9)


def test_gradients_are_the_slopes_of_the_numpy_network(tokens, variables, gradient):
    """Along one random direction in every array of parameters."""
    weights = np.random.default_rng(2).standard_normal(tokens.shape)
    rng, leaves, step = np.random.default_rng(4), jax.tree.leaves_with_path(variables), 1e-5
    treedef, compared = jax.tree.structure(variables), 0
    for i, (path, leaf) in enumerate(leaves):
        direction, ends = rng.standard_normal(leaf.shape), []
        for sign in (1, -1):
            moved = [value for _, value in leaves]
            moved[i] = leaf + sign * step * direction
            p = jax.tree.unflatten(treedef, moved)["params"]
            ends.append(np.vdot(reference.mixer(tokens, p, HEADS)[0], weights))
        slope = (ends[0] - ends[1]) / (2 * step)
        found = float(np.vdot(jax.tree.leaves(gradient)[i], direction))
        assert found == pytest.approx(slope, rel=1e-5, abs=1e-6), path
        compared += 1
    assert compared == 14


def test_forward_derivatives_agree_with_the_gradient(loss, variables, gradient):
    tangents = drawn(mixer(), np.ones((1, 2, WIDTH)))
    tangents = jax.tree.map(lambda leaf: leaf[::-1], tangents)
    forward = jax.jit(lambda p, t: jax.jvp(partial(loss, mixer()), (p,), (t,)))
    value, slope = forward(variables, tangents)
    assert float(value) == pytest.approx(
        float(jax.jit(partial(loss, mixer()))(variables)), rel=1e-9
    )
    inner = sum(np.vdot(a, b) for a, b in zip(
        jax.tree.leaves(gradient), jax.tree.leaves(tangents), strict=True
    ))  # fmt: skip
    assert float(slope) == pytest.approx(float(inner), rel=1e-8)


def test_recomputing_changes_neither_values_nor_gradients(loss, variables, gradient):
    value, found = jax.jit(jax.value_and_grad(partial(loss, mixer(remat=True))))(variables)
    assert float(value) == pytest.approx(
        float(jax.jit(partial(loss, mixer()))(variables)), rel=1e-12
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def held(remat, depth):
    """Bytes that the forward pass of a mixer leaves for the backward pass."""
    module, x = mixer(depth, remat=remat), np.ones((2, 5, WIDTH))
    variables = drawn(module, x)
    jaxpr = jax.make_jaxpr(lambda v: jax.vjp(lambda v: module.apply(v, jnp.asarray(x)), v)[1])
    jaxpr = jaxpr(variables).jaxpr
    kept = {v for v in jaxpr.outvars if isinstance(v, core.Var)} - set(jaxpr.invars)
    return sum(v.aval.size * v.aval.dtype.itemsize for v in kept)


def test_what_a_block_holds_for_its_gradient():
    numbers = 8 * 2 * 5 * WIDTH
    # Its input alone; or queries, keys, values, what they mix, the sum, and four widths of MLP too.
    assert held(True, 6) - held(True, 4) == 2 * numbers
    assert held(False, 6) - held(False, 4) == 2 * (1 + 3 + 1 + 1 + 4) * numbers


def test_programs_do_not_grow_with_depth(tokens):
    def size(depth):
        module = mixer(depth, drop_path=0.1)
        shapes = jax.eval_shape(module.init, jax.random.key(0), tokens)
        keys = jax.random.split(jax.random.key(0), 2)

        def total(variables):
            return module.apply(variables, jnp.asarray(tokens), drop_keys=keys).sum()

        return len(jax.jit(jax.grad(total)).lower(shapes).as_text())

    assert size(12) < 1.03 * size(4)


def test_every_block_begins_with_its_own_glorot_kernels():
    variables = jax.jit(mixer(6).init)(jax.random.key(0), jnp.ones((1, 1, 32)))["params"]["block"]
    wanted = {"qkv": (32, 96), "out": (32, 32), "mlp1": (32, 128), "mlp2": (128, 32)}
    for name, (fan_in, fan_out) in wanted.items():
        layer = (variables if "mlp" in name else variables["attention"])[name]
        kernel = np.asarray(layer["kernel"])
        assert kernel.shape == (6, fan_in, fan_out)
        bound = np.sqrt(6 / (fan_in + fan_out))
        assert 0.99 * bound < np.abs(kernel).max() <= bound
        # Variance of a uniform distribution, within five deviations of its estimate.
        spread = 5 * np.sqrt(0.8 / kernel[0].size)
        np.testing.assert_allclose(kernel.var((1, 2)) * 3 / bound**2, 1, atol=spread)
        correlations = np.corrcoef(kernel.reshape(6, -1)) - np.eye(6)
        assert np.abs(correlations).max() < 5 / np.sqrt(kernel[0].size)
        np.testing.assert_array_equal(layer["bias"], np.zeros((6, fan_out)))


def test_bfloat16_is_near(tokens, variables):
    half = jax.jit(mixer(dtype=jnp.bfloat16).apply)(variables, jnp.asarray(tokens, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    expected = reference.mixer(tokens, variables["params"], HEADS)[0]
    error = np.abs(np.asarray(half, float) - expected).max() / np.abs(expected).max()
    assert 1e-4 < error < 0.1


def test_a_dropped_branch_is_left_out_of_whole_images():
    branch, keys = (
        np.random.default_rng(0).random((4000, 2, 3)),
        jax.random.split(jax.random.key(0), 4000),
    )
    found = np.asarray(drop_path(jnp.asarray(branch), jnp.float32(0.25), keys)) / branch
    np.testing.assert_allclose(found, np.broadcast_to(found[:, :1, :1], found.shape), rtol=1e-12)
    assert set(np.round(found[:, 0, 0], 6)) == {0.0, round(4 / 3, 6)}
    assert found.mean() == pytest.approx(1, abs=5 * np.sqrt(1 / 3 / 4000))
    np.testing.assert_array_equal(drop_path(jnp.asarray(branch), jnp.float32(0), keys), branch)


def test_branches_are_dropped_more_often_in_later_blocks(tokens, variables):
    """Rates are 0, 0.3 and 0.6; both branches of every block and image have draws of their own."""
    module, keys = mixer(drop_path=0.6), jax.random.split(jax.random.key(3), 2)
    apply = jax.jit(lambda keys: module.apply(variables, jnp.asarray(tokens), drop_keys=keys))
    found = np.asarray(apply(keys))
    for image in range(2):
        scales = []
        for own, rate in zip(jax.random.split(keys[image], (3, 2)), (0.0, 0.3, 0.6), strict=True):
            shown = [bool(jax.random.bernoulli(key, np.float32(1 - rate))) for key in own]
            scales.append([kept / (1 - rate) for kept in shown])
        alone = tokens[image : image + 1]
        expected = reference.mixer(alone, variables["params"], HEADS, scales)[0]
        np.testing.assert_allclose(found[image], expected[0], rtol=1e-6, atol=1e-6)
    plain = reference.mixer(tokens, variables["params"], HEADS)[0]
    assert np.abs(found - plain).max() > 1e-3
    evaluated = jax.jit(module.apply)(variables, jnp.asarray(tokens))
    np.testing.assert_allclose(evaluated, plain, rtol=1e-9, atol=1e-9)
