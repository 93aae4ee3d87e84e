import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_jax.losses import CONTRASTIVE_LOSSES, nt_xent
from recon_jax.losses.log_sums import bound_suffices

PAIRS, WIDTH = 7, 3
MASK = np.array([1, 1, 0, 1, 1, 1, 0])
# Rows in one block, in even and in uneven ones, and one at a time; the last temperature is too low
# for exp(-2 / t) to be a normal number.
SETTINGS = [(0.5, None), (0.2, 7), (0.5, 4), (0.5, 1), (0.002, None), (0.002, 4)]


def draw(pairs=PAIRS, width=WIDTH, seed=0):
    rng = np.random.default_rng(seed)
    view_a = rng.standard_normal((pairs, width))
    return view_a, view_a + 0.5 * rng.standard_normal((pairs, width))


def reference(view_a, view_b, temperature):
    """Value and gradient in all rows, by the dense formula."""
    rows = np.concatenate([view_a, view_b]).astype(np.float64)
    count, lengths = len(rows), np.linalg.norm(rows, axis=1, keepdims=True)
    lengths = np.maximum(lengths, 1e-12)
    units = rows / lengths
    logits = units @ units.T / temperature
    np.fill_diagonal(logits, -np.inf)
    top = logits.max(1, keepdims=True)
    shares = np.exp(logits - top)
    sums = shares.sum(1, keepdims=True)
    partner = (np.arange(count) + count // 2) % count
    losses = np.log(sums)[:, 0] + top[:, 0] - logits[np.arange(count), partner]
    shares /= sums
    slopes = ((shares + shares.T) @ units - 2 * units[partner]) / (count * temperature)
    slopes -= (slopes * units).sum(1, keepdims=True) * units
    return losses.mean(), np.split(slopes / lengths, 2)


def differentiated(view_a, view_b, *args, **options):
    return jax.jit(jax.value_and_grad(lambda a, b: nt_xent(a, b, *args, **options), (0, 1)))(
        view_a, view_b
    )


@pytest.mark.parametrize(("temperature", "block_size"), SETTINGS)
def test_value_and_gradient_are_those_of_the_formula(temperature, block_size):
    assert bound_suffices(temperature, jnp.float64) == (temperature > 0.01)
    views, options = draw(), {"block_size": block_size}
    expected, slopes = reference(*views, temperature)
    found, gradients = differentiated(*views, temperature, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    for gradient, slope in zip(gradients, slopes, strict=True):
        np.testing.assert_allclose(gradient, slope, rtol=1e-10, atol=1e-12 * np.abs(slope).max())
    alone = jax.jit(lambda a, b: nt_xent(a, b, temperature, **options))(*views)
    np.testing.assert_allclose(alone, expected, rtol=1e-12)


@pytest.mark.parametrize(("temperature", "block_size"), [(0.3, None), (0.3, 4), (0.002, 4)])
def test_padding_is_neither_anchor_nor_negative(temperature, block_size):
    views, counts = draw(), MASK > 0
    expected, slopes = reference(*(view[counts] for view in views), temperature)
    padded = [np.where(counts[:, None], view, np.nan) for view in views]
    found, gradients = differentiated(*padded, temperature, mask=MASK, block_size=block_size)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    for gradient, slope in zip(gradients, slopes, strict=True):
        np.testing.assert_allclose(gradient[counts], slope, rtol=1e-10, atol=1e-11)
        np.testing.assert_array_equal(gradient[~counts], 0)


def test_the_gradient_is_the_slope_of_the_value():
    views, step = draw(), 1e-5
    directions = draw(seed=1)
    _, gradients = differentiated(*views, 0.2, block_size=4)
    up, down = (
        float(nt_xent(*(v + sign * d for v, d in zip(views, directions, strict=True)), 0.2))
        for sign in (step, -step)
    )
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    assert float(slope) == pytest.approx((up - down) / (2 * step), rel=1e-7)


@pytest.mark.parametrize("temperature", [0.5, 0.001])
def test_equal_embeddings_cost_the_log_of_the_number_of_others(temperature):
    views = np.tile(np.array([[0.3, -1.7, 0.2]]), (2, 5, 1))
    assert float(nt_xent(*views, temperature)) == pytest.approx(np.log(9), rel=1e-12)


def test_low_temperatures_neither_overflow_nor_underflow_in_float32():
    """exp(1 / t) is infinite in float32; partners are opposite, and exp(-2 / t) is zero."""
    view = draw()[0].astype(np.float32)
    for views in ((view, view), (view, -view), (np.float32([[1], [1]]), np.float32([[-1], [-1]]))):
        expected, slopes = reference(*views, 0.01)
        found, gradients = differentiated(*views, 0.01)
        assert found.dtype == gradients[0].dtype == jnp.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        # Gradients of up to 1 / t, of which what is along the rows has been taken away.
        np.testing.assert_allclose(gradients[0], slopes[0], rtol=1e-4, atol=1e-3)


def test_the_bound_suffices_down_to_a_fortieth_in_float32():
    assert bound_suffices(0.026, jnp.float32)
    assert not bound_suffices(0.025, jnp.float32)
    assert np.exp(np.float32(-2 / 0.0255)) > np.finfo(np.float32).tiny


@pytest.mark.parametrize("block_size", [None, 4])
def test_zero_embeddings_have_a_finite_gradient(block_size):
    view_a, view_b = draw()
    view_a[2], view_b[4] = 0, 1e-13
    expected, slopes = reference(view_a, view_b, 0.5)
    found, gradients = differentiated(view_a, view_b, 0.5, block_size=block_size)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(gradients[0], slopes[0], rtol=1e-10, atol=1e-12)
    assert np.isfinite(gradients[1]).all()


def test_half_precision_is_computed_in_float32():
    rounded = [jnp.asarray(view, jnp.bfloat16) for view in draw()]
    found, gradients = differentiated(*rounded)
    expected, slopes = differentiated(*(view.astype(jnp.float32) for view in rounded))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, expected)
    for gradient, slope in zip(gradients, slopes, strict=True):
        np.testing.assert_array_equal(gradient, slope.astype(jnp.bfloat16))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=5)
