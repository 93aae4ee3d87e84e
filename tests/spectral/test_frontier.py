import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from numpy.testing import assert_allclose

from recon_jax.spectral import eigendecompose, frontier, solve_joint, stream_moments

RANKS = (1, 3, 7)


@pytest.fixture(scope="module")
def drawn(image_like):
    images, labels = image_like(160, (4, 4, 1), 3)
    train = images[:100], labels[:100]
    return train, (images[100:], labels[100:]), stream_moments([train], 3)


def reference(train, test, rank, weight):
    """The joint optimum with an intercept, straight from the images, by SciPy."""
    x, y = train[0].reshape(100, -1), np.eye(3)[train[1]]
    mean, priors = x.mean(0), y.mean(0)
    xc, yc = x - mean, y - priors
    scatter, cross = xc.T @ xc, xc.T @ yc
    _, vectors = scipy.linalg.eigh(cross @ cross.T + weight * scatter @ scatter, scatter)
    z = xc @ vectors[:, ::-1][:, :rank]
    decoder, classifier = (np.linalg.lstsq(z, target, rcond=None)[0] for target in (xc, yc))
    unseen = test[0].reshape(len(test[0]), -1) - mean
    latents = unseen @ vectors[:, ::-1][:, :rank]
    right = (latents @ classifier + priors).argmax(1) == test[1]
    return {
        "train": np.mean((z @ decoder - xc) ** 2),
        "label": np.mean(np.sum((z @ classifier - yc) ** 2, 1)),
        "test": np.mean((latents @ decoder - unseen) ** 2),
        "accuracy": right.mean(),
    }


@pytest.mark.parametrize("weight", [1e-3, 1e-1, 10.0])
def test_errors_are_those_of_least_squares(drawn, weight):
    train, test, moments = drawn
    solved = frontier.solve_nested(moments, max(RANKS), weight, spectrum=eigendecompose(moments))
    pixels, labels = frontier.training_errors(solved, moments, RANKS)
    # In two batches, the second one padded with images that must not count.
    first = (test[0][:32], test[1][:32], np.ones(32, bool))
    padding = np.full((4, 4, 4, 1), 1e3)
    last = np.concatenate([test[0][32:], padding]), np.append(test[1][32:], [0] * 4)
    batches = [first, (*last, np.arange(32) < 28)]
    error, accuracy = frontier.evaluate_nested(solved, batches, RANKS)
    for i, rank in enumerate(RANKS):
        expected = reference(train, test, rank, weight)
        assert_allclose(pixels[i], expected["train"], rtol=1e-8)
        assert_allclose(labels[i], expected["label"], rtol=1e-8)
        assert_allclose(error[i], expected["test"], rtol=1e-8)
        assert accuracy[i] == pytest.approx(expected["accuracy"], abs=1e-12)


@pytest.mark.parametrize("rank", RANKS)
def test_the_first_latents_are_the_optimum_of_their_rank(drawn, rank):
    _, _, moments = drawn
    nested = frontier.solve_nested(moments, 9, 0.1)
    joint = solve_joint(moments, rank, 0.1)
    for ours, theirs in ((nested.decoder, joint.decoder), (nested.classifier, joint.classifier)):
        assert_allclose(
            nested.encoder[:, :rank] @ ours[:rank], joint.encoder @ theirs, rtol=1e-7, atol=1e-9
        )
    pixels, _ = frontier.training_errors(nested, moments, [rank])
    expected = joint.reconstruction_loss / (moments.count * moments.num_features)
    assert_allclose(pixels[0], expected, rtol=1e-9)


def test_more_reconstruction_reconstructs_more_and_classifies_less(drawn):
    _, _, moments = drawn
    solved = [frontier.solve_nested(moments, 2, weight) for weight in (1e-4, 1e-2, 1.0, 100.0)]
    errors = [frontier.training_errors(item, moments, [2]) for item in solved]
    pixels, labels = np.array(errors)[:, :, 0].T
    assert np.all(np.diff(pixels) <= 1e-12)
    assert np.all(np.diff(labels) >= -1e-12)


def test_unequal_classes_are_predicted_by_their_share_where_pixels_say_nothing():
    images = np.random.default_rng(0).standard_normal((40, 2, 2, 1))
    images = np.concatenate([images, images])  # each image once with either label, but for few
    labels = np.repeat([0, 1], 40)
    labels[40:60] = 0
    images[40:60], images[60:] = images[:20], images[20:40]
    solved = frontier.solve_nested(stream_moments([(images, labels)], 2), 1, 1e6)
    assert_allclose(solved.priors, [0.75, 0.25])
    mask = np.ones(80, bool)
    _, accuracy = frontier.evaluate_nested(solved, [(images, labels, mask)], [1])
    assert accuracy[0] >= 0.75 - 1e-12


def test_bad_input(drawn):
    _, test, moments = drawn
    with pytest.raises(ValueError, match=r"rank must lie in 1 .. 16 \(H W C\), got 17"):
        frontier.solve_nested(moments, 17, 1.0)
    solved = frontier.solve_nested(moments, 3, 1.0)
    with pytest.raises(ValueError, match=r"ranks must lie in 1 .. 3, got \(4,\)"):
        frontier.evaluate_nested(solved, [], [4])
    masked = [(*test, jnp.zeros(60, bool))]
    with pytest.raises(ValueError, match="no images were given"):
        frontier.evaluate_nested(solved, masked, [1])
