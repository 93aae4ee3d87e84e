"""Augmentation on the device: policies (keys, images) -> images, one key an image."""

from recon_jax.augment.catalog import POLICIES as POLICIES
from recon_jax.augment.catalog import make_policy as make_policy
from recon_jax.augment.colour_views import colour_views as colour_views
from recon_jax.augment.deformation import deformation as deformation
from recon_jax.augment.grey_views import grey_views as grey_views
from recon_jax.augment.latent_views import latent_views as latent_views
from recon_jax.augment.policies import crop_flip as crop_flip
from recon_jax.augment.policies import no_augmentation as no_augmentation
from recon_jax.augment.policies import resized_crop_flip as resized_crop_flip
from recon_jax.augment.strength import StrengthPolicy as StrengthPolicy
from recon_jax.augment.strength import at_strength as at_strength
from recon_jax.augment.texture import texture as texture
from recon_jax.augment.views import VIEW_FAMILIES as VIEW_FAMILIES
from recon_jax.augment.views import view_policy as view_policy
