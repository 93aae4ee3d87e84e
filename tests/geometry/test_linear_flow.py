import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from recon_jax.geometry import ProjectorFlow, linear_projector_flow
from recon_jax.geometry.linear_flow import AUGMENTED, VARIANCES, projector_gradient

STRENGTHS = (0.0, 0.1, 0.3, 1.0, 3.0)
# From another implementation, means of two seeds: effective rank of the outputs, and mean gain of
# dimensions that are tangent and augmented, and augmented only, over that of those only tangent.
RANKS = (8.0, 8.0, 7.9, 5.5, 4.2)
TANGENT_GAINS = (1.00, 0.98, 0.81, 0.22, 0.006)
AUGMENTED_GAINS = (0.52, 0.031, 0.023, 0.013, 0.005)


def draw(points=7, dims=5, outputs=3, seed=0):
    rng = np.random.default_rng(seed)
    h = rng.standard_normal((points, dims))
    views = (h + 0.3 * rng.standard_normal((points, dims)) for _ in range(2))
    return jnp.asarray(rng.standard_normal((outputs, dims))), *map(jnp.asarray, views)


def loss_of(weights, view_a, view_b, temperature, normalize):
    """The loss one view at a time."""
    y = jnp.concatenate([view_a, view_b]) @ weights.T
    if normalize:
        y = y / jnp.linalg.norm(y, axis=1, keepdims=True)
    count, half = len(y), len(view_a)
    total = 0.0
    for i in range(count):
        apart = jnp.square(y[i][None] - y).sum(1) / (2 * temperature)
        others = jnp.delete(apart, i)
        total += jax.nn.logsumexp(-others) + apart[(i + half) % count]
    return total / count


@pytest.mark.parametrize("normalize", [False, True])
def test_closed_gradient_is_that_of_the_loss(normalize):
    inputs = draw()
    loss, gradient = projector_gradient(*inputs, 0.4, normalize)
    expected = jax.jit(jax.value_and_grad(lambda *args: loss_of(*args, 0.4, normalize)))(*inputs)
    assert_allclose(loss, expected[0], rtol=1e-12)
    assert_allclose(gradient, expected[1], atol=1e-12)


def test_gradient_is_augmentation_against_differences_of_neighbours():
    w, a, b = map(np.asarray, draw(seed=1))
    t, x = 0.7, np.concatenate([a, b])
    matrix = np.zeros((5, 5))
    for i in range(14):
        delta = x[i] - x[(i + 7) % 14]
        differences = np.delete(x[i][None] - x, i, axis=0)
        p = np.exp(-np.square(differences @ w.T).sum(1) / (2 * t))
        pulled = (differences * (p / p.sum())[:, None]).T @ differences
        matrix += (np.outer(delta, delta) - pulled) / 14
    _, gradient = projector_gradient(*map(jnp.asarray, (w, a, b)), t, False)
    assert_allclose(gradient, 2 * w @ matrix / (2 * t), atol=1e-12)


def test_normalised_loss_is_that_of_cosines_and_ignores_scale():
    w, a, b = draw(seed=2)
    loss, gradient = projector_gradient(w, a, b, 0.3, True)
    y = np.concatenate([a, b]) @ np.asarray(w).T
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    cosines = y @ y.T / 0.3
    positives = cosines[np.arange(14), np.roll(np.arange(14), 7)]
    sums = np.exp(cosines).sum(1) - np.exp(np.diag(cosines))
    assert_allclose(loss, np.mean(np.log(sums) - positives), rtol=1e-12)
    # What the docstring says: the gradient is orthogonal to W, which can only grow.
    assert abs(float(jnp.vdot(gradient, w))) < 1e-12
    assert_allclose(projector_gradient(5 * w, a, b, 0.3, True)[0], loss, rtol=1e-12)


@pytest.fixture(scope="module")
def flows():
    """At all strengths, with the defaults."""
    run = jax.vmap(lambda s: linear_projector_flow(jax.random.key(0), strength=s))
    return run(jnp.asarray(STRENGTHS))


def gain_ratios(flows, first, last):
    gains = np.asarray(flows.gains)
    return gains[:, first:last].mean(1) / gains[:, :4].mean(1)


def test_the_output_loses_the_augmented_tangent_dimensions(flows):
    ranks = np.asarray(flows.output_rank)
    assert_allclose(ranks, RANKS, atol=0.25)
    assert ranks[0] - ranks[-1] >= 3
    tangent = gain_ratios(flows, 4, 8)
    assert_allclose(tangent, TANGENT_GAINS, atol=0.015)
    assert (np.diff(tangent) < 0).all()
    assert tangent[-1] < 0.05


def test_dimensions_without_variance_keep_their_gain_only_if_not_augmented(flows):
    augmented = gain_ratios(flows, 8, 16)
    assert_allclose(augmented, AUGMENTED_GAINS, atol=0.06)
    assert (augmented[1:] < 0.06).all()
    # W begins as N(0, 1 / D), so a gain as sqrt(P / D).
    untouched = np.asarray(flows.gains)[:, 16:].mean(1)
    assert_allclose(untouched, np.sqrt(16 / 32), rtol=0.1)


