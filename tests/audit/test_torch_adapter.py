import sys
from collections import OrderedDict

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from recon_jax.audit.torch_adapter import torch_encoder

MEAN, STD = (0.25, 0.5), (0.5, 2.0)


def test_a_machine_without_pytorch_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"needs PyTorch: pip install 'recon-jax\[torch\]'"):
        torch_encoder(object())


@pytest.fixture(scope="module")
def torch():
    module = pytest.importorskip("torch", reason="needs PyTorch")
    module.set_num_threads(1)
    return module


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((4, 6, 5, 2)).astype(np.float32)


@pytest.fixture
def net(torch):
    """Convolution, batch norm, ReLU, mean, linear; the statistics are none of a new network."""
    torch.manual_seed(3)
    nn = torch.nn
    parts = OrderedDict(
        conv=nn.Conv2d(2, 4, 3, padding=1),
        norm=nn.BatchNorm2d(4),
        relu=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1),
        flat=nn.Flatten(),
        drop=nn.Dropout(0.5),
        last=nn.Linear(4, 3),
    )
    net = nn.Sequential(parts)
    net.norm.running_mean += 0.5
    return net


def channels_first(torch, images):
    normal = (images - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(np.ascontiguousarray(normal.transpose(0, 3, 1, 2)))


def test_features_are_those_of_evaluation_mode(torch, net, images):
    with torch.no_grad():
        expected = net.eval()(channels_first(torch, images)).numpy()
    net.train()
    net.drop.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    encoder = torch_encoder(net, mean=MEAN, std=STD)
    assert (encoder.name, encoder.jit, encoder.layers) == ("Sequential", False, None)
    for given in (images, jnp.asarray(images), images.astype(np.float64)):
        assert_allclose(encoder.features(given), expected, rtol=1e-5, atol=1e-6)
    assert isinstance(encoder.features(images), np.ndarray)
    assert (net.training, net.norm.training, net.drop.training) == (True, True, False)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch_encoder(net, name="mine").name == "mine"


def test_maps_have_their_channels_last(torch, net, images):
    with torch.no_grad():
        expected = net.conv(channels_first(torch, images)).numpy()
    found = torch_encoder(net.conv, mean=MEAN, std=STD).features(images)
    assert found.shape == (4, 6, 5, 4)
    assert_allclose(found[1, 2, 3], expected[1, :, 2, 3], rtol=1e-5, atol=1e-6)


def test_layers_come_in_the_order_they_are_called(torch, net, images):
    encoder = torch_encoder(net, layers=("last", "conv"), mean=MEAN, std=STD)
    found = encoder.layers(images)
    assert list(found) == ["conv", "last"]
    maps = torch_encoder(net.conv, mean=MEAN, std=STD).features(images)
    assert_allclose(found["conv"], maps, rtol=1e-5, atol=1e-6)
    assert_allclose(found["last"], encoder.features(images), rtol=1e-6)
    assert not any(part._forward_hooks for part in net.modules())


def several(torch):
    class Several(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.relu, self.unused = torch.nn.ReLU(), torch.nn.ReLU()
            self.attention = torch.nn.MultiheadAttention(2, 1)

        def forward(self, x):
            rows = self.relu(self.relu(x.mean((2, 3)) - 0.4) - 0.1)
            mixed, _ = self.attention(rows, rows, rows)
            return {"rows": rows, "mixed": mixed}

    return Several()


def test_layers_that_are_called_twice_or_return_several_things(torch, images):
    module = several(torch)
    encoder = torch_encoder(module, layers=("attention", "relu"), output="mixed")
    found = encoder.layers(images)
    assert list(found) == ["relu", "relu/2", "attention"]
    assert_allclose(found["relu/2"], np.maximum(found["relu"] - 0.1, 0), atol=1e-6)
    assert_allclose(found["attention"], encoder.features(images), rtol=1e-6)
    first = torch_encoder(module, output=lambda found: found["rows"][:, :1])
    assert_array_equal(first.features(images), found["relu/2"][:, :1])


def test_what_cannot_be_taken_is_refused(torch, images):
    module = several(torch)
    with pytest.raises(ValueError, match=r"Several returned a dict of 'rows', 'mixed', .*output="):
        torch_encoder(module).features(images)
    with pytest.raises(ValueError, match="the output of Several is list, not a tensor"):
        torch_encoder(module, output=lambda found: [found]).features(images)
    with pytest.raises(ValueError, match=r"Several did not call its layer\(s\) unused"):
        torch_encoder(module, layers=("relu", "unused")).layers(images)
    with pytest.raises(ValueError, match="has no submodule 'rely'; choose from relu, unused, att"):
        torch_encoder(module, layers=("relu", "rely"))
    with pytest.raises(ValueError, match=r"module is function, not a torch\.nn\.Module"):
        torch_encoder(lambda images: images)
    with pytest.raises(ValueError, match="std must be positive"):
        torch_encoder(module, std=0)
    with pytest.raises(ValueError, match=r"mean of shape .* does not fit images"):
        torch_encoder(module, mean=(0, 0, 0)).features(images)


def test_models_of_transformers(torch, images):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    config = transformers.ResNetConfig(
        num_channels=2, embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic"
    )
    model = transformers.ResNetModel(config).eval()
    encoder = torch_encoder(model, output="pooler_output", layers=["encoder.stages.0"])
    with torch.no_grad():
        plain = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        expected = model(plain).pooler_output.numpy()
    assert_allclose(encoder.features(images), expected.transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-6)
    assert encoder.layers(images)["encoder.stages.0"].shape == (4, 2, 2, 4)
    with pytest.raises(ValueError, match="of 'last_hidden_state', 'pooler_output', not one array"):
        torch_encoder(model).features(images)


@pytest.mark.parametrize(("dtype", "found"), [("bfloat16", "f4"), ("float64", "f8")])
def test_images_come_in_the_dtype_of_the_module(torch, net, images, dtype, found):
    expected = torch_encoder(net).features(images)
    features = torch_encoder(net.to(getattr(torch, dtype))).features(images)
    assert features.dtype == found
    assert_allclose(features, expected, atol=0.02 if found == "f4" else 1e-5)


def test_a_grey_image_that_must_not_be_written_to(torch):
    grey = jnp.linspace(0, 1, 2 * 3 * 4).reshape(2, 3, 4, 1)
    found = torch_encoder(torch.nn.Flatten()).features(grey)
    assert_array_equal(found, np.asarray(grey, np.float32).reshape(2, -1))


def test_random_networks_have_parameters_drawn_again(torch, net, images):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    encoder = torch_encoder(net, layers=("norm",))
    own = encoder.features(images)
    drawn = [encoder.fresh(seed).features(images) for seed in (0, 1, 0)]
    assert torch.equal(torch.rand(3), expected)
    assert_array_equal(encoder.features(images), own)
    assert_array_equal(drawn[0], drawn[2])
    for a, b in ((drawn[0], drawn[1]), (drawn[0], own), (drawn[1], own)):
        assert np.abs(a - b).max() > 1e-2
    torch.manual_seed(0)
    for part in net.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    assert_allclose(torch_encoder(net).features(images), drawn[0], rtol=1e-5, atol=1e-6)
    assert list(encoder.fresh(1).layers(images)) == ["norm"]


def test_parameters_that_cannot_be_drawn_again_need_a_function(torch, images):
    class WithToken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.token = torch.nn.Parameter(torch.randn(1, 4))

        def forward(self, x):
            return x.mean((1, 2, 3))[:, None] + self.token

    assert torch_encoder(WithToken()).fresh is None
    torch.manual_seed(4)
    expected = WithToken()
    encoder = torch_encoder(WithToken(), fresh=lambda seed: WithToken(), mean=0.5)
    found = encoder.fresh(4).features(images)
    assert_array_equal(found, torch_encoder(expected, mean=0.5).features(images))
    with pytest.raises(ValueError, match=r"what fresh\(2\) returns is int, not a torch"):
        torch_encoder(WithToken(), fresh=lambda seed: seed).fresh(2)
