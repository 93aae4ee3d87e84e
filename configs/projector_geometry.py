"""Recipe: what does a projector throw away as augmentations get stronger?

Paper: Cosentino, Sengupta, Avestimehr, Soltanolkotabi, Ortega, Willke & Tepper 2022, "Toward a
Geometrical Understanding of Self-supervised Contrastive Learning" (arXiv 2205.06926). Its claim:
stronger augmentations drive the projector, not the encoder, towards invariance, by mapping onto a
space of low dimension that is a noisy estimate of the tangent plane of the data as the encoder has
it. The networks, settings and numbers of the paper are not known here; the rules that the claim is
held against are this project's.

    python -m experiments.projector_geometry --seeds=0,1,2               # embedded, on a CPU
    python -m experiments.projector_geometry --config=configs/projector_geometry.py:cifar10_cpu \
        --config.data.source=npz:cifar10.npz --seeds=0,1,2               # without TFDS
    python -m experiments.projector_geometry --config=configs/projector_geometry.py:control \
        --seeds=0,1,2
    python -m experiments.projector_geometry --config=configs/projector_geometry.py:cifar10 \
        --seeds=0,1,2                                                    # accelerator

SimCLR (Chen et al. 2020, arXiv 2002.05709) with NT-Xent at temperature 0.2, at several strengths of
augmentation, each with several projectors.

Is it SimCLR's alone? vicreg and barlow_twins are embedded with these losses in place of NT-Xent
and one projector.

Variants: cifar10 and cifar100 are at full size, ResNet18 with the released SimCLR projector, 500
epochs, and have not been run here. embedded, digits and cifar10_cpu are reduced for two CPU cores:
a perceptron 784-256-128 on Fashion-MNIST and 20 epochs, 64-256-128 on 8 x 8 digits and 120 epochs,
a network of four convolutions on 10,000 images of CIFAR-10 and 12 epochs. digits is MNIST at 8
pixels a side, as many images as the 8 x 8 digits that come with scikit-learn, which can take their
place:

    python -c "import numpy as np; from sklearn.datasets import load_digits; d = load_digits(); \
        x = np.round(d.images * 255 / 16).astype('uint8')[..., None]; y = d.target; \
        np.savez('digits.npz', train_images=x[:1297], train_labels=y[:1297], \
            test_images=x[1297:], test_labels=y[1297:], label_names=np.array(list('0123456789')))"
    python -m experiments.projector_geometry --config=configs/projector_geometry.py:digits \
        --config.data.source=npz:digits.npz --seeds=0,1,2

control has no images: points of a random smooth latent model, whose nuisance the encoder can undo
itself, and where the claim should fail.
"""

from ml_collections import ConfigDict

from configs.training import data_fields, train_fields
from configs.variants import named_config

# One linear layer, two and three, and two of four times the width.
PROJECTORS = (
    ("linear", {"head_depth": 1, "head_width": 128}),
    ("2 layers", {"head_depth": 2, "head_width": 128}),
    ("3 layers", {"head_depth": 3, "head_width": 128}),
    ("2 layers, wide", {"head_depth": 2, "head_width": 512}),
)
FULL_PROJECTORS = (
    ("linear", {"head_depth": 1}),
    ("2 layers", {"head_depth": 2, "head_width": 512}),
    ("3 layers", {"head_depth": 3, "head_width": 512}),
    ("2 layers, wide", {"head_depth": 2, "head_width": 2048}),
)

