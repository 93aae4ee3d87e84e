import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from recon_jax.models import MLP, VAE, MLPAutoencoder, SemiSupervisedVAE

SHAPE, CLASSES = (8, 8, 1), 4


def vae(num_classes=CLASSES):
    small = {"widths": (6,), "decoder_features": 2, "head_width": 4, "num_blocks": 1}
    return VAE(SHAPE, 3, 2, 1, num_classes=num_classes, **small)


@pytest.fixture(scope="module")
def small(draw, draw_variables):
    model = SemiSupervisedVAE(vae(), MLP(CLASSES, 3))
    return model, draw_variables(model, SHAPE), 2 * draw(5, SHAPE) - 1


def run(model, variables, *args, **options):
    apply = functools.partial(model.apply, **options)
    return jax.jit(apply)(variables, *args)


def close(found, expected):
    assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def alone(variables, name):
    return {kind: tree[name] for kind, tree in variables.items()}


def test_the_parts_lie_as_if_each_were_alone(small, draw_variables):
    model, variables, pixels = small
    for name in ("vae", "classifier"):
        own = draw_variables(getattr(model, name), SHAPE)
        assert jax.tree.structure(own) == jax.tree.structure(alone(variables, name))
    assert set(variables["params"]) == set(variables["batch_stats"]) == {"vae", "classifier"}
    noise, labels = jnp.ones((5, 3), jnp.float32), jnp.asarray([0, 3, 1, 1, 2])
    found = run(model, variables, pixels, noise, labels)
    expected = run(model.vae, alone(variables, "vae"), pixels, noise, labels)
    jax.tree.map(close, found, expected)
    logits = run(model, variables, pixels, method="classify")
    close(logits, run(model.classifier, alone(variables, "classifier"), pixels))


def test_without_labels_the_likeliest_is_taken(small):
    model, variables, pixels = small
    guessed = jnp.argmax(run(model, variables, pixels, method="classify"), axis=1)
    assert len(np.unique(guessed)) > 1
    found = run(model, variables, pixels)
    jax.tree.map(close, found, run(model, variables, pixels, None, guessed))
    other = run(model, variables, pixels, None, (guessed + 1) % CLASSES)
    assert np.abs(found.params - other.params).max() > 1e-2


def test_both_parts_move_their_statistics(small):
    model, variables, pixels = small
    labels = jnp.zeros(5, jnp.int32)
    _, new = run(model, variables, pixels, None, labels, train=True, mutable=["batch_stats"])
    for name in ("vae", "classifier"):
        part = getattr(model, name)
        given = (None, labels) if name == "vae" else ()
        own = alone(variables, name)
        _, expected = run(part, own, pixels, *given, train=True, mutable=["batch_stats"])
        found = alone(new, name)["batch_stats"]
        jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-6), found, expected["batch_stats"])
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), found, own["batch_stats"])
        assert min(jax.tree.leaves(moved)) > 1e-4


@pytest.mark.parametrize(
    ("classes", "classifier", "message"),
    [
        (4, MLP(5, 3), "the VAE has num_classes=4 and the classifier 5; both need the number"),
        (0, MLP(4, 3), "the VAE has num_classes=0 and the classifier 4"),
        (1, MLP(1, 2), "num_classes=1 and the classifier 1; both need .* 2 or more"),
        (4, MLPAutoencoder(SHAPE, 3), "num_classes=4 and the classifier None"),
    ],
)
def test_classes_must_agree(classes, classifier, message):
    with pytest.raises(ValueError, match=message):
        SemiSupervisedVAE(vae(classes), classifier)
