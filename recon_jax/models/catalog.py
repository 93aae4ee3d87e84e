"""Models by name, for configs."""

from __future__ import annotations

import inspect
from functools import partial

import flax.linen as nn

from recon_jax.models.alexnet import AlexNet
from recon_jax.models.conv_autoencoder import ConvAutoencoder
from recon_jax.models.efficientnet import EfficientNetB0
from recon_jax.models.lenet import LeNet
from recon_jax.models.masked_autoencoder import MaskedAutoencoder
from recon_jax.models.mlp import MLP
from recon_jax.models.mlp_autoencoder import MLPAutoencoder
from recon_jax.models.projection import simclr_conv, simclr_mlp, simclr_resnet
from recon_jax.models.resnet import ResNet
from recon_jax.models.resnet9 import ResNet9
from recon_jax.models.resnet_autoencoder import ResNetAutoencoder
from recon_jax.models.vgg import VGG
from recon_jax.models.vit_classifier import ViTClassifier

MODELS = {
    "mlp": MLP,
    "lenet": LeNet,
    "alexnet": AlexNet,
    "resnet9": ResNet9,
    "vgg11": partial(VGG, 11, use_norm=False),
    "vgg13": partial(VGG, 13, use_norm=False),
    "vgg16": partial(VGG, 16, use_norm=False),
    "vgg19": partial(VGG, 19, use_norm=False),
    "vgg11_bn": partial(VGG, 11, use_norm=True),
    "vgg13_bn": partial(VGG, 13, use_norm=True),
    "vgg16_bn": partial(VGG, 16, use_norm=True),
    "vgg19_bn": partial(VGG, 19, use_norm=True),
    "resnet18": partial(ResNet, 18),
    "resnet34": partial(ResNet, 34),
    "resnet50": partial(ResNet, 50),
    "efficientnet_b0": EfficientNetB0,
    "vit_tiny": partial(ViTClassifier, width=192, depth=12, heads=3),
    "vit_small": partial(ViTClassifier, width=384, depth=12, heads=6),
    "vit_base": partial(ViTClassifier, width=768, depth=12, heads=12),
    "vit_large": partial(ViTClassifier, width=1024, depth=24, heads=16),
    "mlp_autoencoder": MLPAutoencoder,
    "conv_autoencoder": ConvAutoencoder,
    "resnet18_autoencoder": partial(ResNetAutoencoder, depth=18),
    "resnet34_autoencoder": partial(ResNetAutoencoder, depth=34),
    "mae_vit_tiny": partial(MaskedAutoencoder, width=192, depth=12, heads=3),
    "mae_vit_small": partial(MaskedAutoencoder, width=384, depth=12, heads=6),
    "mae_vit_base": partial(MaskedAutoencoder, width=768, depth=12, heads=12),
    "mae_vit_large": partial(MaskedAutoencoder, width=1024, depth=24, heads=16),
    "simclr_mlp": simclr_mlp,
    "simclr_conv": simclr_conv,
    "simclr_resnet18": partial(simclr_resnet, 18),
    "simclr_resnet34": partial(simclr_resnet, 34),
    "simclr_resnet50": partial(simclr_resnet, 50),
}


# Fields of every Flax module, which are not options.
FLAX_FIELDS = ("parent", "name")


def _options(constructor: partial) -> tuple[list[str], list[str]]:
    """Names of the options left to choose, and of those among them that must be given."""
    given = (*FLAX_FIELDS, *constructor.keywords)
    options = inspect.signature(constructor).parameters.values()
    options = [option for option in options if option.name not in given]
    required = [option.name for option in options if option.default is option.empty]
    return [option.name for option in options], required


def make_model(name: str, num_classes: int | None = None, **options) -> nn.Module:
    """Build a model from its name and options.

    Args:
      name: a key of `MODELS`.
      num_classes: width of the logits of a classifier; autoencoders and encoders with a projector
        ("simclr_...") have none.
      **options: attributes of the model's class, such as `stem="imagenet"` (`ResNet`) or
        `image_shape=(32, 32, 3), latent_size=64` (autoencoders, which need the first, as vision
        transformers do), or options of `projection.simclr_mlp` and its like.

    Returns:
      A Flax module: `variables = model.init(key, images)`, `model.apply(variables, images)`.

    Raises:
      ValueError: for an unknown name or option, listing the known ones, a missing option, or a
        value out of range.

    >>> make_model("lenet", num_classes=10).num_classes
    10
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; choose one of {', '.join(MODELS)}")
    constructor = partial(MODELS[name])
    if num_classes is not None:
        options["num_classes"] = num_classes
    allowed, required = _options(constructor)
    unknown = [option for option in options if option not in allowed]
    if unknown:
        raise ValueError(
            f"model {name!r} has no option {', '.join(unknown)}; choose from {', '.join(allowed)}"
        )
    missing = [option for option in required if option not in options]
    if missing:
        raise ValueError(f"model {name!r} needs {', '.join(missing)}")
    return constructor(**options)
