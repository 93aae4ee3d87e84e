from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.probes import accuracy, logistic_probe, mlp_probe, predict

from . import reference

SMALL = {"hidden": (32, 32), "num_epochs": 15, "batch_size": 64, "learning_rate": 1e-2}


def xor(count, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (count, 4)).astype(np.float32)
    return x * np.array([1, 50, 1, 1], np.float32) + np.float32(3), (x[:, 0] * x[:, 1] > 0).astype(
        int
    )


@pytest.fixture(scope="module")
def fitted():
    x, y = xor(600, 0)
    return mlp_probe(jax.random.key(0), x, y, 2, **SMALL)


def test_reads_what_a_linear_probe_cannot(fitted):
    x, y = xor(600, 0)
    test_x, test_y = xor(1000, 1)
    linear, report = logistic_probe(x, y, 2, regularization=1e-4)
    assert report.converged
    assert accuracy(predict(linear, test_x), test_y) < 0.6
    assert accuracy(predict(fitted, test_x), test_y) > 0.93


def test_is_a_function_of_its_key(fitted):
    x, y = xor(600, 0)
    again = mlp_probe(jax.random.key(0), x, y, 2, **SMALL)
    other = mlp_probe(jax.random.key(1), x, y, 2, **SMALL)
    np.testing.assert_array_equal(again.logits(x), fitted.logits(x))
    assert not np.allclose(other.logits(x), fitted.logits(x), atol=1e-2)


def test_logits_are_those_of_the_network_written_out(fitted):
    x, _ = xor(50, 2)
    params, stats = fitted.variables["params"], fitted.variables["batch_stats"]
    h = (x - np.asarray(fitted.standardizer.mean)) * np.asarray(fitted.standardizer.inverse_std)
    for i in range(2):
        h = h @ np.asarray(params[f"hidden_{i}"]["kernel"])
        norm, running = jax.tree.map(np.asarray, (params[f"norm_{i}"], stats[f"norm_{i}"]))
        h = (h - running["mean"]) / np.sqrt(running["var"] + 1e-5)
        h = np.maximum(h * norm["scale"] + norm["bias"], 0)
    expected = h @ np.asarray(params["output"]["kernel"]) + np.asarray(params["output"]["bias"])
    np.testing.assert_allclose(fitted.logits(x), expected, atol=1e-4)


def test_standardizes_with_train_statistics(fitted):
    # An example's logits do not depend on its companions.
    x, _ = xor(20, 3)
    np.testing.assert_allclose(fitted.logits(x[:1])[0], fitted.logits(x)[0], atol=1e-5)


def test_units_of_the_features_do_not_matter(fitted):
    x, y = xor(600, 0)
    scaled = mlp_probe(jax.random.key(0), x * np.float32(4), y, 2, **SMALL)
    np.testing.assert_allclose(scaled.logits(x * np.float32(4)), fitted.logits(x), atol=1e-3)


def test_shapes_of_the_default_network():
    x, y = reference.blobs(8, 6, dtype=np.float32)
    shapes = jax.eval_shape(partial(mlp_probe, num_classes=3), jax.random.key(0), x, y)
    params = shapes.variables["params"]
    assert params["hidden_0"]["kernel"].shape == (6, 1024)
    assert params["hidden_1"]["kernel"].shape == (1024, 1024)
    assert params["output"]["kernel"].shape == (1024, 3)
    assert set(params["hidden_0"]) == {"kernel"}


def test_one_image_a_class_and_a_constant_feature_in_float64():
    x, _ = reference.blobs(4, 9)
    x[:, 2] = 1.0
    probe = mlp_probe(jax.random.key(0), x, np.arange(4), 4, **{**SMALL, "num_epochs": 40})
    assert accuracy(predict(probe, x), np.arange(4)) == 1
    assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(probe))
    assert probe.logits(x).dtype == jnp.float64
    moved = x.copy()
    moved[:, 2] = 1e6
    np.testing.assert_array_equal(probe.logits(moved), probe.logits(x))


def test_weight_decay_shrinks_what_is_learned():
    x, y = xor(600, 0)
    norms = [
        float(
            jnp.linalg.norm(
                mlp_probe(jax.random.key(0), x, y, 3, **SMALL, weight_decay=decay).variables[
                    "params"
                ]["output"]["kernel"]
            )
        )
        for decay in (0.0, 10.0)
    ]
    assert norms[1] < 0.7 * norms[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": ()}, "hidden must hold at least one width"),
        ({"hidden": (8, 0)}, "hidden must hold at least one width >= 1"),
        ({"num_epochs": 0}, "num_epochs=0 must be an integer of at least 1"),
        ({"batch_size": 1}, "batch_size=1 must be an integer of at least 2"),
        ({"learning_rate": 0.0}, "learning_rate=.* must be a finite number > 0"),
        ({"weight_decay": -1.0}, "weight_decay=.* must be a finite number >= 0"),
    ],
)
def test_bad_settings_are_refused(options, message):
    x, y = xor(20, 0)
    with pytest.raises(ValueError, match=message):
        mlp_probe(jax.random.key(0), x, y, 2, **options)
