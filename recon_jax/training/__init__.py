"""Training: a state, a pure step, and a loop that can be killed at any moment.

A run in five lines:

    schedule = make_schedule("cosine", 1e-3, total_steps=1000, warmup_steps=100)
    optimizer = make_optimizer("adamw", schedule, weight_decay=0.05, clip_norm=1.0)
    state = init_state(params, optimizer, key=jax.random.key(0))
    step = data_parallel(make_train_step(loss_fn, optimizer, axis_name=AXIS))
    state = fit(state, step, lambda s: batch_at(source, step=s, batch_size=256), 1000, workdir=path)
"""

from recon_jax.training.checkpoints import Checkpoints as Checkpoints
from recon_jax.training.checkpoints import Restored as Restored
from recon_jax.training.checkpoints import best_step as best_step
from recon_jax.training.checkpoints import check_saving as check_saving
from recon_jax.training.checkpoints import finish_saving as finish_saving
from recon_jax.training.checkpoints import open_checkpoints as open_checkpoints
from recon_jax.training.checkpoints import restore_checkpoint as restore_checkpoint
from recon_jax.training.checkpoints import save_checkpoint as save_checkpoint
from recon_jax.training.checkpoints import saved_steps as saved_steps
from recon_jax.training.contrastive import ViewBatch as ViewBatch
from recon_jax.training.contrastive import contrastive_loss as contrastive_loss
from recon_jax.training.contrastive import contrastive_metrics as contrastive_metrics
from recon_jax.training.contrastive import two_views as two_views
from recon_jax.training.contrastive import with_strength as with_strength
from recon_jax.training.denoising import denoising_loss as denoising_loss
from recon_jax.training.denoising import denoising_metrics as denoising_metrics
from recon_jax.training.denoising import (
    masked_autoencoder_loss as masked_autoencoder_loss,
)
from recon_jax.training.denoising import (
    masked_autoencoder_metrics as masked_autoencoder_metrics,
)
from recon_jax.training.evaluation import extract as extract
from recon_jax.training.evaluation import make_evaluate as make_evaluate
from recon_jax.training.finetuning import freeze as freeze
from recon_jax.training.finetuning import layer_scales as layer_scales
from recon_jax.training.finetuning import scale_by_layer as scale_by_layer
from recon_jax.training.finetuning import start_from as start_from
from recon_jax.training.guided_objectives import guided_loss as guided_loss
from recon_jax.training.guided_objectives import guided_metrics as guided_metrics
from recon_jax.training.keys import device_key as device_key
from recon_jax.training.keys import example_keys as example_keys
from recon_jax.training.keys import step_key as step_key
from recon_jax.training.loop import fit as fit
from recon_jax.training.metrics import compute_metrics as compute_metrics
from recon_jax.training.metrics import merge_metrics as merge_metrics
from recon_jax.training.metrics_log import read_metrics as read_metrics
from recon_jax.training.objectives import autoencoder_loss as autoencoder_loss
from recon_jax.training.objectives import autoencoder_metrics as autoencoder_metrics
from recon_jax.training.objectives import classification_loss as classification_loss
from recon_jax.training.objectives import classification_metrics as classification_metrics
from recon_jax.training.objectives import unit_pixels as unit_pixels
from recon_jax.training.objectives import variables_of as variables_of
from recon_jax.training.optimizers import OPTIMIZERS as OPTIMIZERS
from recon_jax.training.optimizers import decay_mask as decay_mask
from recon_jax.training.optimizers import make_optimizer as make_optimizer
from recon_jax.training.saved_variables import SavedVariables as SavedVariables
from recon_jax.training.saved_variables import read_variables as read_variables
from recon_jax.training.schedules import SCHEDULES as SCHEDULES
from recon_jax.training.schedules import make_schedule as make_schedule
from recon_jax.training.semi_supervised import classification_weight as classification_weight
from recon_jax.training.semi_supervised import semi_supervised_loss as semi_supervised_loss
from recon_jax.training.semi_supervised import semi_supervised_metrics as semi_supervised_metrics
from recon_jax.training.state import TrainState as TrainState
from recon_jax.training.state import init_state as init_state
from recon_jax.training.step import batch_weight as batch_weight
from recon_jax.training.step import make_train_step as make_train_step
from recon_jax.training.variational import VariationalTerms as VariationalTerms
from recon_jax.training.variational import latent_noise as latent_noise
from recon_jax.training.variational import log_weights as log_weights
from recon_jax.training.variational import make_encode as make_encode
from recon_jax.training.variational import vae_loss as vae_loss
from recon_jax.training.variational import vae_metrics as vae_metrics
from recon_jax.training.variational import variational_terms as variational_terms
from recon_jax.training.workdir import lock_workdir as lock_workdir
from recon_jax.training.workdir import require_writable as require_writable
