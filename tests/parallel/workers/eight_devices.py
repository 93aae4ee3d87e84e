"""Mappings on 8 simulated devices, in a process of its own; writes one result a check."""

import re
import sys

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
import pytest  # noqa: E402

from recon_jax import models, parallel, training  # noqa: E402
from recon_jax.data import Batch  # noqa: E402
from recon_jax.parallel import mapping as mapping_file  # noqa: E402
from tests.checks import run_checks  # noqa: E402


def share(scale, rows):
    total = jax.lax.psum(rows["x"].sum(), parallel.AXIS)
    return {"y": scale * rows["x"] / total, "index": jax.lax.axis_index(parallel.AXIS)[None]}


def check_mapped_rows_are_the_same_under_both():
    rows = {"x": np.arange(1.0, 49.0, dtype=np.float32).reshape(16, 3)}
    found = [parallel.device_map(share, (None, 0), mapping=m)(2.0, rows) for m in parallel.MAPPINGS]
    for out in found:
        np.testing.assert_allclose(out["y"], 2 * rows["x"] / rows["x"].sum(), rtol=1e-6)
        np.testing.assert_array_equal(out["index"], np.arange(8))
    np.testing.assert_array_equal(found[0]["y"], found[1]["y"])


def check_folds_are_the_same_under_both():
    batches = [(np.full((16, 2), i, np.float32),) for i in range(40)]

    def update(state, rows):
        return state + rows.sum(0)

    for mapping in parallel.MAPPINGS:
        out = parallel.device_fold(update, jnp.zeros(2), batches, jax.lax.psum, mapping=mapping)
        np.testing.assert_array_equal(out, [16 * sum(range(40))] * 2)


def check_one_copy_is_the_same_under_both():
    rows = np.arange(48.0, dtype=np.float32).reshape(16, 3)
    total = [
        parallel.device_map(
            lambda x: jax.lax.psum(x.sum(0), "spam"), 0, None, axis_name="spam", mapping=mapping
        )(rows)
        for mapping in parallel.MAPPINGS
    ]
    np.testing.assert_array_equal(total[0], total[1])
    np.testing.assert_array_equal(total[0], rows.sum(0))


def check_both_refuse_rows_that_do_not_divide():
    for mapping in parallel.MAPPINGS:
        with pytest.raises(ValueError, match="a leading axis of 12 cannot be split over 8 devices"):
            parallel.device_map(lambda x: x, mapping=mapping)(np.ones((12, 1)))


def trained(mapping):
    model = models.make_model("mlp", num_classes=3, axis_name=parallel.AXIS)
    loss = training.classification_loss(model, axis_name=parallel.AXIS)
    optimizer = optax.adam(1e-2)
    step = training.make_train_step(loss, optimizer, axis_name=parallel.AXIS)
    variables = model.init(jax.random.key(1), np.zeros((1, 4, 4, 1), np.float32))
    state = training.init_state(
        variables["params"],
        optimizer,
        key=jax.random.key(0),
        batch_stats=variables["batch_stats"],
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (32, 4, 4, 1), np.uint8)
    batch = Batch(images, rng.integers(0, 3, 32).astype(np.int32), np.arange(32) < 30)
    return parallel.data_parallel(step, mapping=mapping), state, batch


def check_training_steps_are_the_same_under_both():
    states = []
    for mapping in parallel.MAPPINGS:
        step, state, batch = trained(mapping)
        for _ in range(5):
            state, _ = step(state, batch)
        states.append((state.params, state.batch_stats, state.opt_state))
    for ours, other in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-5, atol=1e-6)


def check_the_state_is_never_copied():
    for mapping in parallel.MAPPINGS:
        step, state, batch = trained(mapping)
        state, _ = step(state, batch)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        compiled = step.lower(state, parallel.split_leading(batch, 8)).compile()
        memory = compiled.memory_analysis()
        # On each device all of the state lives on in the memory of the one before,
        assert memory.alias_size_in_bytes >= size, (mapping, memory)
        # and nothing gathers, moves or broadcasts it on its way in or out.
        text = compiled.as_text()
        assert "all-reduce" in text
        assert not re.search("all-gather|all-to-all|collective-permute", text), mapping
        previous, before = state, addresses(state)
        state, _ = step(state, batch)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(previous))
        assert addresses(state) == before


def addresses(state):
    """Where the state lies, on all devices; the smallest arrays may share a place."""
    leaves = [leaf for leaf in jax.tree.leaves((state.params, state.opt_state)) if leaf.size > 1]
    return {s.data.unsafe_buffer_pointer() for leaf in leaves for s in leaf.addressable_shards}


def check_the_default_can_be_chosen():
    built = []
    original = mapping_file._by_shard_map
    mapping_file._by_shard_map = lambda *arguments: built.append(1) or original(*arguments)
    try:
        parallel.device_map(lambda x: x + 1)(np.ones(8))
        assert not built
        parallel.use_mapping("shard_map")
        parallel.device_map(lambda x: x + 1)(np.ones(8))
        parallel.data_parallel(lambda s, b: s)
        assert len(built) == 2
        parallel.data_parallel(lambda s, b: s, mapping="pmap")
        assert len(built) == 2
        with pytest.raises(ValueError, match="mapping='vmap' must be one of pmap, shard_map"):
            parallel.use_mapping("vmap")
    finally:
        mapping_file._by_shard_map = original
        parallel.use_mapping("pmap")


if __name__ == "__main__":
    run_checks(globals(), sys.argv[1])
