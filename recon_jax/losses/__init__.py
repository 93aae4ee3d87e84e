"""Losses of single images, and how they become the mean over a batch with padding."""

from recon_jax.losses.classification import LABEL_LOSSES as LABEL_LOSSES
from recon_jax.losses.classification import cross_entropy as cross_entropy
from recon_jax.losses.classification import is_correct as is_correct
from recon_jax.losses.classification import one_hot_error as one_hot_error
from recon_jax.losses.levels import bits_per_dimension as bits_per_dimension
from recon_jax.losses.levels import from_levels as from_levels
from recon_jax.losses.levels import to_levels as to_levels
from recon_jax.losses.likelihoods import LIKELIHOODS as LIKELIHOODS
from recon_jax.losses.likelihoods import Likelihood as Likelihood
from recon_jax.losses.likelihoods import bernoulli as bernoulli
from recon_jax.losses.likelihoods import discretized_gaussian as discretized_gaussian
from recon_jax.losses.likelihoods import discretized_logistic as discretized_logistic
from recon_jax.losses.likelihoods import logistic_mixture as logistic_mixture
from recon_jax.losses.likelihoods import make_likelihood as make_likelihood
from recon_jax.losses.posterior import Posterior as Posterior
from recon_jax.losses.posterior import free_bits as free_bits
from recon_jax.losses.posterior import gaussian_kl as gaussian_kl
from recon_jax.losses.posterior import importance_weighted_bound as importance_weighted_bound
from recon_jax.losses.posterior import log_normal as log_normal
from recon_jax.losses.posterior import sample_posterior as sample_posterior
from recon_jax.losses.reconstruction import masked_squared_error as masked_squared_error
from recon_jax.losses.reconstruction import squared_error as squared_error
from recon_jax.losses.reduction import mean_of as mean_of
from recon_jax.losses.reduction import total_of as total_of
