"""Recipe: does pretraining help on downstream classes that share some of its features?

Paper: Pan, Zhou & Yan 2023 (arXiv 2206.03826). Its claim: a large and diverse pretraining set
covers most features of downstream classes, and fine-tuning keeps them. The constants of the theorem
and the paper's tables are not known here; sizes and rules are this project's.

    python -m experiments.downstream_transfer --seeds=0,1,2,3,4,5,6,7,8,9
    python -m experiments.downstream_transfer --config=configs/downstream_transfer.py:relearning \
        --seeds=0,1,2,3,4,5,6,7,8,9

Pretraining has 600 images of 10 classes, the downstream task 40 of 4 other classes. Of the
downstream features a stated part, the overlap, was seen in pretraining, each beside another feature
than downstream. All seeds are one compiled call. No data to download.

Variants: default fine-tunes kernels at the rate 0.01 for 300 steps, as `feature_capture` does,
which leaves them almost as they were. relearning, added after the first run of it, gives them ten
times the rate and 1,000 steps to learn features that pretraining has not seen.
"""

from ml_collections import ConfigDict

from configs.feature_capture import data_fields, network_fields
from configs.variants import named_config

VARIANTS = {
    "default": {},
    "relearning": {"encoder_rate": 0.1, "network.finetune_steps": 1000},
}


def get_config(variant: str = "") -> ConfigDict:
    config = named_config(variant, VARIANTS, "default")
    config.reduction = ""  # how a run is reduced, for the tables
    # Of pretraining; downstream images are like them, and `num_test` is of downstream images.
    config.data = data_fields(num_classes=10, dim=48, num_train=600)
    config.downstream = ConfigDict({"num_classes": 4, "num_train": 40})
    config.network = network_fields()  # kernels for each pretraining class
    config.encoder_rate = 0.01  # of the kernels in fine-tuning, see `multiview.finetune`
    config.overlaps = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the downstream features
    config.update_from_flattened_dict(VARIANTS[config.name])
    return config
