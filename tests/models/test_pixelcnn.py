import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from recon_jax.models.pixelcnn import PixelCNN


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def build(seed=0, *, features, channels=2, **options):
    """A head in float64, and drawn parameters for it."""
    head = PixelCNN(3, **({"width": 6, "num_blocks": 1, "dtype": jnp.float64} | options))
    given = jnp.zeros((1, 5, 5, 4)) if features else None
    shapes = jax.eval_shape(head.init, jax.random.key(0), jnp.zeros((1, 5, 5, channels)), given)
    rng = np.random.default_rng(seed)

    def leaf(shape):
        white = rng.standard_normal(shape.shape)
        return jnp.asarray(white * np.sqrt(2 / max(1, np.prod(shape.shape[:-1]))))

    return head, jax.tree.map(leaf, shapes)


def allowed(head, height, width):
    """(H, W, H, W): may (y, x) see (v, u), by the distance alone."""
    horizon = head.horizon
    y, x, v, u = np.mgrid[:height, :width, :height, :width]
    before = (v < y) | ((v == y) & (u < x))
    return before & (y - v <= horizon) & (abs(u - x) <= horizon)


def through_the_stack(head, height, width):
    """(H, W, H, W): what zero-padded masked kernels pass on, one after the other, from a pixel."""
    sizes = [head.first_kernel] + [head.inner_kernel] * (3 * head.num_blocks)
    seen = np.zeros((height, width, height, width), bool)
    for v, u in np.ndindex(height, width):
        state = np.zeros((height, width), bool)
        state[v, u] = True
        for index, size in enumerate(sizes):
            half, grown = size // 2, np.zeros_like(state)
            for y, x in np.argwhere(state):
                last = width if half else x + 1
                for dy in range(half + 1):
                    low = max(0, x - half) if dy else x + (index == 0)
                    high = min(last, x + half + 1)
                    if y + dy < height:
                        grown[y + dy, low:high] = True
            state = grown
        seen[:, :, v, u] = state
    return seen


def dependence(head, variables, pixels, features):
    """(H, W, H, W): where the gradient of the numbers of (y, x) by pixel (v, u) is not zero."""
    height, width = pixels.shape[1:3]

    def cotangent(place):
        at = jax.nn.one_hot(place, height * width, dtype=jnp.float64).reshape(1, height, width, 1)
        return at * draw(len(pixels), 1, 1, 3, seed=5)

    @jax.jit()
    def gradients(variables, pixels, features):
        _, back = jax.vjp(lambda pixels: head.apply(variables, pixels, features), pixels)
        return jax.lax.map(
            lambda place: jnp.abs(back(cotangent(place))[0]).sum((0, 3)),
            jnp.arange(height * width),
        )

    found = gradients(variables, pixels, features)
    return np.asarray(found != 0).reshape(height, width, height, width)


@pytest.mark.parametrize("with_features", [True, False])
@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_a_local_head_sees_its_horizon_and_no_more(horizon, with_features):
    head, variables = build(features=with_features, horizon=horizon)
    features = draw(4, 5, 6, 4, seed=2) if with_features else None
    found = dependence(head, variables, draw(4, 5, 6, 2), features)
    assert_array_equal(found, allowed(head, 5, 6))


@pytest.mark.parametrize(
    ("options", "with_features"),
    [
        ({"first_kernel": 7}, True),
        ({"first_kernel": 3}, False),
        ({"first_kernel": 3, "inner_kernel": 1}, False),
        ({"first_kernel": 5, "num_blocks": 0}, True),
    ],
)
def test_a_full_head_sees_what_its_stack_passes_on(options, with_features):
    head, variables = build(features=with_features, horizon=None, width=10, **options)
    features = draw(12, 5, 6, 4, seed=2) if with_features else None
    found = dependence(head, variables, draw(12, 5, 6, 2), features)
    expected = through_the_stack(head, 5, 6)
    assert_array_equal(found, expected)
    context = head.context()
    reach = context.shape[0] - 1
    for y, x, v, u in np.argwhere(np.ones_like(expected)):
        row, column = v - y + reach, u - x + reach
        inside = 0 <= row <= reach and 0 <= column <= 2 * reach
        assert expected[y, x, v, u] == (inside and context[row, column])


def test_the_blind_spot_of_one_stack():
    context = PixelCNN(1, None, num_blocks=2, first_kernel=3).context()
    assert context.shape == (8, 15)
    # To the right the reach is one column a row, so (-1, +2) is never seen.
    assert_array_equal(context[:, 7:].sum(1), [8, 7, 6, 5, 4, 3, 2, 0])
    assert context[:-1, :8].all()
    assert_array_equal(context[-1], [1] * 7 + [0] * 8)


@pytest.mark.parametrize("horizon", [0, 1, 2, 5])
def test_the_context_of_a_local_head(horizon):
    context = PixelCNN(1, horizon).context()
    assert context.shape == (horizon + 1, 2 * horizon + 1)
    assert context.sum() == 2 * horizon * (horizon + 1)
    assert not context[-1, horizon:].any()


def test_the_full_reach_of_the_paper():
    assert PixelCNN(1, None).context().shape == (19, 37)


