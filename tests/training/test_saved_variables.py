import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.training import lock_workdir, make_optimizer, open_checkpoints, save_checkpoint
from recon_jax.training.saved_variables import read_variables

from .cases import make_state


@functools.cache
def state_of(ema=False, seed=0):
    return make_state(make_optimizer("adamw", 0.1), norm=True, ema=ema, seed=seed)


def saved_run(folder, *states, identity=None):
    with open_checkpoints(folder / "checkpoints", keep=5) as checkpoints:
        for step, state in enumerate(states, 1):
            save_checkpoint(checkpoints, step, state, identity=identity or {"model": "mlp"})
    return folder


def template_of(state):
    shapes = {"params": state.params, "batch_stats": state.batch_stats}
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), shapes)


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_the_newest_variables_come_back_and_the_run_stays_as_it_is(tmp_path):
    first, second = state_of(), state_of(seed=1)
    run = saved_run(tmp_path, first, second, identity={"model": ["mlp", {}], "seed": 3})
    found = read_variables(run, template_of(first))
    assert found.step == 2
    assert found.identity == {"model": ["mlp", {}], "seed": 3}
    assert_same(found.variables, {"params": second.params, "batch_stats": second.batch_stats})
    assert sorted(p.name for p in (run / "checkpoints").iterdir() if p.name.isdigit()) == ["1", "2"]


def test_averaged_parameters_are_taken_where_there_are_any(tmp_path):
    state = state_of(ema=True)
    state = state._replace(ema_params=jax.tree.map(lambda leaf: leaf + 1, state.params))
    found = read_variables(saved_run(tmp_path, state), template_of(state))
    assert_same(found.variables["params"], state.ema_params)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    first, second = state_of(), state_of(seed=1)
    run = saved_run(tmp_path, first, second)
    for path in (run / "checkpoints" / "2" / "manifest").rglob("metadata"):
        path.write_text("{}")
    found = read_variables(run, template_of(first))
    assert found.step == 1
    assert_same(found.variables["params"], first.params)


def test_another_model_is_refused(tmp_path):
    state = state_of()
    template = template_of(state)
    template["params"]["Dense_0"]["kernel"] = jax.ShapeDtypeStruct((5, 8), jnp.float32)
    template["params"]["more"] = jax.ShapeDtypeStruct((3,), jnp.float32)
    with pytest.raises(
        ValueError, match=r"of another model: params.*kernel: stored .*, now float32"
    ):
        read_variables(saved_run(tmp_path, state), template)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is not the folder of a run: it has no checkpoints/"):
        read_variables(tmp_path / "nowhere", {})
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match="holds no undamaged checkpoint"):
        read_variables(tmp_path, {})


def test_a_live_run_is_left_alone(tmp_path):
    run = saved_run(tmp_path, state_of())
    with lock_workdir(run), pytest.raises(ValueError, match="in use by another live run"):
        read_variables(run, template_of(state_of()))
