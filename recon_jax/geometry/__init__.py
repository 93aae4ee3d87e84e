"""Paper 2: what encoder and projector keep; ranks, tangent planes, subspaces, invariance.

Source: Cosentino et al. 2022 (arXiv 2205.06926).
"""

from recon_jax.geometry.intrinsic_dimension import DIMENSION_METHODS as DIMENSION_METHODS
from recon_jax.geometry.intrinsic_dimension import intrinsic_dimension as intrinsic_dimension
from recon_jax.geometry.invariance import non_invariance as non_invariance
from recon_jax.geometry.jacobian import local_jacobian as local_jacobian
from recon_jax.geometry.linear_flow import ProjectorFlow as ProjectorFlow
from recon_jax.geometry.linear_flow import linear_projector_flow as linear_projector_flow
from recon_jax.geometry.rank import effective_rank as effective_rank
from recon_jax.geometry.rank import embedding_rank as embedding_rank
from recon_jax.geometry.rank import numerical_rank as numerical_rank
from recon_jax.geometry.subspaces import gain_ratio as gain_ratio
from recon_jax.geometry.subspaces import subspace_alignment as subspace_alignment
from recon_jax.geometry.tangents import displacement_basis as displacement_basis
from recon_jax.geometry.tangents import neighbor_differences as neighbor_differences
from recon_jax.geometry.tangents import row_space as row_space
from recon_jax.geometry.tangents import tangent_bases as tangent_bases