def reference(params, pixels, features, horizon, blocks):
    """The local head in NumPy, pixel by pixel."""

    def linear(layer, x):
        dense = params["trunk"]
        for name in layer:
            dense = dense[name]
        return x @ dense["dense"]["kernel"] + dense["dense"]["bias"]

    def relu(x):
        return np.maximum(x, 0)

    padded = np.pad(pixels, ((horizon, 0), (horizon, horizon), (0, 0)))
    height, width = pixels.shape[:2]
    live = np.arange((horizon + 1) * (2 * horizon + 1)) < (horizon + 1) * (2 * horizon + 1) - (
        horizon + 1
    )
    output = np.zeros((height, width, 3))
    for i, j in np.ndindex(height, width):
        u = features[i, j] @ params["feature_branch"]["dense"]["kernel"]
        if horizon:
            window = padded[i : i + horizon + 1, j : j + 2 * horizon + 1]
            window = window.reshape(-1, window.shape[-1]) * live[:, None]
            kernel = params["image_branch"]["kernel"].reshape(*window.shape, -1)
            u = np.concatenate([np.einsum("pc,pck->k", window, kernel), u])
        u = relu(u)
        for block in range(1, blocks + 1):
            y = u
            for layer in (1, 2, 3):
                y = relu(linear((f"block{block}", f"layer{layer}"), y))
            u = u + y
        output[i, j] = linear(("output",), relu(linear(("hidden",), u)))
    return output


@pytest.mark.parametrize(("horizon", "blocks"), [(0, 1), (1, 2), (2, 0)])
def test_the_head_is_the_papers(horizon, blocks):
    head, variables = build(features=True, horizon=horizon, num_blocks=blocks)
    pixels, features = draw(2, 4, 5, 2), draw(2, 4, 5, 4, seed=1)
    found = head.apply(variables, pixels, features)
    params = jax.tree.map(np.asarray, variables["params"])
    for n in range(2):
        expected = reference(
            params, np.asarray(pixels)[n], np.asarray(features)[n], horizon, blocks
        )
        assert_allclose(found[n], expected, rtol=1e-10, atol=1e-12)


def test_a_factorised_head_does_not_look_at_pixels():
    head, variables = build(features=True, horizon=0)
    assert set(variables["params"]) == {"feature_branch", "trunk"}
    features = draw(1, 3, 3, 4)
    assert_array_equal(
        head.apply(variables, draw(1, 3, 3, 2), features), head.apply(variables, None, features)
    )


@pytest.mark.parametrize("with_features", [True, False])
def test_single_pixels_have_the_numbers_of_the_image(with_features):
    horizon = 2
    head, variables = build(features=with_features, horizon=horizon)
    pixels = draw(2, 4, 3, 2)
    features = draw(2, 4, 3, 4, seed=1) if with_features else None
    whole = head.apply(variables, pixels, features)
    padded = np.pad(pixels, ((0, 0), (horizon, 0), (horizon, horizon), (0, 0)))
    places = list(np.ndindex(2, 4, 3))
    contexts = np.stack([padded[n, i : i + 3, j : j + 5] for n, i, j in places])
    contexts[:, -1, horizon:] = 99.0  # what is not yet drawn
    here = None if features is None else features.reshape(-1, 4)
    found = head.apply(variables, jnp.asarray(contexts), here, method="at")
    assert_allclose(found, whole.reshape(-1, 3), rtol=1e-10, atol=1e-12)


def test_the_trunk_is_as_wide_as_what_is_joined():
    for features, width in ((True, 12), (False, 6)):
        _, variables = build(features=features, horizon=1)
        assert variables["params"]["trunk"]["hidden"]["dense"]["kernel"].shape == (width, width)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": -1}, "horizon.*must be an integer of at least 0"),
        ({"num_params": 0}, "num_params=.* must be"),
        ({"width": 0}, "width=.* must be"),
        ({"num_blocks": -1}, "num_blocks=.* must be an integer of at least 0"),
        ({"first_kernel": 1}, "first_kernel=.* must be an integer of at least 3"),
        ({"first_kernel": 6}, "first_kernel=6 is even.*choose 5 or 7"),
        ({"inner_kernel": 2}, "inner_kernel=2 is even"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        PixelCNN(**({"num_params": 3, "horizon": 1} | options))


@pytest.mark.parametrize(
    ("horizon", "pixels", "features", "message"),
    [
        (
            6,
            (1, 5, 6, 1),
            None,
            "horizon=6 does not fit images of 5 x 6; choose at most 5, or None",
        ),
        (0, (1, 5, 6, 1), None, "horizon=0 sees no pixels and needs features"),
        (1, None, (1, 5, 6, 2), "horizon=1 needs pixels"),
        (1, (1, 5, 6, 1), (1, 6, 5, 2), "must agree in N, H, W"),
    ],
)
def test_bad_inputs(horizon, pixels, features, message):
    arrays = [None if shape is None else jnp.zeros(shape) for shape in (pixels, features)]
    with pytest.raises(ValueError, match=message):
        PixelCNN(3, horizon).apply({}, *arrays)


def test_bad_contexts():
    with pytest.raises(ValueError, match="the full head needs whole images"):
        PixelCNN(3, None).apply({}, jnp.zeros((2, 2, 3, 1)), method="at")
    with pytest.raises(ValueError, match=r"contexts must have shape \(M, 3, 5, C\)"):
        PixelCNN(3, 2).apply({}, jnp.zeros((2, 2, 3, 1)), method="at")
