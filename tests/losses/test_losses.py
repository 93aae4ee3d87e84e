import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from recon_jax import losses


def draw(rows=6, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, classes)), rng.integers(0, classes, rows)


def test_cross_entropy_is_the_negative_log_likelihood():
    logits, labels = draw()
    expected = -scipy.special.log_softmax(logits, axis=1)[np.arange(6), labels]
    found = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_smoothed_targets_share_a_part_among_all_classes(smoothing):
    logits, labels = draw()
    logits[0] = [800.0, -800.0, 0.0, 0.0]  # no exponential of these is finite and above 0
    targets = (1 - smoothing) * np.eye(4)[labels] + smoothing / 4
    expected = -(targets * scipy.special.log_softmax(logits, axis=1)).sum(1)
    found = losses.cross_entropy(
        jnp.asarray(logits), jnp.asarray(labels), label_smoothing=smoothing
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_best_logits_give_the_smoothed_targets():
    targets = np.array([[0.9 + 0.1 / 4, 0.1 / 4, 0.1 / 4, 0.1 / 4]])

    def loss(logits):
        return losses.cross_entropy(logits, jnp.asarray([0]), label_smoothing=0.1).sum()

    np.testing.assert_allclose(jax.grad(loss)(jnp.log(targets)), 0, atol=1e-12)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match=r"label_smoothing=.* must lie in \[0, 1\)"):
        losses.cross_entropy(jnp.zeros((2, 3)), jnp.asarray([0, 1]), label_smoothing=smoothing)


def test_one_hot_error_is_the_squared_distance_to_one_hot():
    logits, labels = draw()
    expected = np.mean((logits - np.eye(4)[labels]) ** 2, axis=1)
    found = losses.one_hot_error(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_first_of_equal_logits_counts():
    logits = jnp.asarray([[1.0, 1.0], [1.0, 1.0], [0.0, 2.0]])
    found = losses.is_correct(logits, jnp.asarray([0, 1, 1]))
    np.testing.assert_array_equal(found, [True, False, True])


@pytest.mark.parametrize("shape", [(3, 4, 5, 2), (3, 7)])
def test_squared_error_is_the_mean_over_pixels(shape):
    a, b = np.random.default_rng(0).standard_normal((2, *shape))
    expected = ((a - b) ** 2).reshape(3, -1).mean(1)
    np.testing.assert_allclose(losses.squared_error(jnp.asarray(a), jnp.asarray(b)), expected)


@pytest.mark.parametrize("normalize", [False, True])
def test_masked_squared_error_is_over_masked_patches_alone(normalize):
    rng = np.random.default_rng(0)
    found, patches = rng.standard_normal((2, 3, 5, 8))
    mask = np.array([[1, 0, 0, 1, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]], bool)
    target = patches
    if normalize:
        spread = np.sqrt(patches.var(-1, ddof=1, keepdims=True) + 1e-6)
        target = (patches - patches.mean(-1, keepdims=True)) / spread
    expected = [np.mean((found[i, m] - target[i, m]) ** 2) for i, m in enumerate(mask[:2])]

    # Under jit, where an image without a masked patch cannot be refused, its loss is zero.
    @jax.jit
    def loss(found, mask):
        return losses.masked_squared_error(found, jnp.asarray(patches), mask, normalize=normalize)

    mask = jnp.asarray(mask)
    np.testing.assert_allclose(loss(jnp.asarray(found), mask), [*expected, 0], rtol=1e-10)
    outside = losses.masked_squared_error(
        jnp.asarray(found)[:2], jnp.asarray(patches)[:2], mask[:2], normalize=normalize
    )
    np.testing.assert_allclose(outside, expected, rtol=1e-10)
    gradient = np.asarray(jax.grad(lambda x: loss(x, mask).sum())(jnp.asarray(found)))
    np.testing.assert_array_equal(np.abs(gradient).max(-1) > 0, mask)


def test_an_image_without_a_masked_patch_is_refused_by_its_number():
    patches, mask = jnp.zeros((3, 2, 4)), jnp.asarray([[True, False], [False, False], [True, True]])
    with pytest.raises(ValueError, match="image 1 has no masked patch, so there is no loss; mask"):
        losses.masked_squared_error(patches, patches, mask)


def test_flat_patches_are_normalised_to_zero():
    patches = jnp.broadcast_to(jnp.asarray([0.0, 0.3])[None, :, None], (1, 2, 4))
    found = losses.masked_squared_error(
        jnp.full((1, 2, 4), 2.0), patches, jnp.ones((1, 2), bool), normalize=True
    )
    np.testing.assert_allclose(found, [4.0], rtol=1e-10)


def test_padding_does_not_count_even_if_it_is_nan():
    values = jnp.asarray([1.0, 2.0, jnp.nan])
    total, weight = losses.total_of(values, jnp.asarray([True, True, False]))
    assert (total, weight) == (3, 2)
    assert losses.mean_of((total, weight)) == 1.5
    assert losses.total_of(values[:2]) == (3, 2)
    total, weight = losses.total_of(jnp.asarray([True, False, True]))
    assert (total, weight) == (2, 3)


def test_sums_are_at_least_float32():
    total, weight = losses.total_of(jnp.ones(3000, jnp.bfloat16), jnp.ones(3000, bool))
    assert total.dtype == weight.dtype == jnp.float32
    assert total == 3000


def test_nothing_but_padding_has_mean_and_gradient_zero():
    mask = jnp.zeros(2, bool)

    def loss(x):
        return losses.mean_of(losses.total_of(x**2, mask))

    assert loss(jnp.ones(2)) == 0
    np.testing.assert_array_equal(jax.grad(loss)(jnp.ones(2)), 0)
