"""Recipe: does a local decoder save labels in the semi-supervised setting?

Paper: Zhang, Xiao, Paige & Barber 2022, "Improving VAE-based Representation Learning" (arXiv
2205.14539), and the released code: the model M2 (Kingma et al. 2014) end to end, whose decoder
alone changes. The paper's numbers are not known here.

    python -m experiments.semi_supervised --seeds=0,1,2                        # embedded, on a CPU
    python -m experiments.semi_supervised --config=configs/semi_supervised.py:mnist \
        --seeds=0,1,2,3,4

Variants: embedded is reduced for two CPU cores: 2,000 images of 10 px under texture, where local
decoders help an unsupervised latent. mnist and svhn have the released lengths, sizes and rates;
jobs for an accelerator, since every unlabelled image is decoded once for each label.

Differences from the paper: the classifier is `models.MLP` (784-526-268-10, the paper: 784-500-500-
10) or `models.LeNet`, without the dropout of 0.3 on SVHN.
"""

from ml_collections import ConfigDict

from configs.vae import CPU, PAPER_COLOUR, vae_fields
from configs.variants import named_config

VARIANTS = {
    "embedded": {
        **CPU,
        "data.image_size": 10,
        "data.train_limit": 2000,
        "texture.strength": 0.15,
        "texture.brightness": 0.3,
        "texture.contrast": 0.4,
        "kl_warmup": 0.0,
        "train.batch_size": 100,
        "train.epochs": 20,
        "train.checkpoint_every": 20,
        "latent_sizes": (16,),
        "labelled_batch": 50,
        "shots": (10, 30),
        "reduction": "2,000 images of 10 px in 64 levels, a head of 16 channels and 1 block, 20 "
        "epochs; the paper has all images, 28 or 32 px, 256 levels, 5 blocks, 100 epochs",
    },
    "mnist": {"data.source": "tfds:mnist", "latent_sizes": (64,), "train.epochs": 100},
    "svhn": {
        **PAPER_COLOUR,
        "data.source": "tfds:svhn_cropped",
        "classifier": "lenet",
        "shots": (100,),
        "train.epochs": 20,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    config = named_config(variant, VARIANTS)
    config.update(vae_fields())
    config.decoders = ("factorised", "local-1", "full")  # as in configs/local_vae.py
    config.latent_sizes = (64,)  # one
    config.classifier = "mlp"  # see recon_jax.models.MODELS
    config.shots = (10,)  # labels of each class
    config.labelled_batch = 32  # beside train.batch_size unlabelled images
    config.train.batch_size = 32
    config.train.learning_rate = 1e-3
    config.update_from_flattened_dict(VARIANTS[config.name])
    return config
