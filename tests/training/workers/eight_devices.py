"""Training steps on 8 simulated devices, in a process of its own; writes one result a check."""

import ctypes
import sys
import tempfile
from pathlib import Path

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
import pytest  # noqa: E402

from recon_jax import augment, data, losses, models, parallel, training  # noqa: E402
from recon_jax.training import compute_metrics, device_key, make_train_step  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.checks import run_checks  # noqa: E402
from tests.training.cases import make_batch, make_loss, make_state  # noqa: E402


def run(devices, padded, norm=False, parts=1, noise=0.5, sync=False):
    """Three steps; the state and the means of the last one."""
    axis = parallel.AXIS
    optimizer = optax.sgd(0.5)
    loss_fn = make_loss(norm=norm, noise=noise, axis_name=axis, sync=sync)
    step = make_train_step(loss_fn, optimizer, axis_name=axis, accumulate_steps=parts)
    step = parallel.data_parallel(step, devices=jax.local_devices()[:devices])
    state = make_state(optimizer, norm=norm)
    for index in range(3):
        state, metrics = step(state, make_batch(index, rows=32, padded=padded))
    return state, compute_metrics(metrics)


def assert_close(tree, expected):
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def check_8_devices_equal_1():
    # 13 of 32 rows are padding: three devices hold nothing else, and one is mixed.
    state, means = run(8, 13)
    expected, expected_means = run(1, 13)
    assert_close(state.params, expected.params)
    assert means == pytest.approx(expected_means, rel=1e-5)


def check_batch_norm_over_the_devices_is_that_of_one():
    # Losses then depend on other devices' images, and one device holds fewer than the others.
    state, means = run(8, 3, norm=True, sync=True)
    expected, expected_means = run(1, 3, norm=True, sync=True)
    assert_close(state.params, expected.params)
    assert_close(state.batch_stats, expected.batch_stats)
    assert means == pytest.approx(expected_means, rel=1e-5)


def check_accumulation_on_8_devices():
    assert_close(run(8, 5, parts=2, noise=0)[0].params, run(1, 5, noise=0)[0].params)


def check_statistics_are_averaged_over_devices():
    state, _ = run(8, 0, norm=True)
    for leaf in jax.tree.leaves(state.batch_stats):
        assert np.isfinite(leaf).all()
        assert leaf.shape == (8,)
    # The mean of equal parts' means is the mean of all: that of one device after one step.
    one = run(1, 0, norm=True)[0].batch_stats["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(state.batch_stats["BatchNorm_0"]["mean"], one, atol=0.05)


def check_a_batch_that_does_not_divide_is_refused():
    step = parallel.data_parallel(lambda s, b: (s, b.sum()))
    with pytest.raises(ValueError, match="a leading axis of 12 cannot be split over 8 devices"):
        step(jnp.ones(1), np.ones((12, 2)))


def check_device_keys_differ():
    def step(state, batch):
        draw = jax.random.uniform(device_key(jax.random.key(0), "d"))
        return state, jax.lax.all_gather(draw, "d")

    _, draws = parallel.data_parallel(step, "d")(jnp.ones(1), np.ones((8, 1)))
    assert len(np.unique(draws)) == 8


def check_the_state_is_donated_and_compiled_once():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )

    def step(state, batch):
        return state + jax.lax.psum(batch.sum(), parallel.AXIS), state.sum()

    batch = np.ones((8, 2), np.float32)
    for devices in (1, 8):
        mapped = parallel.data_parallel(step, devices=jax.local_devices()[:devices])
        # The state of a new run comes from one device, uncommitted; later ones from the step.
        state = jnp.zeros(3)
        before = len(compiled)
        for _ in range(4):
            previous = state
            state, _ = mapped(state, batch)
        assert len(compiled) == before + 1
        assert previous.is_deleted()
        np.testing.assert_array_equal(state, [64, 64, 64])


def classifier(axis):
    """A real model with augmentation, batch norm over the devices, and evaluation."""
    model = models.make_model("mlp", num_classes=3, axis_name=axis)
    policy = augment.crop_flip((8, 8, 1))
    loss = training.classification_loss(model, policy=policy, axis_name=axis)
    return model, loss, training.classification_metrics(model)


def classified(devices):
    axis = parallel.AXIS
    model, loss, metrics = classifier(axis)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (32, 8, 8, 1), np.uint8)
    batch = data.Batch(images, rng.integers(0, 3, 32).astype(np.int32), np.arange(32) < 30)
    variables = model.init(jax.random.key(1), np.zeros((1, 8, 8, 1), np.float32))
    optimizer = optax.sgd(0.1)
    state = training.init_state(
        variables["params"],
        optimizer,
        key=jax.random.key(0),
        batch_stats=variables["batch_stats"],
    )
    chosen = jax.local_devices()[:devices]
    step = make_train_step(loss, optimizer, axis_name=axis)
    step = parallel.data_parallel(step, devices=chosen)
    for _ in range(2):
        state, sums = step(state, batch)
    return state, compute_metrics(sums), metrics, batch


