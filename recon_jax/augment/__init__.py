"""Augmentation on the device: policies (keys, images) -> images, one key an image."""

from recon_jax.augment.catalog import POLICIES as POLICIES
from recon_jax.augment.catalog import make_policy as make_policy
from recon_jax.augment.deformation import deformation as deformation
from recon_jax.augment.policies import crop_flip as crop_flip
from recon_jax.augment.policies import no_augmentation as no_augmentation
from recon_jax.augment.policies import resized_crop_flip as resized_crop_flip
from recon_jax.augment.texture import texture as texture
