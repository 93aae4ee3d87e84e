import functools

import numpy as np
import pytest

from recon_jax.audit import Encoder, as_encoder
from recon_jax.audit.encoders import fresh_encoder


def mean_colour(images):
    return images.mean((1, 2))


class Network:
    def apply(self, variables, images):
        return images * variables


def test_names_come_from_the_function():
    assert as_encoder(mean_colour).name == "mean_colour"
    assert as_encoder(functools.partial(functools.partial(mean_colour))).name == "mean_colour"
    assert as_encoder(functools.partial(Network().apply, 2)).name == "Network"
    assert as_encoder(lambda images: images).name == "encoder"
    assert as_encoder(mean_colour, name="colours").name == "colours"


def test_options_replace_those_of_an_encoder():
    encoder = as_encoder(mean_colour, layers=np.sin, jit=False)
    assert encoder == Encoder("mean_colour", mean_colour, np.sin, None, False)
    assert as_encoder(encoder) == encoder
    changed = as_encoder(encoder, name="b", fresh=np.cos, jit=True)
    assert changed == Encoder("b", mean_colour, np.sin, np.cos, True)


def test_whether_to_compile_is_left_open():
    assert as_encoder(mean_colour).jit is None
    assert Encoder("a", mean_colour).jit is True


def test_fresh_encoders_are_called_random_and_have_no_others():
    made = fresh_encoder(as_encoder(mean_colour, fresh=lambda seed: np.sin), 3)
    assert made.name == "mean_colour, untrained"
    assert made.features is np.sin
    assert made.fresh is None
    nested = fresh_encoder(
        as_encoder(mean_colour, fresh=lambda seed: Encoder(f"x{seed}", np.cos, fresh=np.sin)), 3
    )
    assert nested == Encoder("mean_colour, untrained", np.cos)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encode": np.zeros(3)}, "encode is ndarray, not a function"),
        ({"encode": mean_colour, "layers": "conv1"}, "layers is str"),
        ({"encode": mean_colour, "fresh": 3}, "fresh is int"),
        ({"encode": mean_colour, "name": ""}, "empty name"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        as_encoder(**arguments)
