"""What a simple classifier reads from features: ridge, logistic, nearest-neighbour, MLP probes."""

from recon_jax.neighbors import nearest_neighbors as nearest_neighbors
from recon_jax.probes.few_shot import few_shot_split as few_shot_split
from recon_jax.probes.knn import knn_classify as knn_classify
from recon_jax.probes.knn import knn_votes as knn_votes
from recon_jax.probes.latents import active_units as active_units
from recon_jax.probes.latents import describe_collapse as describe_collapse
from recon_jax.probes.latents import mutual_information as mutual_information
from recon_jax.probes.latents import posterior_entropy as posterior_entropy
from recon_jax.probes.linear import LinearProbe as LinearProbe
from recon_jax.probes.logistic import Convergence as Convergence
from recon_jax.probes.logistic import logistic_probe as logistic_probe
from recon_jax.probes.mlp import MLPProbe as MLPProbe
from recon_jax.probes.mlp import mlp_probe as mlp_probe
from recon_jax.probes.ridge import ridge_probe as ridge_probe
from recon_jax.probes.scoring import accuracy as accuracy
from recon_jax.probes.scoring import predict as predict
from recon_jax.probes.scoring import top_k_accuracy as top_k_accuracy
from recon_jax.probes.standardize import Standardizer as Standardizer
from recon_jax.probes.standardize import fit_standardizer as fit_standardizer
from recon_jax.probes.standardize import standardize as standardize
