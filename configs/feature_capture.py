"""Recipe: which features does mask-reconstruction pretraining capture, and which supervision?

Paper: Pan, Zhou & Yan 2023, "Towards Understanding Why Mask-Reconstruction Pretraining Helps in
Downstream Tasks" (arXiv 2206.03826), on the data and the network of Allen-Zhu & Li 2020 (arXiv
2012.09816). Its claims: pretraining captures every feature, each kernel at most one; supervision
from scratch captures a random part; so pretraining is better where an image shows one feature of
its class alone. The constants of the theorems and the paper's tables are not known here; sizes and
rules are this project's.

    python -m experiments.feature_capture --seeds=0,1,2,3,4,5,6,7,8,9
    python -m experiments.feature_capture --config=configs/feature_capture.py:k10 \
        --seeds=0,1,2,3,4,5,6,7,8,9

Variants: default has k = 5 classes, k10 has 10. The main table has all seeds, in one compiled call;
the sweeps have the first `sweep_seeds` of them. Every field of `sweeps` may be emptied, which skips
the sweep. No data to download.
"""

from ml_collections import ConfigDict

from configs.variants import named_config

VARIANTS = {
    "default": {},
    "k10": {
        "data.num_classes": 10,
        "data.dim": 48,
        "data.num_train": 600,
        "network.members": 6,
        "sweep_seeds": 2,
    },
}


def data_fields(**changes) -> ConfigDict:
    """Sizes and strengths of the data, see `multiview.MultiViewSpec`, and numbers of images."""
    data = ConfigDict()
    data.num_classes = 5  # k, each of two features
    data.num_patches = 12
    data.dim = 32  # of a patch
    data.patches_per_feature = 2
    data.num_others = 1.0
    data.patch_noise = 0.07
    data.feature_noise = 0.02
    data.num_train = 400
    data.num_test = 1000  # of each kind
    data.update(changes)
    return data


def network_fields(**changes) -> ConfigDict:
    """The network and how it is trained, see `multiview.capture_study`."""
    network = ConfigDict()
    network.kernels_per_class = 10
    network.init_scale = 0.05  # standard deviation of kernels at the start
    network.threshold = 1.0  # of the rectifier: where it becomes linear
    network.power = 4  # of the rectifier below it
    network.keep = 0.5  # share of the patches that the student sees
    network.pretrain_steps = 400
    network.supervised_steps = 800  # at most
    network.finetune_steps = 300
    network.update(changes)
    return network


def get_config(variant: str = "") -> ConfigDict:
    config = named_config(variant, VARIANTS, "default")
    config.reduction = ""  # how a run is reduced, for the tables
    config.data = data_fields()
    config.network = network_fields(members=4)  # supervised networks of the ensemble
    config.sweep_seeds = 3
    config.sweeps = ConfigDict()
    # At two patches a feature the window of growth is 1.107 to 1.189, and features of a class grow
    # together from 1.057 on.
    config.sweeps.teacher_scale = (1.0, 1.05, 1.08, 1.1, 1.115, 1.13, 1.16, 1.189, 1.25, 1.3)
    config.sweeps.width = (2, 4, 6, 10, 16)  # kernels a class
    config.sweeps.single_view = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)  # share of the training images
    config.sweeps.threshold = (0.1, 0.2, 0.5, 1.0, 2.0)
    config.sweeps.steps = (200, 400, 800, 1200)  # of pretraining
    config.sweeps.variant = ("expected masks", "sampled masks", "keep 0.25", "MAE-like")
    config.update_from_flattened_dict(VARIANTS[config.name])
    return config
