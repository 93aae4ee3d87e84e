import functools
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from recon_jax.training import (
    best_step,
    finish_saving,
    make_optimizer,
    open_checkpoints,
    restore_checkpoint,
    save_checkpoint,
    saved_steps,
)

from .cases import make_state

# Orbax gives up at the first leaf it cannot read, and the reads of the others then report to an
# event loop that is closed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def assert_same(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@functools.cache
def state_of(seed=0):
    return make_state(make_optimizer("adamw", 0.1), norm=True, ema=True, seed=seed)


def test_round_trip_of_every_kind_of_leaf(tmp_path):
    tree = {
        "half": jnp.arange(3, dtype=jnp.bfloat16) / 3,
        "double": jnp.arange(4.0).reshape(2, 2) / 7,
        "count": jnp.int32(5),
        "flags": jnp.array([True, False]),
        "key": jax.random.key(3),
        "keys": jax.random.split(jax.random.key(3), 2),
        "raw": jax.random.PRNGKey(1),
        "empty": jnp.zeros((0, 3)),
        "a/b": (jnp.ones(1), None, optax.EmptyState()),
    }
    with open_checkpoints(tmp_path) as checkpoints:
        save_checkpoint(checkpoints, 7, tree, identity={"a": (1, 2)}, carry={"x": [0.1, 1e-17]})
    template = jax.tree.map(jnp.zeros_like, {k: v for k, v in tree.items() if "key" not in k})
    template |= {"key": jax.random.key(0), "keys": jax.random.split(jax.random.key(0), 2)}
    with open_checkpoints(tmp_path) as checkpoints:
        restored = restore_checkpoint(checkpoints, template, identity={"a": [1, 2]})
    assert restored.step == 7
    assert restored.carry == {"x": [0.1, 1e-17]}
    assert_same(restored.state, tree)


def test_saved_state_is_a_copy(tmp_path):
    # The next step writes into the donated memory while the checkpoint is being written.
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    with open_checkpoints(tmp_path) as checkpoints:
        value = jnp.zeros(100_000)
        save_checkpoint(checkpoints, 1, {"x": value})
        for _ in range(5):
            value = step(value)
    with open_checkpoints(tmp_path) as checkpoints:
        restored = restore_checkpoint(checkpoints, {"x": jnp.ones(100_000)})
    assert not restored.state["x"].any()


def test_newest_are_kept(tmp_path):
    with open_checkpoints(tmp_path, keep=2) as checkpoints:
        assert restore_checkpoint(checkpoints, {"x": jnp.ones(2)}) is None
        for step in range(1, 6):
            save_checkpoint(checkpoints, step, {"x": jnp.full(2, float(step))})
            finish_saving(checkpoints)
            assert saved_steps(checkpoints)[-1] == step
        save_checkpoint(checkpoints, 5, {"x": jnp.zeros(2)})  # is there already
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "5"]
    with open_checkpoints(tmp_path) as checkpoints:
        assert restore_checkpoint(checkpoints, {"x": jnp.ones(2)}).state["x"][0] == 5


@pytest.mark.parametrize(("mode", "best"), [("max", 2), ("min", 4)])
def test_best_is_kept(tmp_path, mode, best):
    scores = {1: 0.5, 2: 0.9, 3: float("nan"), 4: 0.1, 5: None, 6: 0.4, 7: 0.9}
    for part in ((1, 2, 3), (4, 5, 6, 7)):  # also across a restart
        with open_checkpoints(tmp_path, keep=1, best_mode=mode) as checkpoints:
            for step in part:
                save_checkpoint(checkpoints, step, {"x": jnp.ones(2)}, metric=scores[step])
            finish_saving(checkpoints)
            assert best_step(checkpoints) == (best if part[0] == 4 else {"max": 2, "min": 1}[mode])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({str(best), "7"})


