"""Recipe: do equal reconstructions hide different perception? Autoencoders guided by probes.

Paper: Balestriero & LeCun 2024, "Learning by Reconstruction Produces Uninformative Features For
Perception" (arXiv 2402.11337), guidance experiment: for each latent size an autoencoder is trained
with guidance g = 0 and g = 0.01, loss = mean squared error + g (cross-entropy of a linear and of an
MLP head on the latent). Expected: the same reconstruction error, very different probe accuracy; the
numbers are not published here. Beside it the linear theory: the joint optimum of supervision and
reconstruction over a sweep of reconstruction weights w, in closed form. Per image and per pixel,
guidance g stands to w as w = 1 / (g D).

    python -m experiments.guidance --seeds=0,1,2                         # embedded, on a CPU
    python -m experiments.guidance --config=configs/guidance.py:imagenette   # the paper's
    python -m experiments.guidance --config=configs/guidance.py:cifar10_cpu \
        --config.data.source=npz:cifar10.npz --seeds=0,1,2               # without TFDS
    python -m experiments.guidance --config.guidances='(0.0, 0.001, 0.01)'

Variants: imagenette is the paper's: 224 x 224, ResNet34, 8 latent sizes x 2 guidances, 1000 epochs
each, on an accelerator. cifar10 is the same recipe on CIFAR-10: ResNet18, 100 epochs. embedded and
cifar10_cpu are reduced for two CPU cores to 10,000 images, 15 epochs and small networks.

Differences from the paper: images are the central square resized to 224 before augmentation, for
training and test alike (paper: crops of the full image; test: 256, central 224); bfloat16 instead
of float16. The closed form of imagenette is on images of 32 px, because it needs D x D matrices.
"""

from ml_collections import ConfigDict

from configs.training import data_fields, train_fields
from configs.variants import named_config

PAPER = {
    "train.learning_rate": 2e-4,
    "train.augment": "resized_crop_flip",
    "train.dtype": "bfloat16",
    "train.evaluate_every": 10,
    "train.checkpoint_every": 10,
}

CPU = {
    "data.train_limit": 10_000,
    "data.test_limit": 2_000,
    "train.epochs": 15,
    "train.learning_rate": 1e-3,  # few steps
    "train.evaluate_every": 5,
    "train.checkpoint_every": 5,
    "probe.hidden": (256, 256),
    # In so few steps 0.01 raises the error by a tenth: 0.001 compares at equal errors.
    "guidances": (0.0, 0.001, 0.01),
}
PUBLISHED = (
    "the paper has Imagenette at 224 px, a ResNet34, 1000 epochs at learning rate 2e-4, resized "
    "crops, and an MLP head 1024-1024"
)

VARIANTS = {
    "embedded": {
        **CPU,
        "reduction": PUBLISHED,
    },
    "cifar10_cpu": {
        **CPU,
        "data.source": "tfds:cifar10",
        "model.name": "conv_autoencoder",
        "latent_sizes": (4, 8, 16, 32),  # channels of 4 x 4 maps
        # Each weight is an eigenproblem of D = 3072.
        "closed_form.weights": (1e-4, 1e-3, 1e-2, 1e-1, 1e0),
        "reduction": PUBLISHED,
    },
    "cifar10": {
        **PAPER,
        "data.source": "tfds:cifar10",
        "model.name": "resnet18_autoencoder",
        "model.options": {"stem": "cifar"},
        "latent_sizes": (64, 128, 256, 512, 1024),
        "train.epochs": 100,
        "reduction": PUBLISHED,
    },
    "imagenette": {
        **PAPER,
        "data.source": "tfds:imagenette/320px-v2",
        "data.image_size": 224,
        "model.name": "resnet34_autoencoder",
        "latent_sizes": (128, 256, 512, 640, 1024, 2048, 3072, 4096),
        "train.epochs": 1000,
        "closed_form.image_size": 32,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    config = named_config(variant, VARIANTS)
    changes = dict(VARIANTS[config.name])
    config.mapping = "pmap"  # over devices; or "shard_map", with the same results
    config.reduction = ""  # what the paper has where a variant is reduced, for the tables
    config.data = data_fields()

    config.model = ConfigDict()
    config.model.name = "mlp_autoencoder"
    # Whatever the model takes beside image_shape, latent_size, dtype and axis_name.
    config.model.options = ConfigDict(changes.pop("model.options", {}))
    config.latent_sizes = (4, 8, 16, 32, 64)
    config.guidances = (0.0, 0.01)  # changes are reported against the smallest
    config.train = train_fields(
        epochs=100, batch_size=128, optimizer="adam", weight_decay=0.0, augment="none"
    )

    config.probe = ConfigDict()
    config.probe.hidden = (1024, 1024)  # of the MLP head
    # Of the logistic regression fitted on the frozen, standardised latents after training.
    config.probe.regularization = 1e-4
    config.probe.max_iterations = 1000

    config.closed_form = ConfigDict()
    config.closed_form.image_size = 0  # square side in pixels; 0 keeps that of data
    # w of ||W^T V^T X - Y||^2 + w ||Z^T V^T X - X||^2
    config.closed_form.weights = tuple(round(10 ** (i / 2), 6) for i in range(-8, 3))
    config.closed_form.precision = "float64"  # accelerators without it need float32

    config.update_from_flattened_dict(changes)
    return config
