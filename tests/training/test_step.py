import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from recon_jax.data import Batch
from recon_jax.training import (
    batch_weight,
    compute_metrics,
    device_key,
    example_keys,
    init_state,
    step_key,
)
from recon_jax.training import make_train_step as plain_step

from .cases import make_batch, make_loss, make_state


def make_train_step(*args, **options):
    return jax.jit(plain_step(*args, **options))


def assert_close(tree, expected, rtol=1e-5):
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("padded", [0, 5])
@pytest.mark.parametrize("parts", [2, 4, 16])
def test_accumulation_equals_one_big_batch(parts, padded):
    # With 16 micro-batches of one row, the padded ones are empty.
    optimizer = optax.sgd(0.5)
    state, batch = make_state(optimizer), make_batch(padded=padded)
    whole, metrics = make_train_step(make_loss(), optimizer)(state, batch)
    cut, cut_metrics = make_train_step(make_loss(), optimizer, accumulate_steps=parts)(state, batch)
    assert_close(cut.params, whole.params)
    expected, ours = compute_metrics(metrics), compute_metrics(cut_metrics)
    assert ours == pytest.approx(expected, rel=1e-5)
    assert metrics["loss"][1] == 16 - padded
    assert set(ours) == {"loss", "accuracy", "grad_norm", "finite"}


def test_step_is_the_gradient_of_the_mean_over_unmasked_images():
    optimizer = optax.sgd(1.0)
    state, batch = make_state(optimizer), make_batch(padded=6)
    real = Batch(*(leaf[:10] for leaf in batch))

    def mean_loss(params):
        return make_loss()(params, {}, real, state.key)[0]

    after, metrics = make_train_step(make_loss(), optimizer)(state, batch)
    value, grad = jax.jit(jax.value_and_grad(mean_loss))(state.params)
    assert_close(after.params, jax.tree.map(lambda p, g: p - g, state.params, grad))
    means = compute_metrics(metrics)
    norm = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(grad)))
    assert means["loss"] == pytest.approx(float(value), rel=1e-6)
    assert means["grad_norm"] == pytest.approx(norm, rel=1e-6)
    assert means["finite"] == 1
    assert int(after.step) == 1
    assert after.step.dtype == jnp.int32


