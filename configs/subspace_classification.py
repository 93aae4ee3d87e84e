"""Recipe: do classifiers learn from what reconstruction learns first, or from what it leaves?

Paper: Balestriero & LeCun 2024, "Learning by Reconstruction Produces Uninformative Features For
Perception" (arXiv 2402.11337), Fig. 1, top: ResNet9 on TinyImageNet, trained from scratch on images
projected on the top or the bottom of their spectrum: 45% accuracy from the top 90% of the variance,
55% from the bottom 20%.

    python -m experiments.subspace_classification --seeds=0,1           # embedded, on a CPU
    python -m experiments.subspace_classification \
        --config=configs/subspace_classification.py:tiny_imagenet       # the paper's, 1 accelerator
    python -m experiments.subspace_classification \
        --config=configs/subspace_classification.py:cifar10_cpu \
        --config.data.source=npz:cifar10.npz --seeds=0,1                # without TFDS

Variants: embedded and cifar10_cpu are reduced for two CPU cores: 10,000 training images, ResNet9
with an eighth of the channels, 5 epochs (embedded: 3) in batches of 128 instead of 50 in batches of
512, five thresholds a side; tiny_imagenet20_cpu has two, one network, and images of 32 px.
tiny_imagenet, cifar10, cifar100, svhn and fashion_mnist are the paper's: 50 epochs, ResNet9 with 64
to 1028 channels and MLP, the published grids of eight thresholds a side, with and without
augmentation, 66 runs a seed.

Differences from the paper: weight decay leaves biases and norm scales alone; computation in float32
(bfloat16 with --config.train.dtype=bfloat16) instead of float16; cross-entropy, which the code of
the figure's date has, and --config.label_loss=one_hot_error for the later one.
"""

from ml_collections import ConfigDict

from configs.training import data_fields, train_fields
from configs.variants import named_config

# Per cent of the variance kept, ascending: equal numbers on both sides where both sides exist.
TOP = (50.0, 70.0, 80.0, 90.0, 95.0)
BOTTOM = (5.0, 10.0, 20.0, 50.0, 70.0)
NARROW = {"widths": (8, 16, 32, 64, 128)}

CPU = {
    "data.train_limit": 10_000,
    "grid": "given",
    "train.epochs": 5,
    "train.batch_size": 128,
    "train.evaluate_every": 5,
}

VARIANTS = {
    "embedded": {
        "data.source": "embedded",
        **CPU,
        "train.epochs": 3,
        "train.evaluate_every": 3,
    },
    "cifar10_cpu": {
        "data.source": "tfds:cifar10",
        "data.test_limit": 5000,
        **CPU,
        # The first component has 48% of the variance: no bottom lies between 52% and everything.
        "bottom": (5.0, 10.0, 20.0, 30.0, 50.0),
    },
    "tiny_imagenet20_cpu": {
        "data.source": "npz:tiny_imagenet20.npz",
        "data.image_size": 32,
        **CPU,
        "top": (70.0, 90.0),
        "bottom": (10.0, 20.0),
        "setups": (("resnet9", NARROW, "crop_flip"),),
    },
    "tiny_imagenet": {"data.source": "folder:tiny-imagenet-200"},
    "cifar10": {"data.source": "tfds:cifar10"},
    "cifar100": {"data.source": "tfds:cifar100"},
    "svhn": {"data.source": "tfds:svhn_cropped"},
    "fashion_mnist": {"data.source": "tfds:fashion_mnist"},
}


def get_config(variant: str = "") -> ConfigDict:
    config = named_config(variant, VARIANTS)
    reduced = "grid" in VARIANTS[config.name]
    config.mapping = "pmap"  # over devices; or "shard_map", with the same results
    config.data = data_fields()
    config.train = train_fields(augment="none")

    # Networks to train: model, its options, augmentation (which then replaces train.augment).
    options = NARROW if reduced else {}
    config.setups = (
        ("resnet9", options, "crop_flip"),
        ("resnet9", options, "none"),
        ("mlp", {}, "crop_flip"),
        ("mlp", {}, "none"),
    )
    config.label_loss = "cross_entropy"

    # "published": eight thresholds a side, from the spectrum; "given": the two lists below.
    config.grid = "published"
    config.top = TOP  # per cent of the variance below which the top stays
    config.bottom = BOTTOM  # per cent of the variance left to the bottom
    # The paper's comparison: top 90% against bottom 20%.
    config.pair = (90.0, 20.0)
    # Of the statistics and the spectrum; float32 is 4 times faster at D = 12,288.
    config.precision = "float64"
    config.strips = 8  # images of the figure

    config.update_from_flattened_dict(VARIANTS[config.name])
    return config
