"""Recipe: does deafness to smooth deformations, not to noise, go with a low test error?

Papers: Petrini, Favero, Geiger & Wyart 2021, "Relative stability toward diffeomorphisms indicates
performance in deep nets" (arXiv 2105.02468), and Tomasini, Petrini, Cagnetta & Wyart 2022, "How
deep convolutional neural networks lose spatial information with training" (arXiv 2210.01506).
Networks at initialisation and trained, with and without noise on their inputs; sensitivities of the
output and of every layer to deformations (D), to noise of the same norm (G) and their ratio R.

    python -m experiments.diffeo_stability --seeds=0,1,2                   # embedded, on a CPU
    python -m experiments.diffeo_stability --config=configs/diffeo_stability.py:cifar10_cpu \
        --config.data.source=npz:cifar10.npz --seeds=0,1,2                 # without TFDS
    python -m experiments.diffeo_stability --config=configs/diffeo_stability.py:cifar10 \
        --seeds=0,1,2,3                                                    # accelerator

Variants: cifar10 is the papers' setting: the 15 networks of the first, all images, 250 epochs,
batch 128, SGD with momentum 0.9 and decay 5e-4, cosine whose half-period is 0.8 of the run, crop
and flip, four seeds; noise of standard deviation 0.01 to 100 on the inputs of some of them.
embedded and cifar10_cpu are reduced for two CPU cores: 10,000 training images, narrow networks, 10
and 15 epochs of a cosine that ends at 0, two levels of noise.

Differences from the papers: pixels are normalised by the channels' mean and deviation of the
training images at hand; crops of the reflected image; no dropout in AlexNet; networks without batch
norm at a lower rate with a warm-up, which He initialisation of VGG needs; fully connected networks
of width 64 are plain perceptrons with PyTorch's initialisation, not scaled as for the neural
tangent kernel; the last state is measured, not the one that is best on test images; float32.
"""

from ml_collections import ConfigDict

from configs.training import data_fields, train_fields
from configs.variants import named_config

# Networks without batch norm, and fully connected ones: what replaces fields of `train`.
PLAIN = {"learning_rate": 0.05, "warmup_epochs": 1.0}
DENSE = {"optimizer": "adam", "schedule": "constant", "learning_rate": 1e-3, "weight_decay": 0.0}
DENSE |= {"momentum": 0.0}


def dense_nets() -> tuple:
    """Two, four and six hidden layers of width 64."""
    return tuple(
        (f"fc{hidden}", "mlp", {"depth": hidden + 2, "width": 64, "use_norm": False}, DENSE)
        for hidden in (2, 4, 6)
    )


def published_nets() -> tuple:
    """The 15 networks of Petrini et al. 2021."""
    plain = (
        ("lenet", {}),
        ("alexnet", {"dropout": 0.0}),
        ("vgg11", {}),
        ("vgg16", {}),
        ("vgg19", {}),
    )
    normed = ("vgg11_bn", "vgg16_bn", "vgg19_bn", "resnet18", "resnet34", "resnet50")
    normed += ("efficientnet_b0",)
    return (
        *dense_nets(),
        *((name, name, options, PLAIN) for name, options in plain),
        *((name, name, {}, {}) for name in normed),
    )


def narrow_nets() -> tuple:
    """Eight networks for two CPU cores; digits are padded to the 32 pixels that VGG needs."""
    narrow, padded = {"width": 16}, {"width": 16, "pad_to": 32}
    return (
        *dense_nets(),
        ("lenet", "lenet", {}, PLAIN),
        ("alexnet", "alexnet", {**narrow, "pad_to": 32, "dropout": 0.0}, PLAIN),
        ("vgg11", "vgg11", padded, PLAIN),
        ("vgg11_bn", "vgg11_bn", padded, {}),
        ("resnet18", "resnet18", {"width": 8}, {}),
    )


CPU = {
    "data.train_limit": 10_000,
    "nets": narrow_nets(),
    "noise_nets": ("lenet", "alexnet"),
    "noise_stds": (10.0, 30.0),
    "train.half_period": 1.0,
    "train.log_every": 78,
    "train.checkpoint_every": 5,
}
REDUCED = "10,000 images, AlexNet and VGG a quarter and ResNet18 an eighth as wide"

VARIANTS = {
    "embedded": {
        **CPU,
        "train.epochs": 10,
        "reduction": f"{REDUCED}, 10 epochs; the papers have all of CIFAR-10, 250 epochs",
    },
    "cifar10_cpu": {
        **CPU,
        "data.source": "tfds:cifar10",
        "data.test_limit": 5000,
        "train.epochs": 15,
        "reduction": f"{REDUCED}, 15 epochs; the papers have 50,000 images and 250 epochs",
    },
    "cifar10": {"data.source": "tfds:cifar10"},
}


def get_config(variant: str = "") -> ConfigDict:
    config = named_config(variant, VARIANTS)
    config.mapping = "pmap"  # over devices; or "shard_map", with the same results
    config.reduction = ""  # how it is less than the papers' setting, for the table
    config.data = data_fields()

    # Networks: name, model, its options, and fields of `train` that are its own.
    config.nets = published_nets()
    # Names of networks that are also trained with noise std N(0, 1) / sqrt(D) on their D inputs,
    # new at every visit and after normalisation, which gives images norms of about sqrt(D).
    config.noise_nets = ("lenet", "alexnet", "vgg11_bn", "resnet18")
    config.noise_stds = (0.01, 0.1, 1.0, 10.0, 30.0, 100.0)

    config.train = train_fields(
        epochs=250,
        batch_size=128,
        optimizer="sgd",
        momentum=0.9,
        learning_rate=0.1,
        weight_decay=5e-4,
        schedule="cosine",
        half_period=0.8,
        warmup_epochs=0.0,
        augment="crop_flip",
        log_every=100,
        checkpoint_every=10,
    )

    config.measure = ConfigDict()  # see recon_jax.diffeo.probe_images
    config.measure.images = 500  # of the test split, drawn once
    config.measure.cutoff = 3
    config.measure.displacement = 1.0
    config.measure.interpolation = "bilinear"
    config.shuffles = 3  # of the channels of each trained convolutional network

    config.update_from_flattened_dict(VARIANTS[config.name])
    return config
