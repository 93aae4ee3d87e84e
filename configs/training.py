"""The fields that every trained experiment shares, under `config.train` and `config.data`."""

from ml_collections import ConfigDict

# A masked autoencoder of 32x32 images on an accelerator: ViT-Tiny, patches of 2, 400 epochs.
MASKED_TINY = {
    "corruption": ("patch_subset", 0.75, 2),
    "model.patch_size": 2,
    "model.width": 192,
    "model.depth": 12,
    "model.heads": 3,
    "model.decoder_width": 192,
    "model.decoder_depth": 4,
    "model.decoder_heads": 3,
    "train.epochs": 400,
    "train.batch_size": 4096,
    "train.learning_rate": 1.5e-4 * 4096 / 256,
    "train.warmup_epochs": 40.0,
    "train.augment": "mae_crop_flip",
    "train.checkpoint_every": 10,
}


def data_fields(source: str = "embedded") -> ConfigDict:
    """Where the images come from."""
    data = ConfigDict()
    data.source = source  # see recon_jax.data.open_source
    data.image_size = 0  # square side in pixels; 0 keeps the size of the source
    data.train_limit = 0  # number of training images, balanced over classes; 0 is all
    data.test_limit = 0  # the same for the test split
    data.data_dir = ""  # of TFDS; its default if empty
    return data


def train_fields(**changes) -> ConfigDict:
    """How a network is trained; `changes` replaces defaults, or adds fields that few need.

    These are b2 (decay of Adam's second moment, 0.999 if absent), momentum (of sgd and lars, 0),
    layer_decay (of the learning rate from block to block of a ViT, 0 for none), label_smoothing
    (0), warmup_epochs (0.0, beside warmup_steps), and half_period (of cosine, as a part of the
    run, 1.0: below it the rate rises again at the end).
    """
    train = ConfigDict()
    train.epochs = 50
    train.batch_size = 512  # over all devices; the last batch of an epoch is dropped if not full
    train.optimizer = "adamw"
    train.learning_rate = 1e-3  # the peak of the schedule
    train.weight_decay = 1e-3  # of parameters with two or more axes
    train.schedule = "one_cycle"
    train.warmup_steps = 0  # of cosine and constant
    train.clip_norm = 0.0  # largest norm of the gradient; 0 does not clip
    train.ema_decay = 0.0  # of the averaged parameters that are evaluated; 0 for none
    train.accumulate_steps = 1  # micro-batches a step
    train.dtype = "float32"  # of the computation; bfloat16 on accelerators
    train.augment = "none"  # see recon_jax.augment.POLICIES
    # What follows decides what is seen and kept of a run, not its outcome.
    train.log_every = 20  # steps
    train.evaluate_every = 1  # epochs
    train.checkpoint_every = 1  # epochs
    train.keep_checkpoints = 2
    for name, value in changes.items():
        train[name] = value
    return train


def masked_model_fields(**changes) -> ConfigDict:
    """A small masked autoencoder for a CPU; `changes` replaces fields, or adds `remat`."""
    model = ConfigDict()
    model.patch_size = 4
    model.width = 64
    model.depth = 4
    model.heads = 4
    model.decoder_width = 48
    model.decoder_depth = 1
    model.decoder_heads = 4
    model.pooling = "mean"  # of the frozen probes: mean over patches, or "class_token"
    model.update(changes)
    return model


def probe_fields() -> ConfigDict:
    """Probes of frozen encoders: logistic regression on standardised features, neighbours."""
    probe = ConfigDict()
    probe.regularization = 1e-3
    probe.max_iterations = 300
    probe.num_neighbors = 20
    return probe