def test_what_the_loss_does_not_see(seed):
    rng = np.random.default_rng(seed)
    views, expected = draw(seed=seed), jax.jit(nt_xent)(*draw(seed=seed))
    order, rotation = rng.permutation(PAIRS), np.linalg.qr(rng.standard_normal((3, 3)))[0]
    lengths = rng.uniform(0.1, 9, (2, PAIRS, 1))
    for other in (
        views[::-1],
        [view[order] for view in views],
        [view @ rotation for view in views],
        [view * length for view, length in zip(views, lengths, strict=True)],
    ):
        np.testing.assert_allclose(jax.jit(nt_xent)(*other), expected, rtol=1e-12)


@pytest.mark.parametrize(("temperature", "block_size"), [(0.5, None), (0.5, 4), (0.001, 4)])
def test_products_are_only_those_that_are_needed(temperature, block_size):
    """A value takes one product of blocks, a gradient the others; no matrix of all similarities."""

    def loss(a, b):
        return nt_xent(a, b, temperature, block_size=block_size)

    forward, both = (
        str(jax.make_jaxpr(fn)(*draw(16))) for fn in (loss, jax.value_and_grad(loss, (0, 1)))
    )
    symmetric = temperature > 0.01
    more = 3 if symmetric and block_size else 1 if symmetric else 2
    assert forward.count("dot_general[") == 1
    assert both.count("dot_general[") == 1 + more
    if block_size:
        assert "[32,32]" not in both