def test_a_state_with_nan_is_never_saved(tmp_path):
    state = state_of()
    kernel = state.params["Dense_0"]["kernel"].at[0, 0].set(jnp.nan)
    bad = state._replace(params={**state.params, "Dense_0": {"kernel": kernel}})
    with open_checkpoints(tmp_path) as checkpoints:
        with pytest.raises(
            FloatingPointError, match=r"params\.Dense_0\.kernel holds NaN .* step 3"
        ):
            save_checkpoint(checkpoints, 3, bad)
        assert saved_steps(checkpoints) == []
        # Infinity in an optimizer can be meant: the best loss before any.
        save_checkpoint(checkpoints, 4, state._replace(opt_state={"best": jnp.array(jnp.inf)}))
    assert (tmp_path / "4").is_dir()


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    """Checkpoints of steps 10 and 20; copied for each test that damages them."""
    folder = tmp_path_factory.mktemp("two")
    with open_checkpoints(folder) as checkpoints:
        for step in (10, 20):
            save_checkpoint(
                checkpoints, step, state_of(step), identity={"lr": {"peak": 0.1}, "model": "mlp"}
            )
    return folder


@pytest.fixture
def folder(two_checkpoints, tmp_path):
    return shutil.copytree(two_checkpoints, tmp_path / "checkpoints")


IDENTITY = {"lr": {"peak": 0.1}, "model": "mlp"}


def data_of(step):
    """All data files: Orbax keeps some of them twice, and reads but one."""
    files = sorted(step.glob("state/**/d/*"))
    assert files
    return files


def truncate_data(step):
    for path in data_of(step):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_bit_of(path, place=0.5):
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 4
    path.write_bytes(bytes(content))


def flip_data(step):
    for path in data_of(step):
        flip_bit_of(path)


def flip_manifest(step):
    path = step / "manifest" / "metadata"
    text = path.read_text()
    assert "mlp" in text
    path.write_text(text.replace("mlp", "mlq"))


def other_manifest(step):
    shutil.copy(step.parent / "10" / "manifest" / "metadata", step / "manifest" / "metadata")


def truncate_manifest(step):
    (step / "manifest" / "metadata").write_bytes(b'{"content"')


def remove_data(step):
    for path in data_of(step):
        path.unlink()


def empty_tree_metadata(step):
    (step / "state" / "_METADATA").write_bytes(b"")


def empty_step(step):
    shutil.rmtree(step)
    step.mkdir()


def no_state(step):
    shutil.rmtree(step / "state")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate_data, ""),
        (flip_data, ""),
        (flip_manifest, "its manifest does not fit its SHA-256"),
        (other_manifest, "it holds step 10"),
        (truncate_manifest, "its manifest cannot be read"),
        (remove_data, ""),
        (empty_tree_metadata, ""),
        (no_state, "it cannot be read"),
        (empty_step, "it holds no finished checkpoint"),
    ],
)
def test_damage_is_noticed_and_the_one_before_used(folder, damage, message, caplog):
    damage(folder / "20")
    with open_checkpoints(folder) as checkpoints:
        restored = restore_checkpoint(checkpoints, state_of(), identity=IDENTITY)
        assert restored.step == 10
        assert_same(restored.state, state_of(10))
        # Its place is free for the step to be saved again.
        save_checkpoint(checkpoints, 20, state_of(5), identity=IDENTITY)
    text = caplog.text
    assert f"checkpoint {folder / '20'} is damaged (" in text
    assert message in text
    assert (folder / "damaged" / "20").is_dir()
    with open_checkpoints(folder) as checkpoints:
        again = restore_checkpoint(checkpoints, state_of(), identity=IDENTITY)
        assert_same(again.state, state_of(5))


@pytest.mark.parametrize("seed", range(6))
def test_any_flipped_bit_in_the_data_is_noticed_or_harmless(folder, seed, caplog):
    rng = np.random.default_rng(seed)
    files = data_of(folder / "20")
    flip_bit_of(files[rng.integers(len(files))], rng.random())
    with open_checkpoints(folder) as checkpoints:
        restored = restore_checkpoint(checkpoints, state_of(), identity=IDENTITY)
    # A copy that is not read does no harm.
    assert_same(restored.state, state_of(restored.step))
    assert ("is damaged" in caplog.text) == (restored.step == 10)


