"""Recipe: do networks of constant filters obey the depth laws of deformations and noise?

Paper: Tomasini, Petrini, Cagnetta & Wyart 2022, "How deep convolutional neural networks lose
spatial information with training" (arXiv 2210.01506): with filters that are constant, D falls as
1 / k and G grows as k^(1/2) at stride 1 on a line, as F^-k and F^k at stride F. The paper shows
this in figures and gives no numbers.

    python -m experiments.depth_laws --seeds=0,1,2                     # on a CPU
    python -m experiments.depth_laws --config.nets='((40, 3, 1, 1, 256), (4, 2, 2, 2, 64))'
    python -m experiments.depth_laws --config=configs/depth_laws.py:deep --seeds=0,1,2

No data and no training: images have one active pixel. D is measured on all of them, G over draws of
noise, which seeds repeat. Variants: default takes about two minutes on two CPU cores; deep has more
sites and layers, for an accelerator.
"""

from ml_collections import ConfigDict

from configs.variants import named_config

# (layers K, filter F, stride, axes, sites along each axis N). At stride 1 the bump of a pixel is
# K (F - 1) + 1 sites wide and stays below N; at stride F it is one site of F^K, of which N has two
# or more.
NETS = (
    (128, 2, 1, 1, 1024),
    (128, 3, 1, 1, 1024),
    (128, 5, 1, 1, 1024),
    (7, 2, 2, 1, 1024),
    (5, 3, 3, 1, 972),
    (4, 4, 4, 1, 1024),
    (32, 2, 1, 2, 48),
    (20, 3, 1, 2, 48),
    (10, 5, 1, 2, 48),
    (5, 2, 2, 2, 64),
    (3, 3, 3, 2, 54),
    (2, 4, 4, 2, 64),
)
DEEP = (
    (512, 2, 1, 1, 4096),
    (512, 3, 1, 1, 4096),
    (512, 5, 1, 1, 4096),
    (10, 2, 2, 1, 4096),
    (6, 3, 3, 1, 2916),
    (5, 4, 4, 1, 4096),
    (96, 2, 1, 2, 128),
    (60, 3, 1, 2, 128),
    (30, 5, 1, 2, 128),
    (6, 2, 2, 2, 128),
    (4, 3, 3, 2, 162),
    (3, 4, 4, 2, 128),
)
VARIANTS = {"default": {}, "deep": {"nets": DEEP}}


def get_config(variant: str = "") -> ConfigDict:
    config = named_config(variant, VARIANTS, "default")
    config.reduction = ""  # how a run is reduced, for the tables
    config.nets = NETS
    # "relu" is the paper's; "linear" the control, whose G is 1; in "rectified" the noise is cut off
    # at 0 before it is added, as in the released 1-D code.
    config.kinds = ("relu", "linear", "rectified")
    # Draws of noise for each seed, at stride 1 and at stride F, where layers have few sites.
    config.repeats = (1000, 6000)
    # Depths to which the exponents of the exact sums are fitted too, at stride 1 and at stride F.
    config.exact_layers = (2048, 16)
    config.precision = "float64"  # accelerators without it need float32
    config.update_from_flattened_dict(VARIANTS[config.name])
    return config
