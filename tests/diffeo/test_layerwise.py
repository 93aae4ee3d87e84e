import functools
from collections import OrderedDict

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from recon_jax import diffeo
from recon_jax.diffeo import layerwise
from recon_jax.diffeo.sensitivity import REDUCTIONS
from recon_jax.models import apply_with_intermediates
from recon_jax.models.intermediates import record

COUNT = 7


@pytest.fixture(scope="module")
def sets():
    """Images, deformed, noisy: (7, 3, 2, 1), in float64."""
    rng = np.random.default_rng(0)
    images = rng.random((COUNT, 3, 2, 1)) + 10
    scales = rng.exponential(size=(2, COUNT, 1, 1, 1)) * rng.random((2, *images.shape))
    return images, images + scales[0], images + scales[1]


def network(weights, images):
    """Two layers, whose names are not in alphabetical order."""
    hidden = jnp.sin(images.reshape(len(images), -1) @ weights["first"])
    out = hidden[:, :, None] * weights["second"][None, None]
    return out, {"second": hidden, "first": out}


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(1)
    return {"first": rng.standard_normal((6, 5)), "second": rng.standard_normal(2)}


@pytest.fixture(scope="module")
def function(weights):
    """The network with its weights."""
    return functools.partial(network, weights)


def by_layer(function, sets, reduce):
    """What `sensitivities` says of the features of all images at once."""
    seen = [function(part)[1] for part in sets]
    names = list(seen[0])
    return {n: diffeo.sensitivities(*(part[n] for part in seen), reduce=reduce) for n in names}


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_batches_say_what_all_images_at_once_do(function, sets, reduce, jit):
    expected = by_layer(function, sets, reduce)
    for batch_size in (None, 3, 1, 50):
        found = diffeo.layerwise_sensitivities(
            function, *sets, reduce=reduce, batch_size=batch_size, jit=jit
        )
        assert isinstance(found, OrderedDict)
        assert list(found) == ["second", "first"]
        for name, values in found.items():
            assert_allclose(values, expected[name], rtol=1e-12)
            assert {part.dtype for part in values} == {np.dtype(np.float64)}


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_the_identity_has_the_sensitivities_of_the_pixels(sets, reduce):
    found = diffeo.layerwise_sensitivities(lambda x: x, *sets, reduce=reduce, batch_size=4)
    assert list(found) == ["output"]
    assert_allclose(found["output"], diffeo.sensitivities(*sets, reduce=reduce), rtol=1e-12)


def test_float32_keeps_its_digits_over_batches_with_a_common_offset():
    rng = np.random.default_rng(0)
    plain = (rng.standard_normal((60, 400)) + 1e3).astype(np.float32)
    parts = [plain, *((plain + rng.standard_normal((60, 400)) / 10).astype("f4") for _ in "DG")]
    found = diffeo.layerwise_sensitivities(lambda x: x, *parts, batch_size=16)["output"]
    assert {part.dtype for part in found} == {np.dtype(np.float32)}
    exact = diffeo.sensitivities(*(part.astype(np.float64) for part in parts))
    assert_allclose(found, exact, rtol=1e-6)


def test_what_does_not_move_has_no_sensitivity(function, sets):
    images, _, noisy = sets
    for reduce in REDUCTIONS:
        found = diffeo.layerwise_sensitivities(function, images, images, noisy, reduce=reduce)
        for values in found.values():
            assert_allclose((values.D, values.R), 0, atol=1e-28)
            assert values.G > 1e-3


def test_each_way_to_return_features(sets):
    ways = {
        "pair": lambda x: (None, {"output": 2 * x}),
        "mapping": lambda x: {"output": 2 * x},
        "array": lambda x: 2 * x,
    }
    expected = diffeo.sensitivities(*sets)
    for jit in (True, False):
        for function in ways.values():
            found = diffeo.layerwise_sensitivities(function, *sets, jit=jit)
            assert_allclose(found["output"], expected, rtol=1e-12)


def test_functions_of_other_libraries_get_arrays_of_numpy(sets):
    torch = pytest.importorskip("torch")

    def function(images):
        assert type(images) is np.ndarray
        return {"z": torch.tensor(images).flatten(1), "a": torch.tensor(images).half()}

    found = diffeo.layerwise_sensitivities(function, *sets, batch_size=3, jit=False)
    assert list(found) == ["z", "a"]
    assert_allclose(found["z"], diffeo.sensitivities(*sets), rtol=1e-12)
    assert found["a"].D.dtype == np.float32


def test_a_function_is_compiled_once_for_all_batches_and_all_arrays(weights, sets):
    traced = []

    def counted(weights, images):
        traced.append(images.shape)
        return network(weights, images)

    for factor in (1.0, 2.0):
        scaled = {name: factor * weight for name, weight in weights.items()}
        function = functools.partial(counted, scaled)
        found = diffeo.layerwise_sensitivities(function, *sets, batch_size=3)
        expected = by_layer(function, sets, "mean")["first"]
        assert_allclose(found["first"], expected, rtol=1e-12)
        traced = [shape for shape in traced if shape[0] == 3]
        assert len(traced) == 3
    # Other arguments than arrays are a part of the program.
    powers = [functools.partial(lambda n, x, c: c * x**n, n, c=np.ones(())) for n in (1, 2)]
    found = [diffeo.layerwise_sensitivities(power, *sets)["output"].D for power in powers]
    assert_allclose(found[1], diffeo.sensitivities(*(part**2 for part in sets)).D, rtol=1e-12)
    assert abs(found[0] / found[1] - 1) > 1e-6


