"""Recipe: what does an encoder keep of images, and what is it good for?

    python -m experiments.audit                                            # embedded, on a CPU
    python -m experiments.audit --config=configs/audit.py:python \
        --config.encoders="(('mine', 'python', {'function': 'my_module:encode'}),)"
    python -m experiments.audit --config=configs/audit.py:checkpoint \
        --config.encoders="(('lenet', 'checkpoint', {'run': 'WORKDIR/runs/lenet-seed0',
            'model': 'lenet', 'layer': 'dense2', 'normalize': 'channels'}),)"
    python -m experiments.audit --config=configs/audit.py:published --config.data.source=npz:X.npz \
        --config.encoders="(('resnet50', 'weights', {'path': 'resnet50.safetensors'}),)"

Variants: embedded trains three encoders of about the same dimension on the spot, a minute each: by
labels, by reconstruction, and by reconstruction of images of which patches are hidden. cifar10_cpu
is the same on color photographs, untrained audits random networks, cifar10 is an accelerator's job.
python, checkpoint and published audit what `encoders` names, of which they hold an example.

An entry of `encoders` is (name, kind, options). Kinds and their options, with defaults; those
without one must be given:

- "train": model (of `models.MODELS`), objective ("classification", "reconstruction" or
  "denoising"), corruption (of denoising, in units of the pixels' deviation, see
  `spectral.make_corruption`), and changes ({}: fields of `train` that are its own); beside the
  options of "random".
- "random": model, options ({}: of the model; image_shape and num_classes are filled in), layer
  ("": the output; else a name of `models.layer_shapes`, such as "latent" of an autoencoder), pool
  ("none", "mean" over positions or tokens, or "first" token), and normalize ("none"; "channels":
  mean and deviation of each channel of the training images; "global": their mean image and one
  deviation; "imagenet").
- "checkpoint": run (folder of one training run of this library, such as WORKDIR/runs/NAME), beside
  the options of "random", as the run had them.
- "weights": path (a .safetensors), family ("classifier": a residual network or vision transformer
  of timm's or torchvision's layout, see `models.load_encoder`; "masked_autoencoder": see
  `models.load_published`, of tokens to be pooled), heads (0: by width), pool.
- "python": function ("module:name" of images (N, H, W, C), float32 in [0, 1], to features (N, ...);
  the current folder is searched too). It may be one of NumPy or PyTorch, or an `audit.Encoder`.
"""

from ml_collections import ConfigDict

from configs.training import data_fields, train_fields
from configs.variants import named_config

AUTOENCODER = {
    "model": "conv_autoencoder",
    "options": {"depth": 3, "first_width": 32, "latent_size": 5},
    "layer": "latent",
}
ENCODERS = (
    (
        "supervised",
        "train",
        {"model": "lenet", "objective": "classification", "layer": "dense2"},
    ),
    ("autoencoder", "train", {**AUTOENCODER, "objective": "reconstruction"}),
    (
        "masked autoencoder",
        "train",
        {**AUTOENCODER, "objective": "denoising", "corruption": ("patch_subset", 0.75, 4)},
    ),
)
# Maps of 4 x 4 at the end of three halvings from 28 or 32 pixels, 5 channels: 80 dimensions, and 84
# in LeNet's last hidden layer.

RESNET = {"model": "resnet18", "layer": "pooled", "changes": {"augment": "crop_flip"}}
LARGE_AUTOENCODER = {
    "model": "resnet18_autoencoder",
    "options": {"latent_size": 512},
    "layer": "latent",
}

VARIANTS = {
    "embedded": {},
    "cifar10_cpu": {
        "data.source": "tfds:cifar10",
        "data.train_limit": 10_000,
        "data.test_limit": 2_000,
    },
    "cifar10": {
        "data.source": "tfds:cifar10",
        "encoders": (
            ("supervised", "train", {**RESNET, "objective": "classification"}),
            ("autoencoder", "train", {**LARGE_AUTOENCODER, "objective": "reconstruction"}),
            (
                "masked autoencoder",
                "train",
                {
                    **LARGE_AUTOENCODER,
                    "objective": "denoising",
                    "corruption": ("patch_subset", 0.75, 4),
                },
            ),
        ),
        "train.epochs": 200,
        "train.batch_size": 512,
        "train.checkpoint_every": 10,
    },
    "untrained": {
        "encoders": (
            ("LeNet", "random", {"model": "lenet", "layer": "dense2"}),
            ("convolutions", "random", AUTOENCODER),
        ),
    },
    "python": {"encoders": (("mine", "python", {"function": "my_module:encode"}),)},
    "checkpoint": {
        "encoders": (
            (
                "lenet",
                "checkpoint",
                {
                    "run": "results/diffeo_stability/embedded/runs/lenet-seed0",
                    "model": "lenet",
                    "layer": "dense2",
                    "normalize": "channels",
                },
            ),
        ),
    },
    "published": {
        "data.source": "tfds:imagenette/160px-v2",
        "data.image_size": 224,
        "audit.batch_size": 32,  # the maps of all layers of a batch are kept at a time
        "encoders": (("resnet50", "weights", {"path": "resnet50.safetensors"}),),
    },
}


def get_config(variant: str = "") -> ConfigDict:
    config = named_config(variant, VARIANTS)
    config.mapping = "pmap"  # over devices; or "shard_map", with the same results
    config.data = data_fields()
    config.encoders = ENCODERS

    config.train = train_fields(  # of the entries that are trained
        epochs=15,
        batch_size=64,
        learning_rate=2e-3,
        weight_decay=0.01,
        schedule="cosine",
        warmup_epochs=0.5,
        log_every=156,
        checkpoint_every=5,
    )

    config.audit = ConfigDict()  # see recon_jax.audit.audit
    config.audit.measures = ("spectrum", "labels", "geometry", "probes", "stability", "invariance")
    config.audit.baselines = ("pixels", "pca", "random", "supervised")
    config.audit.draws = 3  # of random networks, few labels, deformations, views: seeds 0, 1, ...
    config.audit.num_images = 10_000  # training images, at most; 0 is all
    config.audit.num_test_images = 2_000  # the same for test images
    config.audit.batch_size = 250
    config.audit.strengths = (0.1, 0.25, 0.5, 0.75, 1.0)  # of the views
    config.audit.cutoff = 3  # of the deformations
    config.audit.displacement = 1.0  # in pixels
    config.audit.probe_images = 500  # that are deformed and augmented
    config.audit.bootstraps = 200
    config.audit.shots = 5
    config.audit.neighbors = 20
    config.audit.most_pixels = 2**14  # of larger images the spectrum is that of reduced ones

    config.update_from_flattened_dict(VARIANTS[config.name])
    return config