ADAM = {
    "train.optimizer": "adam",
    "train.learning_rate": 1e-3,
    "train.momentum": 0.0,
    "train.weight_decay": 0.0,
    "train.schedule": "constant",
    "train.batch_size": 256,
}
PERCEPTRON = {
    **ADAM,
    "model": "simclr_mlp",
    "encoder": {"widths": (256, 128)},
    "projectors": PROJECTORS,
    "strengths": (0.1, 0.3, 0.6, 1.0),
}
EMBEDDED = {
    **PERCEPTRON,
    "train.epochs": 20,
    "reduction": "10,000 images, a perceptron, 20 epochs; the paper's networks are not known here",
}
# Nothing tells whether they solved their pretext, so the strength is left out at which NT-Xent
# does not.
OTHER_LOSS = {
    **EMBEDDED,
    "projectors": PROJECTORS[1:2],
    "strengths": (0.1, 0.3, 0.6),
    "loss.options": {},
}
VARIANTS = {
    "embedded": EMBEDDED,
    "vicreg": {**OTHER_LOSS, "loss.name": "vicreg"},
    "barlow_twins": {**OTHER_LOSS, "loss.name": "barlow_twins"},
    "digits": {
        **PERCEPTRON,
        "data.source": "tfds:mnist",
        "data.image_size": 8,
        "measure.directions": 64,
        "data.train_limit": 1297,
        "data.test_limit": 500,
        "train.epochs": 120,
        "train.checkpoint_every": 60,
        "reduction": "1,297 images of 8 x 8, a perceptron, 600 steps; the paper's networks are not "
        "known here",
    },
    "cifar10_cpu": {
        **ADAM,
        "model": "simclr_conv",
        "encoder": {"width": 32},
        "projectors": PROJECTORS[:2],
        "strengths": (0.1, 0.3, 0.6, 1.0),
        "data.source": "tfds:cifar10",
        "data.train_limit": 10_000,
        "data.test_limit": 2000,
        "train.epochs": 12,
        "reduction": "10,000 images, four convolutions, 12 epochs; the paper's networks are not "
        "known here",
    },
    "control": {
        **PERCEPTRON,
        "family": "latents",  # with 10,000 points of its own, and 2,000 to test on
        "data.source": "latents",
        "data.train_limit": 10_000,
        "data.test_limit": 2000,
        "encoder": {"widths": (128, 128, 64)},
        "projectors": PROJECTORS[1:2],
        "measure.directions": 40,
        "train.epochs": 20,
        "reduction": "",
    },
    "cifar10": {"data.source": "tfds:cifar10"},
    "cifar100": {"data.source": "tfds:cifar100"},
}


def get_config(variant: str = "") -> ConfigDict:
    config = named_config(variant, VARIANTS)
    config.mapping = "pmap"  # over devices; or "shard_map", with the same results
    config.reduction = ""  # how it is less than full size, for the table
    config.data = data_fields()

    config.model = "simclr_resnet18"  # see recon_jax.models.MODELS
    config.encoder = ConfigDict()  # its options, but those of the projector
    # Projectors: name and the model's options.
    config.projectors = FULL_PROJECTORS
    config.base = "2 layers"  # the projector that the claims are about
    config.family = "auto"  # of the augmentations, see recon_jax.augment.view_policy; or "latents"
    config.strengths = (0.1, 0.25, 0.5, 0.75, 1.0)

    config.loss = ConfigDict()
    config.loss.name = "nt_xent"  # see recon_jax.losses.CONTRASTIVE_LOSSES
    config.loss.options = ConfigDict({"temperature": 0.2})

    config.train = train_fields(
        epochs=500,
        batch_size=512,
        optimizer="sgd",
        momentum=0.9,
        learning_rate=0.5,
        weight_decay=1e-4,
        schedule="cosine",
        warmup_epochs=0.0,
        log_every=20,
        checkpoint_every=20,
    )

    config.measure = ConfigDict()
    config.measure.reference = 0.5  # strength at which all networks are compared
    config.measure.points = 40  # test images at which the projector is differentiated
    config.measure.neighbors = 16  # of each, among the test images, that span the tangent plane
    config.measure.draws = 24  # augmentations of each, that span the augmentation subspace
    config.measure.rank = 6  # dimensions of both, and of the projector's row space
    config.measure.ridge = 10.0  # of the probes on standardised features, over the whole sum
    config.measure.directions = 100  # principal directions of the pixels
    config.measure.directions_ridge = 1e-3  # see recon_jax.spectral.predicted_directions

    config.flow = ConfigDict()  # the linear projector of known geometry
    config.flow.strengths = (0.0, 0.1, 0.3, 1.0, 3.0)
    config.flow.steps = 800

    config.update_from_flattened_dict(VARIANTS[config.name])
    return config
