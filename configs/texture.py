"""Recipe: when does a local decoder help? Probes against the strength of a local texture.

Paper: Zhang, Xiao, Paige & Barber 2022, "Improving VAE-based Representation Learning" (arXiv
2205.14539): a decoder that models local features leaves the global ones to the latent. Here the
local features are under control: images of lower contrast under a random field whose correlation
falls by 0.85 from pixel to pixel. This curve is not in the paper.

    python -m experiments.texture --seeds=0,1,2                               # embedded, on a CPU
    python -m experiments.texture --config=configs/texture.py:mnist_cpu \
        --config.data.source=npz:mnist.npz --seeds=0,1,2                         # without TFDS

Variants: embedded and mnist_cpu are reduced as in configs/local_vae.py; mnist is not. Strength 0
has the lower contrast too, so that nothing but the texture changes along the curve.
"""

from ml_collections import ConfigDict

from configs.vae import CPU, vae_fields
from configs.variants import named_config

VARIANTS = {
    "embedded": CPU,
    "mnist_cpu": {**CPU, "data.source": "tfds:mnist"},
    "mnist": {"data.source": "tfds:mnist"},
}


def get_config(variant: str = "") -> ConfigDict:
    config = named_config(variant, VARIANTS)
    config.update(vae_fields())
    config.decoders = ("factorised", "local-1", "full")  # as in configs/local_vae.py
    config.latent_sizes = (16,)  # one
    config.strengths = (0.0, 0.07, 0.15, 0.25)  # standard deviations of the field, in pixels
    config.texture.brightness = 0.3
    config.texture.contrast = 0.4
    config.update_from_flattened_dict(VARIANTS[config.name])
    return config
