"""Recipe: mask-reconstruction pretraining against supervision from scratch, with few labels or all.

Question: Pan et al. 2023, "Towards Understanding Why Mask-Reconstruction Pretraining Helps in
Downstream Tasks" (arXiv 2206.03826), hold that pretraining captures all features of a class and
supervision a random part of them, so that the fine-tuned network is the better one. Their numbers
(ImageNet, ResNet-50, 300 epochs of pretraining and 100 of fine-tuning) are not published here, and
no code was released.

    python -m experiments.pretraining_helps --seeds=0,1,2                # embedded, on a CPU
    python -m experiments.pretraining_helps --seeds=0,1,2 \
        --config=configs/pretraining_helps.py:cifar10_cpu \
        --config.data.source=npz:cifar10.npz                             # without TFDS
    python -m experiments.pretraining_helps --seeds=0,1,2 \
        --config=configs/pretraining_helps.py:cifar10

Variants: embedded and cifar10_cpu are reduced for two CPU cores; cifar10 is ViT-Tiny with patches
of 2, an accelerator's job. Pretraining sees all training images without labels. Its target is what
patches hide; another --config.corruption, such as "('gaussian', 1.0)", makes it a denoiser.

All networks and all shares of labels have the same recipe of supervised training. Its length is
counted in passes over as many images as the whole training set has, however few are labelled. From
scratch there is a second network, trained for as long as pretraining and fine-tuning together, in
passes over images: a step of pretraining, which computes a quarter of the encoder's tokens, costs
about half of a supervised one, so this favours the network from scratch.

The rates of embedded and cifar10_cpu are those of `configs.spectral_targets`, times sqrt(32 / 128)
for their smaller batch. Three epochs of fine-tuning are a second choice: after one, the first, the
fine-tuned network was behind a linear probe of the encoder that it began with. So is centring the
features of Eigen-CAM, without which the maps marked the background.
"""

from ml_collections import ConfigDict

from configs.training import (
    MASKED_TINY,
    data_fields,
    masked_model_fields,
    probe_fields,
    train_fields,
)
from configs.variants import named_config

CPU = {
    "data.train_limit": 10_000,
    "data.test_limit": 2_000,
    "finetuning.epochs": 3,
    "reduction": "few images and epochs, a small transformer, no augmentation",
}

VARIANTS = {
    "embedded": CPU,
    "cifar10_cpu": {**CPU, "data.source": "tfds:cifar10", "train.epochs": 8},
    "cifar10": {
        "data.source": "tfds:cifar10",
        **MASKED_TINY,
        "finetuning.epochs": 100,
        "finetuning.batch_size": 256,
        "finetuning.learning_rate": 1e-3,
        "finetuning.warmup_epochs": 5.0,
        "finetuning.augment": "crop_flip",
        "finetuning.checkpoint_every": 10,
        "finetuning.drop_path": 0.1,
        "reduction": "CIFAR-10 and ViT-Tiny instead of ImageNet and ResNet-50",
    },
}


def get_config(variant: str = "") -> ConfigDict:
    config = named_config(variant, VARIANTS)
    config.mapping = "pmap"  # over devices; or "shard_map", with the same results
    config.reduction = ""  # how it is less than the paper's, for the table
    config.data = data_fields()
    # Parts of the training images whose labels are known, as many of every class; 1 is all of them.
    config.fractions = (0.01, 0.1, 1.0)
    # Name and arguments of `recon_jax.spectral.make_corruption`.
    config.corruption = ("patch_subset", 0.75, 4)
    # "normalized": every patch to mean 0 and variance 1; or "pixels".
    config.targets = "normalized"
    config.num_pictures = 8

    config.model = masked_model_fields(depth=3)

    config.train = train_fields(  # pretraining
        epochs=5,
        batch_size=32,
        learning_rate=7.5e-4,
        weight_decay=0.05,
        b2=0.95,
        schedule="cosine",
        warmup_epochs=0.5,
    )
    config.finetuning = train_fields(  # and supervision from scratch
        epochs=1,
        batch_size=32,
        learning_rate=5e-4,
        weight_decay=0.05,
        schedule="cosine",
        warmup_epochs=0.2,
        layer_decay=0.0,
        label_smoothing=0.1,
    )
    config.finetuning.drop_path = 0.0  # of the last block, in training

    config.probe = probe_fields()

    config.regions = ConfigDict()  # activation maps and what a prediction needs of an image
    config.regions.images = 80  # of the test images, the same for all networks
    config.regions.share = 0.9  # of the predicted class's logit above the mean, to be kept
    config.regions.center = True  # the features of Eigen-CAM, as common implementations do

    config.update_from_flattened_dict(VARIANTS[config.name])
    return config
