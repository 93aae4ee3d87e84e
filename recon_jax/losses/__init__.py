"""Losses of single images, and how they become the mean over a batch with padding."""

from recon_jax.losses.classification import LABEL_LOSSES as LABEL_LOSSES
from recon_jax.losses.classification import cross_entropy as cross_entropy
from recon_jax.losses.classification import is_correct as is_correct
from recon_jax.losses.classification import one_hot_error as one_hot_error
from recon_jax.losses.reconstruction import masked_squared_error as masked_squared_error
from recon_jax.losses.reconstruction import squared_error as squared_error
from recon_jax.losses.reduction import mean_of as mean_of
from recon_jax.losses.reduction import total_of as total_of
