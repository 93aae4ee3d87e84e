"""What a program costs, on paper: FLOPs, bytes, collectives, and the roofline they meet."""

from recon_jax.sizing.collectives import Collective as Collective
from recon_jax.sizing.collectives import find_collectives as find_collectives
from recon_jax.sizing.collectives import ring_bytes as ring_bytes
from recon_jax.sizing.programs import LaterPasses as LaterPasses
from recon_jax.sizing.programs import ProgramCost as ProgramCost
from recon_jax.sizing.programs import cost_of as cost_of
from recon_jax.sizing.programs import later_passes as later_passes
from recon_jax.sizing.programs import saved_bytes as saved_bytes
from recon_jax.sizing.programs import tree_bytes as tree_bytes
from recon_jax.sizing.roofline import Cost as Cost
from recon_jax.sizing.roofline import Device as Device
from recon_jax.sizing.roofline import Prediction as Prediction
from recon_jax.sizing.roofline import predict as predict
