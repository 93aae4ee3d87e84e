"""Recipe: which subspace reconstruction learns on a dataset, and which corruption would help.

Paper: Balestriero & LeCun 2024, "Learning by Reconstruction Produces Uninformative Features For
Perception" (arXiv 2402.11337): Fig. 1 (middle), alignment figure, mask impact figure, and the
detection of noises that are never beneficial. The paper's values are in figures only.

    python -m experiments.alignment                                         # embedded images
    python -m experiments.alignment --config=configs/alignment.py:cifar10   # through TFDS
    python -m experiments.alignment --config=configs/alignment.py:cifar10 \
        --config.data.source=npz:cifar10.npz --config.ranks='(16,64,256)'

Variants: embedded, cifar10, cifar100, svhn, tiny_imagenet, imagenette, scenes. On two CPU cores
embedded takes about a minute and CIFAR-10 (50,000 images, D = 3,072) about twenty, or four with
--config.folds=0; memory grows with D^2, not with the number of images.
"""

from ml_collections import ConfigDict

from configs.variants import named_config

# Places and rotations over a fifth of their range, colours between white and any.
SCENE_SPREAD = "pose_spread=0.2&colour_spread=0.5"

# Changes to the defaults below, by variant. Datasets other than `embedded` and `scenes` are read
# through TFDS and must have been prepared; the error message says how.
VARIANTS = {
    "embedded": {},
    "cifar10": {"data.source": "tfds:cifar10"},
    "cifar100": {"data.source": "tfds:cifar100"},
    "svhn": {"data.source": "tfds:svhn_cropped"},
    # Not in TFDS: unpack tiny-imagenet-200.zip and pass its folder.
    "tiny_imagenet": {"data.source": "folder:tiny-imagenet-200", "data.image_size": 32},
    "imagenette": {"data.source": "tfds:imagenette/160px-v2", "data.image_size": 32},
    "scenes": {"data.source": f"scenes:{SCENE_SPREAD}"},
}

COLOUR_CORRUPTIONS = (
    ("gaussian", 0.1),
    ("gaussian", 0.5),
    ("pixel_mask", 0.5),
    ("patch_mask", 0.5, 4),
    ("patch_mask", 0.75, 4),
    ("patch_subset", 0.75, 4),  # MAE: exactly a quarter of the patches kept
    ("blur", 1.0),
    (("blur", 1.0), ("gaussian", 0.1)),
    (("downsample", 2), ("gaussian", 0.1)),
    (("grayscale",), ("gaussian", 0.1)),
)
GREY_CORRUPTIONS = tuple(spec for spec in COLOUR_CORRUPTIONS if spec[0] != ("grayscale",))


def get_config(variant: str = "") -> ConfigDict:
    config = named_config(variant, VARIANTS)
    config.mapping = "pmap"  # over devices; or "shard_map", with the same results

    config.data = ConfigDict()
    config.data.source = "embedded"
    config.data.split = "train"
    config.data.image_size = 0  # square side in pixels; 0 keeps the size of the source
    config.data.limit = 0  # number of images, balanced over classes; 0 is all
    config.data.data_dir = ""  # of TFDS; its default if empty
    # File or workdir of experiments.moments to start from instead of a pass; needs folds = 0.
    config.data.moments = ""
    # "global": one standard deviation for all pixels, the paper's choice for alignment;
    # "unit": [0, 1]; "per_image": each image by its own first; "per_pixel": every pixel by its own.
    config.data.normalization = "global"
    config.data.batch_size = 4096

    # Noise levels are in units of the images after normalisation.
    colour = config.name not in ("embedded",)
    config.corruptions = COLOUR_CORRUPTIONS if colour else GREY_CORRUPTIONS
    config.ranks = (16, 64, 256)  # K of the tables
    config.folds = 5  # of the jackknife standard error; 0 for none

    config.sweep = ConfigDict()
    config.sweep.ratios = tuple(round(0.11 * i, 2) for i in range(10))  # the paper's 0 .. 0.99
    config.sweep.patch_sizes = (1, 2, 4)
    config.sweep.kind = "bernoulli"  # or "subset", as in MAE

    config.strips = ConfigDict()
    config.strips.num_images = 8
    config.strips.threshold = 0.75  # variance of the top subspace; the bottom has the rest

    # Sources to compare with data.source by their clean alignment: which images are misaligned?
    config.compare = ()
    if config.name == "scenes":
        # At full spread the classes would have the same mean image, and nothing could be aligned.
        config.compare = tuple(
            f"scenes:image_size={size}&background_amplitude={amplitude}&{SCENE_SPREAD}"
            for size in (16, 24, 32)
            for amplitude in (0.0, 0.25, 0.5, 1.0)
        )

    # float64 resolves the whole spectrum; accelerators without it need float32.
    config.precision = "float64"

    for field, value in VARIANTS[config.name].items():
        config.update_from_flattened_dict({field: value})
    return config
