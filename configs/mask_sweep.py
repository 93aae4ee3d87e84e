"""Recipe: does the closed form predict which masks serve the perception of trained autoencoders?

Paper: Balestriero & LeCun 2024, "Learning by Reconstruction Produces Uninformative Features For
Perception" (arXiv 2402.11337): the benefit of masking depends on the mask's shape and ratio and on
the dataset, and additive Gaussian noise has none. The paper predicts from linear algebra and
trains no masked autoencoder, so there are no numbers of it to stand beside ours.

    python -m experiments.mask_sweep --seeds=0,1,2                              # embedded, on a CPU
    python -m experiments.mask_sweep --config=configs/mask_sweep.py:cifar10_cpu \
        --config.data.source=npz:cifar10.npz --seeds=0,1,2                      # without TFDS
    python -m experiments.mask_sweep --config=configs/mask_sweep.py:cifar10 --seeds=0,1,2

Variants: embedded and cifar10_cpu are reduced for two CPU cores: 10,000 training images of 32 px,
an encoder of 3 blocks of width 64, 4 epochs. cifar10 is ViT-Tiny on all images for 400 epochs, an
accelerator's job.

All runs see the same number of images in the same order (equal budget in epochs, not in seconds:
masked runs encode fewer tokens). The rank K at which the closed form is compared is the width of
the encoder, chosen before any run; the tables show other ranks too. Nothing is tuned by the test
images: the settings of training and probes are the same in all cells.
"""

from ml_collections import ConfigDict

from configs.training import data_fields, masked_model_fields, probe_fields, train_fields
from configs.variants import named_config

CORRUPTIONS = (
    ("identity",),
    ("gaussian", 0.25),
    ("gaussian", 0.5),
    ("gaussian", 1.0),
    ("pixel_mask", 0.75),
    ("patch_subset", 0.5, 4),
    ("patch_subset", 0.75, 4),
    ("patch_subset", 0.9, 4),
    ("patch_subset", 0.5, 8),
    ("patch_subset", 0.75, 8),
    ("block_mask", 0.25, 4),
    ("block_mask", 0.5625, 4),  # 6 x 6 of the 8 x 8 patches
    ("grid_mask", 2, 4),  # a ratio of 0.75
)

CPU = {"data.train_limit": 10_000}

VARIANTS = {
    "embedded": {**CPU, "data.image_size": 32},
    "cifar10_cpu": {**CPU, "data.source": "tfds:cifar10", "data.test_limit": 5000},
    "cifar10": {
        "data.source": "tfds:cifar10",
        "model.width": 192,
        "model.depth": 12,
        "model.heads": 3,
        "model.decoder_width": 96,
        "model.decoder_depth": 4,
        "model.decoder_heads": 3,
        "train.epochs": 400,
        "train.batch_size": 1024,
        "train.warmup_steps": 960,  # 20 epochs
        "train.augment": "crop_flip",
        "ranks": (8, 32, 192, 512),
        "rank": 192,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    config = named_config(variant, VARIANTS)
    config.mapping = "pmap"  # over devices; or "shard_map", with the same results
    config.data = data_fields()
    config.train = train_fields(
        epochs=4,
        batch_size=64,
        learning_rate=1e-3,
        weight_decay=0.05,
        schedule="cosine",
        warmup_steps=60,
        evaluate_every=1000,
    )

    # What images are hidden by: names and arguments of `recon_jax.spectral.make_corruption`.
    config.corruptions = CORRUPTIONS
    # "pixels", as the closed form has it, or "normalized": every patch to mean 0 and variance 1.
    config.targets = "pixels"

    config.model = masked_model_fields(depth=3, heads=2, decoder_width=32, decoder_heads=2)

    # K of the closed form that is compared with the probes: as many latents as features.
    config.rank = 64
    config.ranks = (8, 32, 64, 256)  # of the table

    config.probe = probe_fields()

    # Of the statistics and the spectrum; accelerators without float64 need float32.
    config.precision = "float64"

    config.update_from_flattened_dict(VARIANTS[config.name])
    return config