def check_augmented_training_with_batch_norm_equals_that_of_one_device():
    (state, means, *_), (expected, wanted, *_) = classified(8), classified(1)
    assert_close(state.params, expected.params)
    assert_close(state.batch_stats, expected.batch_stats)
    assert means == pytest.approx(wanted, rel=1e-4)


def check_evaluation_and_extraction_over_8_devices():
    state, _, metrics, batch = classified(8)
    found = training.make_evaluate(metrics)(state, [batch, batch])
    model, *_ = classifier(None)
    rows = batch.images[:30] / np.float32(255)
    logits = model.apply(training.variables_of(state), rows)
    assert found["accuracy"] == pytest.approx(float((logits.argmax(1) == batch.labels[:30]).mean()))

    def fn(variables, images):
        return model.apply(variables, jnp.asarray(images, jnp.float32) / 255)

    outputs, labels = training.extract(fn, training.variables_of(state), [batch])
    np.testing.assert_allclose(outputs, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(labels, batch.labels[:30])


def noisy(keys, images, strength):
    noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)
    return images + strength[:, None, None, None] * noise


def check_contrastive_training_sees_the_images_of_all_devices():
    """An encoder and a projector, both with batch norm over the devices."""
    axis, sizes = parallel.AXIS, {"widths": (8,), "head_width": 8, "outputs": 4}
    model = models.make_model("simclr_mlp", **sizes, use_norm=True, head_norm=True, axis_name=axis)
    setting = {"policy": noisy, "options": {"temperature": 0.2, "block_size": 3}, "axis_name": axis}
    images = np.random.default_rng(0).integers(0, 256, (32, 4, 4, 1), np.uint8)
    # Devices hold different numbers of images that count, one of them none.
    mask = (np.arange(32) % 5 < 3) & (np.arange(32) // 4 != 2)
    batch = data.Batch(images, np.zeros(32, np.int32), mask)
    batch = training.with_strength(batch, 0.4)
    variables, optimizer = model.init(jax.random.key(1), images[:1] / 255), optax.sgd(0.01)
    loss = training.contrastive_loss(model, **setting)
    metrics = training.contrastive_metrics(model, **setting)

    def summed(state, batch):
        return state, jax.lax.psum(dict(metrics(state, batch)), axis)

    found = []
    for devices in (1, 8):
        chosen = jax.local_devices()[:devices]
        state = training.init_state(
            variables["params"],
            optimizer,
            key=jax.random.key(0),
            batch_stats=variables["batch_stats"],
        )
        step = make_train_step(loss, optimizer, axis_name=axis)
        step = parallel.data_parallel(step, devices=chosen)
        for _ in range(2):
            state, sums = step(state, batch)
        state, evaluated = parallel.data_parallel(summed, devices=chosen)(state, batch)
        found.append((state, compute_metrics(sums), compute_metrics(evaluated)))
    (expected, *wanted), (state, *means) = found
    assert_close(state.params, expected.params)
    assert_close(state.batch_stats, expected.batch_stats)
    for ours, theirs in zip(means, wanted, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def check_contrastive_gradients_of_8_devices_are_those_of_1():
    rng = np.random.default_rng(0)
    arrays = (*rng.standard_normal((2, 32, 5), np.float32), np.arange(32) % 7 < 4)
    arrays[2][8:12] = False
    for name, loss in losses.CONTRASTIVE_LOSSES.items():

        def of_device(a, b, mask, loss=loss):
            weight = mask.sum()
            slopes = jax.grad(lambda a, b: weight * loss(a, b, mask=mask, axis_name="d"), (0, 1))
            return jnp.stack(slopes(a, b), 1) / jax.lax.psum(weight, "d")

        for mapping in parallel.MAPPINGS:
            found = parallel.device_map(of_device, axis_name="d", mapping=mapping)(*arrays)
            one = jax.grad(lambda a, b, loss=loss: loss(a, b, mask=arrays[2]), (0, 1))
            expected = np.stack(one(*arrays[:2]), 1)
            atol = 1e-6 * np.abs(expected).max()
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=atol, err_msg=name)


def check_the_allocator_keeps_large_arrays():
    libc = ctypes.CDLL("libc.so.6")
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]

    class Info(ctypes.Structure):
        _fields_ = (
            *((name, ctypes.c_size_t) for name in ("arena", "free", "small", "hblks", "hblkhd")),
            ("rest", ctypes.c_size_t * 5),
        )

    libc.mallinfo2.restype = Info

    def mapped_blocks():
        before = libc.mallinfo2().hblks
        block = libc.malloc(100 * 2**20)
        more = libc.mallinfo2().hblks - before
        libc.free(block)
        return more

    assert mapped_blocks() == 1
    assert parallel.tune_allocator()
    assert mapped_blocks() == 0


def check_the_compilation_cache_fills():
    with tempfile.TemporaryDirectory() as folder:
        parallel.enable_compilation_cache(folder, min_seconds=0)
        jax.config.update("jax_enable_compilation_cache", True)
        from jax.experimental.compilation_cache import compilation_cache

        compilation_cache.reset_cache()
        jax.jit(lambda x: x * 3 - 1)(jnp.ones(7)).block_until_ready()
        assert list(Path(folder).iterdir())


if __name__ == "__main__":
    run_checks(globals(), sys.argv[1])