def test_bits_that_orbax_does_not_notice(folder, monkeypatch, caplog):
    import orbax.checkpoint as ocp

    read = ocp.CheckpointManager.restore

    def flipped(self, step, args):
        out = read(self, step, args=args)
        if step == 20 and "state" in out:
            out["state"]["params.Dense_0.kernel"].view(np.uint8)[0, 0] ^= 1
        return out

    monkeypatch.setattr(ocp.CheckpointManager, "restore", flipped)
    with open_checkpoints(folder) as checkpoints:
        assert restore_checkpoint(checkpoints, state_of(), identity=IDENTITY).step == 10
    assert "params.Dense_0.kernel does not fit its SHA-256" in caplog.text


def test_without_an_undamaged_checkpoint_there_is_none(folder, caplog):
    for name in ("10", "20"):
        truncate_data(folder / name)
    with open_checkpoints(folder) as checkpoints:
        assert restore_checkpoint(checkpoints, state_of(), identity=IDENTITY) is None
    assert caplog.text.count("is damaged") == 2
    # The same step damaged twice keeps both.
    (folder / "20").mkdir()
    with open_checkpoints(folder):
        pass
    assert (folder / "damaged" / "20-2").is_dir()


def refused(folder, template=None, identity=IDENTITY, total_steps=None):
    with open_checkpoints(folder) as checkpoints:
        with pytest.raises(ValueError, match="checkpoint") as error:
            restore_checkpoint(
                checkpoints, template or state_of(), identity=identity, total_steps=total_steps
            )
        assert saved_steps(checkpoints) == [10, 20]  # nothing was moved
    return str(error.value)


def test_another_config_is_refused(folder):
    text = refused(folder, identity={"lr": {"peak": 0.2, "warmup": 5}})
    assert "belongs to a run with other settings" in text
    assert "lr.peak: stored 0.1, now 0.2" in text
    assert "lr.warmup: stored absent, now 5" in text
    assert 'model: stored "mlp", now absent' in text


def test_another_model_is_refused(folder):
    state = state_of()
    params = {
        "Dense_0": {"kernel": jnp.zeros((4, 16), jnp.float32), "bias": jnp.zeros(16, jnp.float32)},
        "Dense_9": {"bias": jnp.zeros(3, jnp.float32)},
    }
    text = refused(folder, state._replace(params=params))
    assert "is of another model or optimizer" in text
    assert "params.Dense_0.bias: stored float32[8], now float32[16]" in text
    assert "params.Dense_0.kernel: stored float32[4, 8], now float32[4, 16]" in text
    assert "params.Dense_9.bias: not stored, now float32[3]" in text
    assert re.search("and [45] more", text)
    assert "step: stored int32[], now int64[]" in refused(
        folder, state._replace(step=jnp.zeros((), jnp.int64))
    )
    assert "ema_params.Dense_0.bias: stored float32[8], now absent" in refused(
        folder, state._replace(ema_params=None)
    )


def test_a_checkpoint_from_the_future_is_refused(folder):
    text = refused(folder, total_steps=15)
    assert "is from the future of this run: step 20 lies past total_steps=15" in text
    with open_checkpoints(folder) as checkpoints:
        restored = restore_checkpoint(checkpoints, state_of(), identity=IDENTITY, total_steps=20)
        assert restored.step == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0}, "keep=0 must be an integer of at least 1"),
        ({"best_mode": "best"}, "best_mode='best' must be 'max', 'min' or None"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message), open_checkpoints(tmp_path, **options):
        pass


def test_identity_must_be_json(tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match="identity must hold only numbers, text, lists"):
            save_checkpoint(checkpoints, 1, {"x": jnp.ones(1)}, identity={"f": jnp.ones})
        with pytest.raises(ValueError, match="two leaves of the state have the same name"):
            save_checkpoint(checkpoints, 1, {"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}})
