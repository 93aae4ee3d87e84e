"""Smooth deformations of images and what networks make of them: fields, warps, noise, sensitivity.

Source: Petrini et al. 2021 (arXiv 2105.02468) and Tomasini et al. 2022 (arXiv 2210.01506).
"""

from recon_jax.diffeo import constant_filters as constant_filters
from recon_jax.diffeo import depth_laws as depth_laws
from recon_jax.diffeo import scale_detection as scale_detection
from recon_jax.diffeo import scale_probes as scale_probes
from recon_jax.diffeo.fields import displacement_field as displacement_field
from recon_jax.diffeo.fields import displacement_for as displacement_for
from recon_jax.diffeo.fields import mode_weights as mode_weights
from recon_jax.diffeo.fields import rms_displacement as rms_displacement
from recon_jax.diffeo.fields import sample_coefficients as sample_coefficients
from recon_jax.diffeo.fields import temperature_bounds as temperature_bounds
from recon_jax.diffeo.fields import temperature_for as temperature_for
from recon_jax.diffeo.jacobian import min_jacobian as min_jacobian
from recon_jax.diffeo.layerwise import layerwise_sensitivities as layerwise_sensitivities
from recon_jax.diffeo.noise import matched_noise as matched_noise
from recon_jax.diffeo.pooling import Modes as Modes
from recon_jax.diffeo.pooling import degenerate_sums as degenerate_sums
from recon_jax.diffeo.pooling import filter_spectra as filter_spectra
from recon_jax.diffeo.pooling import filter_spectrum as filter_spectrum
from recon_jax.diffeo.pooling import laplacian_modes as laplacian_modes
from recon_jax.diffeo.sensitivity import Probes as Probes
from recon_jax.diffeo.sensitivity import Sensitivity as Sensitivity
from recon_jax.diffeo.sensitivity import probe_images as probe_images
from recon_jax.diffeo.sensitivity import sensitivities as sensitivities
from recon_jax.diffeo.shuffling import shuffle_channels as shuffle_channels
from recon_jax.diffeo.warps import INTERPOLATIONS as INTERPOLATIONS
from recon_jax.diffeo.warps import deform as deform
from recon_jax.diffeo.warps import reference as reference
from recon_jax.diffeo.warps import warp as warp
