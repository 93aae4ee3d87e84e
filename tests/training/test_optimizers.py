import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.training import OPTIMIZERS, decay_mask, make_optimizer, make_schedule

PARAMS = {
    "kernel": jnp.array([[1.0, -2.0], [3.0, 0.5]], jnp.float32),
    "bias": jnp.array([1.0, -1.0], jnp.float32),
    "scale": jnp.array(2.0, jnp.float32),
}
GRADS = {
    "kernel": jnp.array([[0.1, 0.2], [-0.3, 0.4]], jnp.float32),
    "bias": jnp.array([0.5, -0.5], jnp.float32),
    "scale": jnp.array(0.1, jnp.float32),
}


def run(optimizer, steps=1, grads=GRADS):
    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(steps):
        updates, state = optimizer.update(grads, state, params)
        params = {name: params[name] + updates[name] for name in params}
    return {name: np.asarray(value, np.float64) for name, value in params.items()}


def loop(name, steps, lr, decay, momentum=0.0, nesterov=False):
    """The update rules in NumPy; decay on the kernel alone."""
    after = {}
    for leaf, start in PARAMS.items():
        p, grad = np.asarray(start, np.float64), np.asarray(GRADS[leaf], np.float64)
        wd = decay if leaf == "kernel" else 0.0
        m, v = np.zeros_like(p), np.zeros_like(p)
        for t in range(1, steps + 1):
            g = grad if name == "adamw" else grad + wd * p
            if name == "sgd":
                m = momentum * m + g
                p = p - lr * (g + momentum * m if nesterov else m)
                continue
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            adam = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            p = p - lr * (adam + (wd * p if name == "adamw" else 0))
        after[leaf] = p
    return after


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adamw", {}),
        ("adam", {}),
        ("sgd", {}),
        ("sgd", {"momentum": 0.9}),
        ("sgd", {"momentum": 0.9, "nesterov": True}),
    ],
)
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_update_rules(name, options, decay):
    ours = run(make_optimizer(name, 0.1, weight_decay=decay, **options), 4)
    expected = loop(name, 4, 0.1, decay, **options)
    for leaf, value in expected.items():
        np.testing.assert_allclose(ours[leaf], value, rtol=2e-5, atol=1e-6, err_msg=leaf)


def test_decay_spares_parameters_with_one_axis():
    assert decay_mask(PARAMS) == {"kernel": True, "bias": False, "scale": False}
    zero = {name: jnp.zeros_like(value) for name, value in PARAMS.items()}
    ours = run(make_optimizer("sgd", 0.1, weight_decay=0.5), grads=zero)
    np.testing.assert_allclose(ours["kernel"], 0.95 * PARAMS["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(ours["bias"], PARAMS["bias"])
    everything = run(make_optimizer("sgd", 0.1, weight_decay=0.5, mask=None), grads=zero)
    np.testing.assert_allclose(everything["bias"], 0.95 * PARAMS["bias"], rtol=1e-6)


def test_clipping_comes_before_everything_else():
    norm = np.sqrt(sum(float((value**2).sum()) for value in GRADS.values()))
    ours = run(make_optimizer("sgd", 1.0, clip_norm=0.1))
    for leaf, grad in GRADS.items():
        np.testing.assert_allclose(ours[leaf], PARAMS[leaf] - grad * 0.1 / norm, rtol=1e-5)
    loose = run(make_optimizer("sgd", 1.0, clip_norm=100.0))
    np.testing.assert_allclose(loose["bias"], PARAMS["bias"] - GRADS["bias"], rtol=1e-6)


def test_schedule_counts_the_steps():
    schedule = make_schedule("constant", 0.2, 10, 2)
    ours = run(make_optimizer("sgd", schedule), 3)
    np.testing.assert_allclose(ours["bias"], PARAMS["bias"] - 0.3 * GRADS["bias"], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lion", {}, "unknown optimizer 'lion'; choose one of adamw, adam, sgd"),
        ("adamw", {"weight_decay": -1.0}, "weight_decay=-1.0 must be 0 or more"),
        ("sgd", {"momentum": 1.0}, r"momentum=1.0 must lie in \[0, 1\)"),
        ("adam", {"b1": 1.0}, r"b1=1.0 must lie in \[0, 1\)"),
        ("adam", {"b2": -0.5}, r"b2=-0.5 must lie in \[0, 1\)"),
        ("adam", {"eps": 0.0}, "eps=0.0 must be above 0"),
        ("sgd", {"clip_norm": 0.0}, "clip_norm=0.0 must be above 0; use None"),
        ("adamw", {"momentum": 0.9}, "momentum and nesterov are options of sgd, not of adamw"),
        ("sgd", {"nesterov": True}, "nesterov needs a momentum above 0"),
    ],
)
def test_wrong_arguments(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(name, 0.1, **options)


def test_the_names_are_the_documented_ones():
    assert list(OPTIMIZERS) == ["adamw", "adam", "sgd"]