def test_losses_fall_and_stay_above_zero(flows):
    losses = np.asarray(flows.losses)
    assert losses.shape == (5, 800)
    assert (losses[:, -50:].mean(1) < 0.9 * losses[:, 0]).all()
    assert losses.min() > 0


def test_one_run_is_what_its_parts_say():
    key, variances = jax.random.key(3), np.array([1.0, 0.5, 0.1])
    options = {"variances": variances, "augmented": np.array([False, True, False]), "batch_size": 4}
    flow = linear_projector_flow(key, strength=0.5, outputs=2, steps=1, **options)
    init_key, data_key = jax.random.split(key)
    w = np.asarray(jax.random.normal(init_key, (2, 3), float)) / np.sqrt(3)
    keys = jax.random.split(jax.random.split(data_key, 1)[0], 3)
    h, *noise = (np.asarray(jax.random.normal(k, (4, 3), float)) for k in keys)
    h, shift = h * np.sqrt(variances), 0.5 * np.array([[0.0, 1.0, 0.0]])
    views = [jnp.asarray(h + shift * each) for each in noise]
    loss, gradient = projector_gradient(jnp.asarray(w), *views, 0.2, True)
    w = w - 0.7 * np.asarray(gradient)
    assert_allclose(flow.weights, w, atol=1e-12)
    assert_allclose(flow.losses, [loss], rtol=1e-12)
    assert_allclose(flow.gains, np.linalg.norm(w, axis=0), rtol=1e-12)
    covariance = np.diag(variances) + np.diag([0.0, 0.25, 0.0])
    p = np.linalg.eigvalsh(w @ covariance @ w.T)
    p = p / p.sum()
    assert_allclose(flow.output_rank, np.exp(-(p * np.log(p)).sum()), rtol=1e-10)


def test_gaussian_similarity_shows_the_same_mechanism():
    def run(s):
        return linear_projector_flow(
            jax.random.key(1),
            strength=s,
            normalize=False,
            temperature=1,
            learning_rate=0.03,
            batch_size=64,
            steps=400,
        )

    flows = jax.vmap(run)(jnp.array([0.0, 1.0, 3.0]))
    gains = np.asarray(flows.gains)
    tangent = gains[:, 4:8].mean(1) / gains[:, :4].mean(1)
    assert (np.diff(tangent) < 0).all()
    assert tangent[-1] < 0.05
    assert flows.output_rank[0] - flows.output_rank[-1] >= 3
    # Nothing holds the scale back where views do not differ: it grows, while the loss goes to 0.
    assert gains[0, :8].mean() > 1.5 * np.sqrt(16 / 32)
    assert float(flows.losses[0, -1]) < 0.1


def test_float32_by_default_and_the_same_for_the_same_key():
    run = {"strength": 0.3, "batch_size": 4, "steps": 3, "outputs": 2}
    first, again = (linear_projector_flow(jax.random.key(5), **run) for _ in range(2))
    assert isinstance(first, ProjectorFlow)
    assert {leaf.dtype for leaf in first} == {jnp.dtype("float32")}
    jax.tree.map(np.testing.assert_array_equal, first, again)
    other = linear_projector_flow(jax.random.key(6), **run)
    assert float(jnp.abs(first.weights - other.weights).max()) > 0.01


def test_the_default_geometry():
    assert len(VARIANCES) == len(AUGMENTED) == 32
    assert [d for d in range(32) if VARIANCES[d] == 1] == list(range(8))
    assert [d for d in range(32) if AUGMENTED[d]] == list(range(4, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -0.1}, "strength=-0.1 must be a finite number >= 0"),
        ({"strength": np.nan}, "strength=nan must be a finite number >= 0"),
        ({"temperature": 0.0}, "temperature=0.0 must be a finite number > 0"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0 must be a finite number > 0"),
        ({"batch_size": 1}, "batch_size=1 must be an integer in 2 .. .*nothing to contrast"),
        ({"outputs": 0}, "outputs=0 must be an integer"),
        ({"steps": 0}, "steps=0 must be an integer"),
        ({"variances": np.ones(3)}, r"same length, got \(3,\) and \(32,\)"),
        ({"variances": -np.ones(32)}, "variances run from -1 to -1; they must not be negative"),
        ({"variances": np.zeros(32)}, "one at least must be positive"),
        ({"variances": np.full(32, np.inf)}, "variances holds 32 NaN or infinite"),
        (
            {
                "strength": 3,
                "normalize": False,
                "learning_rate": 10.0,
                "steps": 30,
                "batch_size": 8,
            },
            "the weights diverged within 30 steps: lower learning_rate=10",
        ),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        linear_projector_flow(jax.random.key(0), **{"strength": 0.1, **options})


def test_vectors_are_no_numbers():
    # Tests check annotations, users do not.
    plain = inspect.unwrap(linear_projector_flow)
    with pytest.raises(ValueError, match=r"temperature must be one number, got shape \(2,\)"):
        plain(jax.random.key(0), strength=0.1, temperature=np.ones(2))
