"""Recipe: in which order does an autoencoder learn the spectrum, and when does perception come?

Paper: Balestriero & LeCun 2024, "Learning by Reconstruction Produces Uninformative Features For
Perception" (arXiv 2402.11337), Fig. 1 bottom: reconstructions of training images, projected on the
eigenvectors of the data, at epochs 0 to 49. Read off its image: the top 50 to 100 of 3,072 modes at
first, 450 to 500 with 512 latents at the end. No numbers are printed, and there is no probe.

    python -m experiments.learning_order --seeds=0,1                       # embedded, on a CPU
    python -m experiments.learning_order --config=configs/learning_order.py:cifar10 # accelerator
    python -m experiments.learning_order --config=configs/learning_order.py:cifar10_cpu \
        --config.data.source=npz:cifar10.npz --seeds=0,1                   # without TFDS

Variants: embedded and cifar10_cpu are reduced for two CPU cores: 10,000 training images, fewer
latents and epochs, and of cifar10_cpu two networks; each about five minutes a seed on free cores.
cifar10, cifar100, svhn and fashion_mnist are the paper's setting: convolutional and MLP
autoencoder, depths 3 and 5, 512 latents, 50 epochs, AdamW, OneCycle, batch 256.

Expected: the front moves from the top of the spectrum downwards and stops near the number of
latents. Modes come in the order of their variance (embedded, depth 3: rank correlation 0.93 to
0.99), by AdamW closer together than by gradient flow. A linear probe reads the latents of an
untrained encoder about as well or better.

Differences from the paper: weight decay leaves biases and norm scales alone; data and
reconstructions are measured on the same images, all of them, and shown as means over them; epoch 0
is before training, epoch e after e epochs.
"""

from ml_collections import ConfigDict

from configs.training import data_fields, train_fields
from configs.variants import named_config

PAPER_EPOCHS = (0, 1, 2, 3, 4, 5, 8, 12, 20, 30, 49)

CPU = {
    "data.train_limit": 10_000,
    "train.epochs": 20,
    "epochs": (0, 1, 2, 3, 4, 5, 8, 12, 16, 20),
}

VARIANTS = {
    "embedded": {**CPU, "latent_size": 64},
    "cifar10_cpu": {
        **CPU,
        "data.source": "tfds:cifar10",
        "data.test_limit": 5000,
        "models": (("conv_autoencoder", 3), ("mlp_autoencoder", 3)),
        "train.epochs": 10,
        "epochs": (0, 1, 2, 3, 4, 5, 8, 10),
        "latent_size": 128,
        "first_width": 16,
    },
    "cifar10": {"data.source": "tfds:cifar10"},
    "cifar100": {"data.source": "tfds:cifar100"},
    "svhn": {"data.source": "tfds:svhn_cropped"},
    "fashion_mnist": {"data.source": "tfds:fashion_mnist"},
}


def get_config(variant: str = "") -> ConfigDict:
    config = named_config(variant, VARIANTS)
    config.mapping = "pmap"  # over devices; or "shard_map", with the same results
    config.data = data_fields()
    config.train = train_fields(batch_size=256)

    # Autoencoders to train: name and depth, the DCAE and MLPAE of the paper.
    config.models = (
        ("conv_autoencoder", 3),
        ("conv_autoencoder", 5),
        ("mlp_autoencoder", 3),
        ("mlp_autoencoder", 5),
    )
    config.latent_size = 512  # of a convolutional autoencoder: channels of its latent map
    config.first_width = 32  # channels of the first convolution

    # When spectrum and probe are measured; 0 is before training.
    config.epochs = PAPER_EPOCHS
    # A mode counts as learned once this fraction of it is reconstructed.
    config.fraction = 0.5
    # a_k(0) of gradient flow; of its times it changes nothing but the unit, which is fitted.
    config.initial = 1e-3
    # Reconstruction and perception have come once they reach this fraction of their last value.
    config.arrival = 0.95

    config.probe = ConfigDict()  # multinomial logistic regression on standardised latents
    # "flatten": all entries of a latent map, which can be more than there are pixels;
    # "average": the mean of each channel over the map, which forgets where things are.
    config.probe.latent_map = "flatten"
    config.probe.regularization = 1e-3
    config.probe.max_iterations = 300

    # Of the statistics and the spectrum; accelerators without float64 need float32.
    config.precision = "float64"

    config.update_from_flattened_dict(VARIANTS[config.name])
    return config
