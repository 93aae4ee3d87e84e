"""One call audits an encoder: any function of images against every measure of this library."""

from recon_jax.audit.auditing import audit as audit
from recon_jax.audit.baselines import BASELINES as BASELINES
from recon_jax.audit.comparison import compare as compare
from recon_jax.audit.encoders import Encoder as Encoder
from recon_jax.audit.encoders import as_encoder as as_encoder
from recon_jax.audit.flax_adapter import flax_encoder as flax_encoder
from recon_jax.audit.measuring import MEASURES as MEASURES
from recon_jax.audit.page import write_html as write_html
from recon_jax.audit.records import Audited as Audited
from recon_jax.audit.records import AuditReport as AuditReport
from recon_jax.audit.records import Comparison as Comparison
from recon_jax.audit.records import Estimate as Estimate
from recon_jax.audit.records import Geometry as Geometry
from recon_jax.audit.records import Invariance as Invariance
from recon_jax.audit.records import LabelAlignment as LabelAlignment
from recon_jax.audit.records import LayerSensitivity as LayerSensitivity
from recon_jax.audit.records import ProbeAccuracy as ProbeAccuracy
from recon_jax.audit.records import SpectrumKept as SpectrumKept
from recon_jax.audit.tables import audit_tables as audit_tables
from recon_jax.audit.torch_adapter import torch_encoder as torch_encoder