@pytest.mark.parametrize("name", CONTRASTIVE_LOSSES)
def test_members_of_an_axis_together_are_one_device(name):
    """By the gradient rule of a step, weights w_d: sum_d grad(w_d L_d) / sum_d w_d."""
    loss, views = CONTRASTIVE_LOSSES[name], draw(8)

    def of_member(a, b, count):
        def weighted(a, b):
            value = loss(a, b, mask=count, axis_name="devices")
            return value * count.sum(), value

        return jax.grad(weighted, (0, 1), has_aux=True)(a, b)

    members = jax.jit(jax.vmap(of_member, axis_name="devices"))
    alone = jax.jit(jax.value_and_grad(lambda a, b, c: loss(a, b, mask=c), (0, 1)))
    # Nothing padded; padding here and there; one member holds nothing else, and one is mixed.
    for counts in (np.ones(8), np.arange(8) % 5 != 1, np.arange(8) < 5):
        arrays = (*views, counts.astype(float))
        cut = [array.reshape(4, 2, *array.shape[1:]) for array in arrays]
        gradients, values = members(*cut)
        expected, slopes = alone(*arrays)
        weights = cut[2].sum(1)
        mean = (weights * values).sum() / weights.sum()
        np.testing.assert_allclose(mean, expected, rtol=1e-12)
        for gradient, slope in zip(gradients, slopes, strict=True):
            found = gradient.reshape(8, WIDTH) / counts.sum()
            np.testing.assert_allclose(found, slope, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(loss(*views), alone(*views, np.ones(8))[0], rtol=1e-12)


@pytest.mark.parametrize("name", CONTRASTIVE_LOSSES)
def test_too_few_pairs_inside_jit_have_a_finite_gradient(name):
    def loss(a, b, mask):
        return CONTRASTIVE_LOSSES[name](a, b, mask=mask)

    compiled = jax.jit(jax.value_and_grad(loss, (0, 1)))
    for counted in (0, 1):
        value, gradients = compiled(*draw(), np.arange(PAIRS) < counted)
        assert np.isfinite(value)
        if name == "nt_xent":
            np.testing.assert_allclose(value, 0, atol=1e-15)
        assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("name", CONTRASTIVE_LOSSES)
def test_views_that_cannot_be_compared_are_refused(name):
    loss, (view_a, view_b) = CONTRASTIVE_LOSSES[name], draw()
    with pytest.raises(ValueError, match=r"one shape, .* got \(7, 3\) and \(6, 3\)"):
        loss(view_a, view_b[1:])
    with pytest.raises(ValueError, match=r"got \(7, 3\) and \(7, 2\)"):
        loss(view_a, view_b[:, 1:])
    with pytest.raises(ValueError, match=r"1 pair.* a batch needs two images or more"):
        loss(view_a[:1], view_b[:1])
    with pytest.raises(ValueError, match=r"1 pair\(s\) of views"):
        loss(view_a, view_b, mask=np.arange(7) == 3)
    with pytest.raises(ValueError, match=r"one entry a pair, \(7,\), got \(6,\)"):
        loss(view_a, view_b, mask=np.ones(6))
    with pytest.raises(ValueError, match=r"1 pair\(s\)"):
        jax.vmap(lambda a, b: loss(a, b, axis_name="d"), axis_name="d")(
            view_a[None, :1], view_b[None, :1]
        )
    view_b[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"view_b hold NaN or infinite .* row 3"):
        loss(view_a, view_b)
    assert np.isfinite(loss(view_a, view_b, mask=np.arange(7) != 3))


@pytest.mark.parametrize("temperature", [0, -0.1, np.inf, np.nan])
def test_temperatures_out_of_range_are_refused(temperature):
    with pytest.raises(ValueError, match=r"temperature=.* must be a finite number > 0: 0\.5 is"):
        nt_xent(*draw(), temperature)


def test_block_sizes_out_of_range_are_refused():
    with pytest.raises(ValueError, match="block_size=0 must be an integer of at least 1"):
        nt_xent(*draw(), block_size=0)
