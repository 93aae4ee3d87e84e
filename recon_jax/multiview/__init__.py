"""Paper 5: data of known features, two-layer networks, pretraining, and what each captured.

Source: Pan, Zhou & Yan 2023 (arXiv 2206.03826).
"""

from recon_jax.multiview.activation_maps import RegionCounts as RegionCounts
from recon_jax.multiview.activation_maps import distinct_regions as distinct_regions
from recon_jax.multiview.activation_maps import eigen_cam as eigen_cam
from recon_jax.multiview.activation_maps import kept_regions as kept_regions
from recon_jax.multiview.activation_maps import regions_for_logit as regions_for_logit
from recon_jax.multiview.capture import aligned as aligned
from recon_jax.multiview.capture import captured as captured
from recon_jax.multiview.capture import expected_coverage as expected_coverage
from recon_jax.multiview.capture import feature_correlation as feature_correlation
from recon_jax.multiview.capture import kernel_purity as kernel_purity
from recon_jax.multiview.capture import norm_growth as norm_growth
from recon_jax.multiview.capture import winning_views as winning_views
from recon_jax.multiview.data_model import BOTH_VIEWS as BOTH_VIEWS
from recon_jax.multiview.data_model import MultiViewBatch as MultiViewBatch
from recon_jax.multiview.data_model import MultiViewSpec as MultiViewSpec
from recon_jax.multiview.data_model import sample_features as sample_features
from recon_jax.multiview.data_model import sample_multiview as sample_multiview
from recon_jax.multiview.descent import History as History
from recon_jax.multiview.descent import Trained as Trained
from recon_jax.multiview.finetuning import finetune as finetune
from recon_jax.multiview.finetuning import train_head as train_head
from recon_jax.multiview.network import block_head as block_head
from recon_jax.multiview.network import class_scores as class_scores
from recon_jax.multiview.network import encode as encode
from recon_jax.multiview.network import init_kernels as init_kernels
from recon_jax.multiview.network import smoothed_relu as smoothed_relu
from recon_jax.multiview.pretraining import pretrain as pretrain
from recon_jax.multiview.pretraining import pretrain_mae as pretrain_mae
from recon_jax.multiview.reconstruction import mae_loss as mae_loss
from recon_jax.multiview.reconstruction import mask_reconstruction_loss as mask_reconstruction_loss
from recon_jax.multiview.reconstruction import (
    mask_reconstruction_loss_sampled as mask_reconstruction_loss_sampled,
)
from recon_jax.multiview.study import CaptureStudy as CaptureStudy
from recon_jax.multiview.study import Outcome as Outcome
from recon_jax.multiview.study import capture_studies as capture_studies
from recon_jax.multiview.study import capture_study as capture_study
from recon_jax.multiview.supervised import train_supervised as train_supervised
from recon_jax.multiview.teacher import default_teacher_scale as default_teacher_scale
from recon_jax.multiview.teacher import teacher_scale_bounds as teacher_scale_bounds
from recon_jax.multiview.transfer import TransferFeatures as TransferFeatures
from recon_jax.multiview.transfer import sample_transfer_features as sample_transfer_features
