"""Labelled images: sources, normalisation, and batches addressed by (seed, epoch, step).

A source is opened by name and read by index; a batch is a pure function of the source, the seed,
the epoch and the step, so that a run resumes anywhere and on any number of processes:

    source = open_source("tfds:cifar10", "train", data_dir="/data/tfds")
    normalization = fit_normalization("global", epoch_batches(source, 512, shuffle=False))
    for batch in prefetch(epoch_batches(source, 512, seed=0, epoch=3)):
        images = normalize(normalization, batch.images)
"""

from recon_jax.data.array_source import Source as Source
from recon_jax.data.array_source import from_arrays as from_arrays
from recon_jax.data.batches import Batch as Batch
from recon_jax.data.batches import batch_at as batch_at
from recon_jax.data.batches import epoch_batches as epoch_batches
from recon_jax.data.batches import epoch_order as epoch_order
from recon_jax.data.batches import fold_steps as fold_steps
from recon_jax.data.batches import num_steps as num_steps
from recon_jax.data.batches import run_batches as run_batches
from recon_jax.data.latent_model import latent_source as latent_source
from recon_jax.data.normalize import NORMALIZATIONS as NORMALIZATIONS
from recon_jax.data.normalize import Normalization as Normalization
from recon_jax.data.normalize import fit_normalization as fit_normalization
from recon_jax.data.normalize import normalize as normalize
from recon_jax.data.normalize import per_image_standardize as per_image_standardize
from recon_jax.data.normalized import normalized_source as normalized_source
from recon_jax.data.prefetching import prefetch as prefetch
from recon_jax.data.scenes import scenes_source as scenes_source
from recon_jax.data.shares import source_share as source_share
from recon_jax.data.sources import open_source as open_source
from recon_jax.data.subsets import PairedBatch as PairedBatch
from recon_jax.data.subsets import paired_batches as paired_batches
from recon_jax.data.subsets import source_subset as source_subset
