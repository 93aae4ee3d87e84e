import jax
import jax.numpy as jnp
import pytest

from recon_jax.models.upsampling import UpsamplingConv, halved, output_padding


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (7, 8), (8, 7), (13, 13)])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_every_size_comes_back_from_its_half(size, kernel_size):
    x = jnp.ones((1, *halved(size), 3))
    up = UpsamplingConv(2, kernel_size, size, use_bias=True)
    y, _ = jax.eval_shape(lambda: up.init_with_output(jax.random.key(0), x))
    assert y.shape == (1, *size, 2)


def test_output_padding_is_zero_for_odd_sides():
    assert output_padding((4, 4), (7, 8)) == [0, 1]


@pytest.mark.parametrize("size", [(6, 8), (9, 8), (8, 16)])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match="each side n can become"):
        output_padding((4, 4), size)
