"""Small configs of audits, and the entries that they hold."""

from configs import audit as recipe
from experiments import audit, audit_entries, audit_runs

NETWORK = {"model": "mlp", "options": {"depth": 3, "width": 6}, "layer": "hidden1"}
TRAINED = ("net", "train", {**NETWORK, "objective": "classification"})
AUTOENCODER = {
    "model": "mlp_autoencoder",
    "options": {"latent_size": 4, "depth": 2},
    "layer": "latent",
}
FUNCTION = """
import numpy as np

def encode(images):
    assert isinstance(images, np.ndarray)
    return images.reshape(len(images), -1)[:, ::7]

class Nested:
    encode = staticmethod(encode)

number = 3
"""


def small(*encoders, **changes):
    config = audit.smoke(recipe.get_config())
    config.data.image_size, config.data.train_limit, config.data.test_limit = 8, 60, 40
    config.encoders = encoders or (TRAINED,)
    config.audit.measures, config.audit.baselines = ("geometry",), ("pixels",)
    config.train.batch_size, config.train.log_every = 20, 10
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return config


def context_of(tmp_path, *encoders, **changes):
    return audit_runs.open_data(small(*encoders, **changes), tmp_path)


def entry_of(*item):
    return audit_entries.entries_of(small(item))[0]