def test_programs_that_are_kept_hold_no_closures(sets):
    before = layerwise._build_once.cache_info().misses
    for scale in (1.0, 3.0):
        diffeo.layerwise_sensitivities(lambda x, scale=scale: scale * x, *sets)
        # A set has no hash.
        unhashable = functools.partial(lambda x, c, n: x * c, c=np.ones(()), n={1, 2})
        diffeo.layerwise_sensitivities(unhashable, *sets)
    assert layerwise._build_once.cache_info().misses == before


class Small(nn.Module):
    """A layer with batch norm and a head."""

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.Dense(4, name="dense")(x.reshape(len(x), -1))
        x = record(self, nn.relu(nn.BatchNorm(not train, name="norm")(x)), "hidden")
        return record(self, nn.Dense(2, name="head")(x), "logits")


def test_layers_of_a_model(sets):
    model, hidden = Small(), []
    variables = model.init(jax.random.key(0), sets[0])
    for batch_statistics in (False, True):
        function = functools.partial(
            apply_with_intermediates, model, variables, batch_statistics=batch_statistics
        )
        found = diffeo.layerwise_sensitivities(function, *sets)
        assert list(found) == ["hidden", "logits"]
        # Each of the three sets is normalised by its own statistics.
        expected = by_layer(jax.jit(function), sets, "mean")
        for name in expected:
            assert_allclose(found[name], expected[name], rtol=1e-5)
        hidden.append(float(found["hidden"].D))
    assert abs(hidden[0] / hidden[1] - 1) > 0.01


def spoil(which, rows):
    """A function that gives NaN for some images of one set, known by their first pixel."""

    def function(images):
        return {"fine": images, "late": jnp.where(images > 100, jnp.nan, images)}

    def sets_of(sets):
        sets = [part.copy() for part in sets]
        sets[which][rows, 0, 0, 0] = 1000
        return sets

    return function, sets_of


@pytest.mark.parametrize(
    ("which", "name"), [(0, "images"), (1, "deformed"), (2, "noisy")], ids=["0", "1", "2"]
)
def test_features_that_are_not_finite(sets, which, name):
    function, sets_of = spoil(which, [1, 3])
    with pytest.raises(ValueError, match=f"layer 'late': .* 2 of 7 {name} are NaN or infinite"):
        diffeo.layerwise_sensitivities(function, *sets_of(sets))
    function, sets_of = spoil(which, [4])
    with pytest.raises(ValueError, match=f"layer 'late': .* 1 of 3 {name} are NaN"):
        diffeo.layerwise_sensitivities(function, *sets_of(sets), batch_size=3)
    with pytest.raises(ValueError, match=r"layer 'late': features\w* holds 1 NaN or infinite"):
        diffeo.layerwise_sensitivities(function, *sets_of(sets), reduce="median", jit=False)


def test_features_too_large_to_square(sets):
    with pytest.raises(ValueError, match=r"layer 'output': .* 7 of 7 images .* or overflow"):
        diffeo.layerwise_sensitivities(lambda x: 1e30 * x.astype("f4"), *sets, batch_size=7)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_a_layer_that_tells_no_images_apart(sets, reduce):
    def function(images):
        return {"a": images, "dead": 0.1 + jnp.minimum(images, 0)}

    with pytest.raises(ValueError, match=r"layer 'dead': (the )?features .* 7 images.* leave them"):
        diffeo.layerwise_sensitivities(function, *sets, reduce=reduce, batch_size=3)


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x[1:], r"layer 'output' has shape \(6, 3, 2, 1\) for 7 images"),
        (lambda x: x.sum(), r"layer 'output' has shape \(\) for 7 images"),
        (lambda x: {"a": x, "b": x.T}, r"layer 'b' has shape \(1, 2, 3, 7\) for 7 images"),
        (lambda x: {}, "returned no features"),
        (lambda x: (x, x, x), r"'output' is tuple, not an array.*\(output, {name: features}\)"),
        (lambda x: {"a": {"b": x}}, "layer 'a' is dict, not an array"),
    ],
)
def test_functions_that_return_something_else(sets, function, message, jit):
    with pytest.raises(ValueError, match=message):
        diffeo.layerwise_sensitivities(function, *sets, jit=jit)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda a, b, c: (a[:1], b[:1], c[:1]), {}, r"1 image\(s\) have no distances"),
        (lambda a, b, c: (a, b[:5], c), {}, r"one shape.*deformed \(5, 3, 2, 1\)"),
        (lambda a, b, c: (a, b, c), {"batch_size": 0}, "batch_size=0 must be .* at least 1: None"),
        (lambda a, b, c: (a, b, c), {"reduce": "sum"}, "choose one of 'mean', 'median'"),
    ],
)
def test_bad_input_is_refused_before_the_function_is_called(sets, change, options, message):
    def function(images):
        raise AssertionError("called")

    with pytest.raises(ValueError, match=message):
        diffeo.layerwise_sensitivities(function, *change(*sets), **options)


def test_images_of_any_shape_and_integers():
    signals = np.random.default_rng(0).integers(0, 200, (5, 9), np.uint8)
    found = diffeo.layerwise_sensitivities(
        lambda x: x, signals, signals + np.uint8(1), signals + np.uint8(2), batch_size=2
    )["output"]
    centred = signals - signals.mean(0)
    spread = 2 * (centred**2).sum(1).mean()
    assert_allclose(found, (9 / spread, 36 / spread, 0.25), rtol=1e-6)
    assert_array_equal(found.D.dtype, np.float32)
