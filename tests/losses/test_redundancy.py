import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.losses import barlow_twins, vicreg

PAIRS, WIDTH = 9, 4


def draw(pairs=PAIRS, seed=0):
    """Correlated dimensions with deviations below and above 1, far from 0."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((WIDTH, WIDTH)) * np.array([[0.2, 0.5, 1.0, 2.0]])
    view_a = rng.standard_normal((pairs, WIDTH)) @ mixing
    return view_a + 3, view_a + 0.3 * rng.standard_normal((pairs, WIDTH)) - 1


def off_diagonal(matrix):
    return sum(matrix[i, j] ** 2 for i, j in np.ndindex(matrix.shape) if i != j)


def vicreg_terms(view_a, view_b):
    moments = [np.cov(view.T) for view in (view_a, view_b)]
    deviations = [np.sqrt(np.diag(matrix) + 1e-4) for matrix in moments]
    return (
        np.square(view_a - view_b).mean(),
        sum(np.maximum(0, 1 - deviation).mean() for deviation in deviations),
        sum(off_diagonal(matrix) / len(matrix) for matrix in moments),
    )


def barlow_terms(view_a, view_b):
    correlations = np.corrcoef(view_a.T, view_b.T)[:WIDTH, WIDTH:]
    return np.square(1 - np.diag(correlations)).sum(), off_diagonal(correlations)


def test_vicreg_is_the_sum_of_its_terms():
    views = draw()
    terms = np.array(vicreg_terms(*views))
    assert (terms > 0.05).all()
    np.testing.assert_allclose(vicreg(*views), terms @ [25, 25, 1], rtol=1e-12)
    names = ("invariance", "variance", "covariance")
    for index, name in enumerate(names):
        weights = dict.fromkeys(names, 0.0) | {name: 2.0}
        np.testing.assert_allclose(vicreg(*views, **weights), 2 * terms[index], rtol=1e-12)


def test_barlow_twins_is_the_sum_of_its_terms():
    views = draw()
    on_diagonal, off = barlow_terms(*views)
    np.testing.assert_allclose(barlow_twins(*views), on_diagonal + 0.005 * off, rtol=1e-12)
    found = barlow_twins(*views, redundancy=2.0)
    np.testing.assert_allclose(found, on_diagonal + 2 * off, rtol=1e-12)
    scaled = (views[0] * 1e-4, views[1] * np.array([[1e3, -1e3, 1, 1]]) * [[1, -1, 1, 1]])
    np.testing.assert_allclose(barlow_twins(*scaled), on_diagonal + 0.005 * off, rtol=1e-9)


@pytest.mark.parametrize("loss", [vicreg, barlow_twins])
def test_padding_is_left_out(loss):
    views, counts = draw(), np.arange(PAIRS) % 4 != 2
    padded = [np.where(counts[:, None], view, np.nan) for view in views]
    masked = jax.value_and_grad(lambda a, b: loss(a, b, mask=counts), (0, 1))
    value, gradients = jax.jit(masked)(*padded)
    kept = jax.jit(jax.value_and_grad(loss, (0, 1)))(*(view[counts] for view in views))
    np.testing.assert_allclose(value, kept[0], rtol=1e-12)
    for found, expected in zip(gradients, kept[1], strict=True):
        np.testing.assert_array_equal(found[~counts], 0)
        np.testing.assert_allclose(found[counts], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", [vicreg, barlow_twins])
def test_gradients_are_slopes(loss):
    views, directions, step = draw(), draw(seed=1), 1e-6
    gradients = jax.jit(jax.grad(loss, (0, 1)))(*views)
    values = [
        float(jax.jit(loss)(*(v + sign * d for v, d in zip(views, directions, strict=True))))
        for sign in (step, -step)
    ]
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("loss", [vicreg, barlow_twins])
def test_float32_and_half_precision(loss):
    views = draw()
    single = jax.jit(loss)(*(view.astype(np.float32) for view in views))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, jax.jit(loss)(*views), rtol=1e-5)
    rounded = [jnp.asarray(view, jnp.bfloat16) for view in views]
    expected = jax.jit(loss)(*(view.astype(jnp.float32) for view in rounded))
    np.testing.assert_array_equal(jax.jit(loss)(*rounded), expected)


def test_constant_embeddings():
    """VICReg moves them apart; Barlow Twins has nothing to correlate."""
    views = np.ones((2, PAIRS, WIDTH)) * 0.7
    np.testing.assert_allclose(vicreg(*views), 25 * 2 * (1 - 0.01), rtol=1e-12)
    assert np.isfinite(jax.jit(jax.grad(vicreg))(*views)).all()
    with pytest.raises(ValueError, match="4 of 4 dimensions of view_a are the same for all images"):
        barlow_twins(*views)
    varied = draw()
    varied[1][:, 2] = 0.1
    with pytest.raises(ValueError, match="1 of 4 dimensions of view_b"):
        barlow_twins(*varied)
    value, slope = jax.jit(jax.value_and_grad(barlow_twins, 1))(*varied)
    others = [view[:, [0, 1, 3]] for view in varied]
    missing = np.corrcoef(varied[0].T, varied[1][:, [0, 1, 3]].T)[:WIDTH, WIDTH:][2]
    expected = float(barlow_twins(*others)) + 1 + 0.005 * np.square(missing).sum()
    assert float(value) == pytest.approx(expected, rel=1e-9)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (vicreg, "invariance"),
        (vicreg, "variance"),
        (vicreg, "covariance"),
        (barlow_twins, "redundancy"),
    ],
)
@pytest.mark.parametrize("weight", [-1.0, np.inf, np.nan])
def test_weights_out_of_range_are_refused(loss, name, weight):
    with pytest.raises(ValueError, match=rf"{name}={weight} must be a finite number >= 0"):
        loss(*draw(), **{name: weight})
