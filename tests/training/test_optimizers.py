from functools import partial

import jax
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


def vit_like(seed):
    """Parameters named and shaped as those of a classifier with two stacked blocks."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    block = {"mlp1": {"kernel": draw(2, 3, 4), "bias": draw(2, 4)}, "norm1": {"scale": draw(2, 3)}}
    encoder = {
        "embed": {"kernel": draw(5, 3), "bias": draw(3)},
        "class_token": draw(1, 1, 3),
        "blocks": {"block": block, "norm": {"scale": draw(3), "bias": draw(3)}},
    }
    return {"encoder": encoder, "head": {"kernel": draw(3, 2), "bias": draw(2)}}


def test_decay_spares_biases_and_norms_of_stacked_blocks():
    params = vit_like(0)
    block = {"mlp1": {"kernel": True, "bias": False}, "norm1": {"scale": False}}
    encoder = {
        "embed": {"kernel": True, "bias": False},
        "class_token": True,
        "blocks": {"block": block, "norm": {"scale": False, "bias": False}},
    }
    expected = {"encoder": encoder, "head": {"kernel": True, "bias": False}}
    assert decay_mask(params) == expected
    encoder["class_token"] = False
    assert decay_mask(params, spared=("class_token",)) == expected


def test_a_module_called_block_alone_is_not_a_stack():
    assert decay_mask({"block": {"kernel": jnp.ones((2, 3))}}) == {"block": {"kernel": True}}


def walk(tree, *others, path=()):
    """(path, leaf, leaves of the others) of nested dicts."""
    for name, value in tree.items():
        deeper = [other[name] for other in others]
        if isinstance(value, dict):
            yield from walk(value, *deeper, path=(*path, name))
        else:
            yield (*path, name), value, *deeper


def follow(optimizer, gradients):
    """Parameters after one step for each gradient, from `vit_like(0)`."""
    params = vit_like(0)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params


def test_lars_equals_numpy():
    gradients, rates = [vit_like(1), vit_like(2)], [0.5, 0.2]
    found = follow(
        make_optimizer(
            "lars",
            lambda step: jnp.asarray(rates, jnp.float32)[step],
            weight_decay=0.1,
            momentum=0.9,
        ),
        gradients,
    )

    def scaled(p, g):
        g = g + 0.1 * p
        return 0.001 * np.linalg.norm(p) / np.linalg.norm(g) * g

    for path, start, after, *grads in walk(vit_like(0), found, *gradients):
        p, m = np.asarray(start, np.float64), 0.0
        for rate, grad in zip(rates, grads, strict=True):
            g = np.asarray(grad, np.float64)
            if path[-3:-1] == ("block", "mlp1") and path[-1] == "kernel":
                g = np.stack([scaled(p[i], g[i]) for i in range(2)])  # a norm for each block
            elif path[-1] in ("kernel", "class_token"):
                g = scaled(p, g)
            m = 0.9 * m + rate * g
            p = p - m
        moved = np.asarray(after, np.float64) - start
        np.testing.assert_allclose(moved, p - start, rtol=1e-3, atol=1e-6, err_msg=str(path))


def test_lars_moves_what_is_zero_and_rests_where_nothing_pulls():
    params = {"kernel": jnp.zeros((2, 2)), "other": jnp.ones((2, 2))}
    gradient = {"kernel": jnp.ones((2, 2)), "other": jnp.zeros((2, 2))}
    optimizer = make_optimizer("lars", 0.5)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    np.testing.assert_array_equal(updates["kernel"], -0.5)
    np.testing.assert_array_equal(updates["other"], 0)


def test_adamw_with_a_rate_for_each_layer_equals_numpy():
    gradients = [vit_like(1), vit_like(2)]
    spare_token = partial(decay_mask, spared=("class_token",))
    found = follow(
        make_optimizer("adamw", 0.1, weight_decay=0.3, layer_decay=0.5, mask=spare_token),
        gradients,
    )
    factors = {"embed": 1 / 8, "class_token": 1 / 8, "head": 1.0, "norm": 1.0}
    for path, start, after, *grads in walk(vit_like(0), found, *gradients):
        name = path[0] if path[0] == "head" else path[1] if path[1] != "blocks" else path[2]
        p, m, v = np.asarray(start, np.float64), 0.0, 0.0
        blocks = np.array([1 / 4, 1 / 2]).reshape(2, *(1,) * (p.ndim - 1))
        rate = 0.1 * (blocks if name == "block" else factors[name])
        for t, grad in enumerate(grads, start=1):
            g = np.asarray(grad, np.float64)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            adam = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            p = p - rate * (adam + (0.3 * p if path[-1] == "kernel" else 0))
        np.testing.assert_allclose(after, p, rtol=2e-5, atol=2e-6, err_msg=str(path))


def test_a_layer_decay_of_one_changes_no_bit():
    gradients = [vit_like(1)]
    plain = follow(make_optimizer("sgd", 0.1, momentum=0.9, clip_norm=1.0), gradients)
    same = make_optimizer("sgd", 0.1, momentum=0.9, clip_norm=1.0, layer_decay=1.0)
    for path, a, b in walk(plain, follow(same, gradients)):
        np.testing.assert_array_equal(a, b, err_msg=str(path))


def test_layer_decay_needs_the_encoder_of_a_vision_transformer():
    optimizer = make_optimizer("adamw", 0.1, layer_decay=0.75)
    with pytest.raises(ValueError, match=r"encoder\.blocks\.block are missing; use layer_decay=No"):
        optimizer.init(PARAMS)


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
        ("lion", {}, "unknown optimizer 'lion'; choose one of adamw, adam, sgd, lars"),
        ("adamw", {"weight_decay": -1.0}, "weight_decay=-1.0 must be 0 or more"),
        ("sgd", {"momentum": 1.0}, r"momentum=1.0 must lie in \[0, 1\)"),
        ("adam", {"b1": 1.0}, r"b1=1.0 must lie in \[0, 1\)"),
        ("adam", {"b2": -0.5}, r"b2=-0.5 must lie in \[0, 1\)"),
        ("adam", {"eps": 0.0}, "eps=0.0 must be above 0"),
        ("sgd", {"clip_norm": 0.0}, "clip_norm=0.0 must be above 0; use None"),
        ("adamw", {"momentum": 0.9}, "nesterov are options of sgd and lars, not of adamw; use b1"),
        ("lars", {"nesterov": True}, "nesterov needs a momentum above 0"),
        ("adamw", {"layer_decay": 0.0}, r"layer_decay=0.0 must lie in \(0, 1\], such as 0.75"),
        ("adamw", {"layer_decay": 1.1}, r"layer_decay=1.1 must lie in \(0, 1\]"),
        ("sgd", {"nesterov": True}, "nesterov needs a momentum above 0"),
    ],
)
def test_wrong_arguments(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(name, 0.1, **options)


def test_the_names_are_the_documented_ones():
    assert list(OPTIMIZERS) == ["adamw", "adam", "sgd", "lars"]
