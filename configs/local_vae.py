"""Recipe: what the latent of a variational autoencoder keeps when its decoder sees nearby pixels.

Paper: Zhang, Xiao, Paige & Barber 2022, "Improving VAE-based Representation Learning" (arXiv
2205.14539), and the released code. Its tables are not known here, apart from one line of a
notebook: CIFAR-10, latent of 64, full decoder, 3.0328 bits per dimension, MLP probe 75.24%, linear
SVM 71.46%.

    python -m experiments.local_vae --seeds=0,1,2                              # embedded, on a CPU
    python -m experiments.local_vae --config=configs/local_vae.py:mnist_cpu \
        --config.data.source=npz:mnist.npz --seeds=0,1,2                          # without TFDS
    python -m experiments.local_vae --config=configs/local_vae.py:cifar10

Variants: embedded and mnist_cpu are reduced for two CPU cores: 4,000 training images of 14 px, 64
levels, a small head. mnist, fashion_mnist, svhn and cifar10 have the paper's networks, likelihood
and lengths; jobs for an accelerator. binary_mnist has two levels and Bernoulli pixels.

Differences from the paper: probes are logistic regression (the paper: a linear SVM) and nearest
neighbours (the paper: none); the CPU variants have layer norm instead of batch norm, and a warm-up
of the KL divergence, without which local decoders nearly collapsed at this size.
"""

from ml_collections import ConfigDict

from configs.vae import CPU, PAPER_COLOUR, vae_fields
from configs.variants import named_config

VARIANTS = {
    "embedded": CPU,
    "mnist_cpu": {**CPU, "data.source": "tfds:mnist"},
    "mnist": {"data.source": "tfds:mnist"},
    "binary_mnist": {
        "data.source": "tfds:mnist",
        "likelihood.name": "bernoulli",
        "likelihood.levels": 2,
    },
    "fashion_mnist": {"data.source": "tfds:fashion_mnist"},
    "svhn": {**PAPER_COLOUR, "data.source": "tfds:svhn_cropped"},
    "cifar10": {**PAPER_COLOUR, "data.source": "tfds:cifar10", "train.augment": "crop_flip"},
}


def get_config(variant: str = "") -> ConfigDict:
    config = named_config(variant, VARIANTS)
    config.update(vae_fields())
    # "factorised", "local-H" for a horizon of H pixels, "full".
    config.decoders = ("factorised", "local-1", "local-2", "full")
    config.latent_sizes = (32,)
    config.num_pictures = 8  # of samples and reconstructions
    config.update_from_flattened_dict(VARIANTS[config.name])
    if config.likelihood.name != "logistic_mixture":
        del config.likelihood.num_components
    return config
