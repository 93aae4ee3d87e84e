import jax
import jax.numpy as jnp
import pytest

from recon_jax.sizing import cost_of, saved_bytes, tree_bytes


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
    assert cost.loop_traffic == 6 * 3 * (4 * 3 * 5 * 5)


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


def test_bytes_of_trees():
    key = jax.eval_shape(lambda: jax.random.key(0))
    assert tree_bytes({"a": array(3, 5), "b": (array(2, dtype=jnp.uint8), key)}) >= 62
    assert tree_bytes(()) == 0