def test_a_batch_of_padding_alone_moves_nothing():
    optimizer = optax.sgd(1.0)
    state = make_state(optimizer, norm=True)
    after, metrics = make_train_step(make_loss(norm=True), optimizer)(state, make_batch(padded=16))
    for a, b in zip(jax.tree.leaves(after[:2]), jax.tree.leaves(state[:2]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert float(metrics["loss"][1]) == 0
    assert compute_metrics(metrics)["finite"] == 1


def test_ema_equals_an_explicit_loop():
    optimizer = optax.adam(0.1)
    state = make_state(optimizer, ema=True)
    step = make_train_step(make_loss(), optimizer, ema_decay=0.7)
    ema = jax.tree.map(np.asarray, state.params)
    for index in range(6):
        state, _ = step(state, make_batch(index))
        ema = jax.tree.map(lambda e, p: 0.7 * e + 0.3 * np.asarray(p), ema, state.params)
    assert_close(state.ema_params, ema)
    distance = max(
        float(np.abs(a - b).max())
        for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(ema), strict=True)
    )
    assert distance > 1e-2


def test_batch_statistics_pass_through_micro_batches():
    optimizer = optax.sgd(0.0)
    state, batch = make_state(optimizer, norm=True), make_batch()
    after, _ = make_train_step(make_loss(norm=True), optimizer, accumulate_steps=2)(state, batch)
    stats = state.batch_stats
    for half in (Batch(*(leaf[:8] for leaf in batch)), Batch(*(leaf[8:] for leaf in batch))):
        stats = jax.jit(make_loss(norm=True))(state.params, stats, half, state.key)[1][0]
    assert_close(after.batch_stats, stats)


def test_randomness_depends_on_seed_and_step_alone():
    optimizer = optax.sgd(0.1)
    step = make_train_step(make_loss(noise=1.0), optimizer)
    state = make_state(optimizer)
    first, _ = step(state, make_batch())
    again, _ = step(state, make_batch())
    later, _ = step(state._replace(step=jnp.int32(7)), make_batch())
    seeded, _ = step(state._replace(key=jax.random.key(9)), make_batch())
    assert_close(first.params, again.params, 0)
    kernels = [s.params["Dense_0"]["kernel"] for s in (first, later, seeded)]
    assert not np.allclose(kernels[0], kernels[1])
    assert not np.allclose(kernels[0], kernels[2])
    # The seed's key is carried unchanged.
    np.testing.assert_array_equal(*(jax.random.key_data(s.key) for s in (first, state)))


def test_keys_are_functions_of_their_numbers():
    key = step_key(jax.random.key(3), 5)
    data = jax.random.key_data
    np.testing.assert_array_equal(data(key), data(jax.random.fold_in(jax.random.key(3), 5)))
    keys = data(example_keys(key, 4))
    assert len(np.unique(keys, axis=0)) == 4
    np.testing.assert_array_equal(keys[2], data(jax.random.fold_in(key, 2)))
    np.testing.assert_array_equal(keys[:2], data(example_keys(key, 2)))
    np.testing.assert_array_equal(data(device_key(key)), data(jax.random.fold_in(key, 0)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_flagged(value):
    optimizer = optax.sgd(0.1)
    batch = make_batch()
    batch.images[3] = value
    _, metrics = make_train_step(make_loss(), optimizer)(make_state(optimizer), batch)
    assert float(metrics["finite"][0]) == 0
    assert float(metrics["finite"][1]) == 1


def test_a_gradient_that_is_not_finite_is_flagged():
    def loss_fn(params, stats, batch, key):
        # Finite at 0, with an infinite slope.
        return jnp.sqrt(params["w"]).sum(), (stats, {})

    optimizer = optax.sgd(0.1)
    state = init_state({"w": jnp.zeros(2, jnp.float32)}, optimizer, key=jax.random.key(0))
    _, metrics = make_train_step(loss_fn, optimizer)(state, {"x": np.zeros((2, 1))})
    assert np.isfinite(metrics["loss"][0])
    assert float(metrics["finite"][0]) == 0


def test_half_precision_inside_leaves_the_state_in_float32():
    def loss_fn(params, stats, batch, key):
        half = params["w"][None].astype(jnp.bfloat16) * batch["x"].astype(jnp.bfloat16)
        return half.mean(), ({"m": half.mean()}, {"spread": (half.sum(), batch["x"].shape[0])})

    optimizer = optax.sgd(0.1)
    params, stats = {"w": jnp.ones(3, jnp.float32)}, {"m": jnp.zeros((), jnp.float32)}
    state = init_state(params, optimizer, key=jax.random.key(0), batch_stats=stats)
    step = make_train_step(loss_fn, optimizer, ema_decay=None)
    after, metrics = step(state, {"x": np.ones((4, 3), np.float32)})
    assert [leaf.dtype for leaf in jax.tree.leaves(after[:2])] == [jnp.float32] * 2
    assert metrics["loss"][0].dtype == metrics["spread"][0].dtype == jnp.float32


def test_init_state_owns_its_memory():
    optimizer = optax.adam(0.1)
    params, key = {"w": jnp.ones(3, jnp.float32)}, jax.random.key(0)
    state = init_state(params, optimizer, key=key, batch_stats=params, ema=True)
    jax.jit(lambda s: s, donate_argnums=0)(state)
    np.testing.assert_array_equal(params["w"], [1, 1, 1])
    assert jax.random.key_data(key).shape == (2,)


def test_init_state_refuses_half_precision():
    params = {"Dense_0": {"kernel": jnp.ones((2, 2), jnp.bfloat16)}}
    with pytest.raises(ValueError, match=r"parameter Dense_0\.kernel is bfloat16; keep parameters"):
        init_state(params, optax.sgd(0.1), key=jax.random.key(0))


def test_batch_weight():
    assert batch_weight(make_batch(padded=3)) == 13
    assert batch_weight({"x": np.ones((5, 2)), "mask": np.array([1, 1, 0, 0, 1])}) == 3
    assert batch_weight({"x": np.ones((5, 2))}) == 5
    assert batch_weight((np.ones((4, 2)), np.ones(4))) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate_steps": 0}, "accumulate_steps=0 must be an integer of at least 1"),
        ({"ema_decay": 1.0}, r"ema_decay=1.0 must lie in \[0, 1\)"),
        ({"ema_decay": -0.1}, r"ema_decay=-0.1 must lie in \[0, 1\)"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        make_train_step(make_loss(), optax.sgd(0.1), **options)


@pytest.mark.parametrize(
    ("options", "ema", "message"),
    [
        ({"accumulate_steps": 5}, False, "accumulate_steps=5 does not divide the 16 rows"),
        ({"ema_decay": 0.9}, False, r"ema_decay=0.9 needs a state from .*ema=True"),
        ({}, True, r"ema_decay=None needs a state from .*ema=False"),
    ],
)
def test_step_and_state_must_fit(options, ema, message):
    optimizer = optax.sgd(0.1)
    with pytest.raises(ValueError, match=message):
        plain_step(make_loss(), optimizer, **options)(make_state(optimizer, ema=ema), make_batch())


def test_reserved_metric_names_are_refused():
    def loss_fn(params, stats, batch, key):
        return params["w"].sum(), (stats, {"finite": (1.0, 1.0)})

    optimizer = optax.sgd(0.1)
    state = init_state({"w": jnp.zeros(2, jnp.float32)}, optimizer, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"metrics named \['finite'\] are added by the step"):
        make_train_step(loss_fn, optimizer)(state, {"x": np.zeros((2, 1))})


def test_a_loss_may_take_the_number_of_steps_made():
    """Not the key alone follows the step; micro-batches of one step are told the same number."""

    def loss_fn(params, stats, batch, key, step=None):
        weight = 1.0 if step is None else 2.0 + step
        loss = weight * (params["w"] * batch["x"].mean(0)).sum()
        return loss, (stats, {"step": (jnp.float32(0 if step is None else step), jnp.float32(1))})

    optimizer, batch = optax.sgd(1.0), {"x": np.full((4, 2), 0.5, np.float32)}
    start = init_state({"w": jnp.zeros(2, jnp.float32)}, optimizer, key=jax.random.key(0))
    for parts in (1, 2):
        state = start
        step = make_train_step(loss_fn, optimizer, takes_step=True, accumulate_steps=parts)
        for done in range(3):
            before = np.asarray(state.params["w"])
            state, metrics = step(state, batch)
            np.testing.assert_allclose(before - state.params["w"], 0.5 * (2 + done), rtol=1e-6)
            assert compute_metrics(metrics)["step"] == done
    after, _ = make_train_step(loss_fn, optimizer)(start, batch)
    np.testing.assert_allclose(after.params["w"], -0.5, rtol=1e-6)
