"""Recipe: the sufficient statistics of a dataset, in one resumable pass, or in several jobs.

Count, mean, scatter X X^T, cross X Y^T and class counts: all that the closed forms of Balestriero &
LeCun 2024 (arXiv 2402.11337) ask of a dataset. `experiments.alignment` starts from the file with
--config.data.moments=FILE --config.folds=0.

    python -m experiments.moments                                            # embedded images
    python -m experiments.moments --config=configs/moments.py:imagenet64     # through TFDS
    python -m experiments.moments --config.share=0 --config.shares=3 --workdir=a
    python -m experiments.moments --merge a b c --workdir=whole

Variants: embedded, cifar10, imagenette, imagenet64. On two CPU cores embedded takes about a second.
The file has 8 D^2 bytes: 75 MB for 32x32x3, 1.2 GB for 64x64x3.
"""

from ml_collections import ConfigDict

from configs.variants import named_config

# Datasets other than `embedded` are read through TFDS and must have been prepared.
VARIANTS = {
    "embedded": {},
    "cifar10": {"data.source": "tfds:cifar10"},
    "imagenette": {"data.source": "tfds:imagenette/160px-v2", "data.image_size": 32},
    "imagenet64": {"data.source": "tfds:imagenet_resized/64x64"},
}


def get_config(variant: str = "") -> ConfigDict:
    config = named_config(variant, VARIANTS)
    config.mapping = "pmap"  # over devices; or "shard_map", with the same results

    config.data = ConfigDict()
    config.data.source = "embedded"
    config.data.split = "train"
    config.data.image_size = 0  # square side in pixels; 0 keeps the size of the source
    config.data.limit = 0  # number of images, balanced over classes; 0 is all
    config.data.data_dir = ""  # of TFDS; its default if empty
    # "none": pixels as stored, which every linear normalisation can start from; "per_image": each
    # image divided by its own standard deviation first.
    config.data.normalization = "none"
    config.data.batch_size = 4096  # over all processes and devices; rounded up to divide

    # This job's part of the images, of as many parts as there are jobs; see --merge.
    config.share = 0
    config.shares = 1

    config.save_every = 16  # batches between two saves
    config.precision = "float64"  # of the accumulation; totals are float64 in any case

    for field, value in VARIANTS[config.name].items():
        config.update_from_flattened_dict({field: value})
    return config
