"""Records, tables, figures and the HTML report; knows nothing of experiments."""

from recon_jax.report.figures import new_figure as new_figure
from recon_jax.report.figures import plot_curves as plot_curves
from recon_jax.report.figures import plot_heat_map as plot_heat_map
from recon_jax.report.figures import plot_image_strip as plot_image_strip
from recon_jax.report.figures import save_figure as save_figure
from recon_jax.report.figures import save_figures as save_figures
from recon_jax.report.html import Section as Section
from recon_jax.report.html import write_report as write_report
from recon_jax.report.progress import progress as progress
from recon_jax.report.records import append_jsonl as append_jsonl
from recon_jax.report.records import cached as cached
from recon_jax.report.records import digest as digest
from recon_jax.report.records import prepare_workdir as prepare_workdir
from recon_jax.report.records import provenance as provenance
from recon_jax.report.records import write_json as write_json
from recon_jax.report.records import write_jsonl as write_jsonl
from recon_jax.report.tables import Table as Table
from recon_jax.report.tables import write_table as write_table
