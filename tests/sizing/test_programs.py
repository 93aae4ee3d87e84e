import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.sizing import cost_of, saved_bytes, tree_bytes
from recon_jax.sizing.programs import later_passes


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def test_a_matrix_product_is_2mnk():
    cost = cost_of(lambda a, b: a @ b, array(64, 32), array(32, 16))
    assert cost.flops == cost.dot_flops == 2 * 64 * 32 * 16
    assert cost.conv_flops == 0
    arrays = 4 * (64 * 32 + 32 * 16 + 64 * 16)
    assert cost.traffic == 2 * arrays  # as arguments and result, and in the product


def test_elementwise_operations_are_fused():
    x = array(1000, dtype=jnp.bfloat16)
    assert cost_of(lambda x: jnp.tanh(x) * 2 + x, x).traffic == 2 * 2000


def test_batched_products_and_scans_are_multiplied_out():
    def powers(x):
        return jax.lax.scan(lambda carry, _: (carry @ carry, None), x, None, length=7)[0]

    cost, once = cost_of(powers, array(3, 5, 5)), 3 * 2 * 5**3
    assert cost.dot_flops == 7 * once
    assert cost.loop_flops == 6 * once
    assert 7 * once <= cost.flops < 7.2 * once
    arrays = 4 * 3 * 5 * 5
    assert cost.traffic == 2 * arrays + 7 * 3 * arrays


@pytest.mark.parametrize(
    ("unroll", "left_out"), [(1, 6), (2, 4), (3, 3), (7, 0), (9, 0), (True, 0)]
)
def test_unrolled_passes_are_counted_by_xla(unroll, left_out):
    def powers(x):
        return jax.lax.scan(lambda y, _: (y @ y, None), x, None, length=7, unroll=unroll)[0]

    cost, once = cost_of(powers, array(20, 20)), 2 * 20**3
    assert cost.loop_flops == left_out * once
    assert 7 * once <= cost.flops < 7.01 * once


def layers(x, depth, unroll=1):
    """Products and elementwise work, as in a network whose equal blocks are scanned over."""

    def body(carry, w):
        inner = lambda y, _: (y * 2 + 1, None)  # noqa: E731
        return jax.lax.scan(inner, carry @ w, None, length=4, unroll=unroll)[0], None

    weights = jnp.ones((depth, *x.shape), x.dtype)
    return jax.lax.scan(body, x, weights, unroll=unroll)[0]


def test_what_is_elementwise_counts_in_every_pass_of_nested_scans():
    cost = cost_of(lambda x: layers(x, 5), array(8, 8))
    assert cost.dot_flops == 5 * 2 * 8**3
    # Apart from counting passes, it is the same program as without a loop.
    plain = cost_of(lambda x: layers(x, 5, unroll=True), array(8, 8))
    wanted = 5 * (2 * 8**3 + 4 * 2 * 8**2)
    assert plain.loop_flops == 0
    assert wanted <= plain.flops < 1.15 * wanted
    assert plain.flops <= cost.flops < 1.15 * plain.flops


def test_later_passes_are_those_that_xla_leaves_out():
    found = later_passes(lambda x: layers(x, 5), array(8, 8))
    assert [later.count for later in found] == [4, 5 * 3]
    sides = [sorted({kind.shape for kind in later.types}) for later in found]
    assert sides == [[(8, 8)], [(8, 8)]]
    (out,) = found[1].body(jnp.full((8, 8), 0.5, jnp.float32))
    np.testing.assert_array_equal(out, np.full((8, 8), 2.0))
    assert [later.count for later in later_passes(lambda x: layers(x, 1), array(8, 8))] == [3]
    assert later_passes(jnp.tanh, array(8)) == []
    # Together they are what XLA counts of the program without loops, here after optimisation.
    compiled = jax.jit(lambda x: layers(x, 5)).lower(array(8, 8)).compile()
    total = compiled.cost_analysis()["flops"]
    for body, types, count in found:
        total += count * jax.jit(body).lower(*types).compile().cost_analysis()["flops"]
    assert total == pytest.approx(5 * (2 * 8**3 + 4 * 2 * 8**2), rel=0.15)


def test_slices_and_updates_move_their_part_alone():
    def copied(x):
        part = jax.lax.dynamic_slice_in_dim(x, 3, 2)
        return jax.lax.dynamic_update_slice_in_dim(x, part, 7, 0)

    part, whole = 4 * 2 * 5, 4 * 100 * 5
    assert cost_of(copied, array(100, 5)).traffic == 2 * whole + 2 * (2 * part)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_and_their_gradients(stride):
    def total(images, kernel):
        out = jax.lax.conv_general_dilated(
            images,
            kernel,
            (stride, stride),
            [(1, 1)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jnp.square(out).sum()

    types = array(4, 16, 16, 8), array(3, 3, 8, 12)
    forward = 2 * 4 * (16 // stride) ** 2 * 9 * 8 * 12
    assert cost_of(total, *types).conv_flops == forward
    step = cost_of(jax.grad(total, (0, 1)), *types)
    assert step.conv_flops == 3 * forward
    # XLA leaves out what falls on the padding.
    assert 0.8 < step.flops / step.conv_flops < 1


def test_a_grouped_convolution_is_as_much_less():
    def grouped(images, kernel):
        return jax.lax.conv_general_dilated(
            images,
            kernel,
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=4,
        )

    cost = cost_of(grouped, array(2, 6, 6, 8), array(3, 3, 2, 8))
    assert cost.flops == cost.conv_flops == 2 * 2 * 4 * 4 * 9 * 2 * 8


def test_what_products_leave_for_the_gradient():
    def loss(params, x):
        hidden = jnp.tanh(x @ params[0])
        return jnp.square(hidden @ params[1]).sum(), None

    params = [array(6, 7), array(7, 3)]
    # The outputs of both products; the input belongs to the caller.
    assert saved_bytes(loss, params, array(10, 6)) == 4 * 10 * (7 + 3)


@pytest.mark.parametrize("unroll", [1, True])
def test_what_a_scan_over_recomputed_blocks_leaves(unroll):
    """Products of every block, whatever the blocks themselves keep."""

    def loss(params, x):
        keep = jax.checkpoint_policies.nothing_saveable
        body = jax.checkpoint(lambda y, w: (jnp.tanh(y @ w), None), policy=keep)
        return jnp.square(jax.lax.scan(body, x, params, unroll=unroll)[0]).sum(), None

    assert saved_bytes(loss, array(5, 6, 6), array(10, 6)) >= 4 * 5 * 10 * 6


def test_bytes_of_trees():
    key = jax.eval_shape(lambda: jax.random.key(0))
    assert tree_bytes({"a": array(3, 5), "b": (array(2, dtype=jnp.uint8), key)}) >= 62
    assert tree_bytes(()) == 0
