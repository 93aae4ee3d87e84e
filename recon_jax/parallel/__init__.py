"""The only part that knows devices, meshes and processes.

`mapping` runs one function on many devices, `processes` joins machines to one run, `compilation`
and `host` are about the machine this process is on.
"""

from recon_jax.parallel.compilation import Frame as Frame
from recon_jax.parallel.compilation import cpu_compiler_options as cpu_compiler_options
from recon_jax.parallel.compilation import enable_compilation_cache as enable_compilation_cache
from recon_jax.parallel.compilation import fast_jit as fast_jit
from recon_jax.parallel.compilation import put_arrays as put_arrays
from recon_jax.parallel.compilation import take_arrays as take_arrays
from recon_jax.parallel.host import cpu_cores as cpu_cores
from recon_jax.parallel.host import host_map as host_map
from recon_jax.parallel.host import is_cpu as is_cpu
from recon_jax.parallel.host import is_single_cpu as is_single_cpu
from recon_jax.parallel.host import tracing_for_accelerators as tracing_for_accelerators
from recon_jax.parallel.host import tune_allocator as tune_allocator
from recon_jax.parallel.mapping import AXIS as AXIS
from recon_jax.parallel.mapping import MAPPINGS as MAPPINGS
from recon_jax.parallel.mapping import STEPS_IN_FLIGHT as STEPS_IN_FLIGHT
from recon_jax.parallel.mapping import data_parallel as data_parallel
from recon_jax.parallel.mapping import device_fold as device_fold
from recon_jax.parallel.mapping import device_map as device_map
from recon_jax.parallel.mapping import split_leading as split_leading
from recon_jax.parallel.mapping import use_mapping as use_mapping
from recon_jax.parallel.processes import describe as describe
from recon_jax.parallel.processes import device_count as device_count
from recon_jax.parallel.processes import end_process as end_process
from recon_jax.parallel.processes import from_main as from_main
from recon_jax.parallel.processes import gather_rows as gather_rows
from recon_jax.parallel.processes import in_main as in_main
from recon_jax.parallel.processes import initialize as initialize
from recon_jax.parallel.processes import is_main as is_main
from recon_jax.parallel.processes import peer_failures as peer_failures
from recon_jax.parallel.processes import placement as placement
from recon_jax.parallel.processes import preempted as preempted
from recon_jax.parallel.processes import process_count as process_count
from recon_jax.parallel.processes import process_index as process_index
from recon_jax.parallel.processes import total_device_count as total_device_count
from recon_jax.parallel.processes import wait_for_all as wait_for_all
from recon_jax.parallel.sharded import is_row_sharded as is_row_sharded
from recon_jax.parallel.sharded import row_sharded_fold as row_sharded_fold
from recon_jax.parallel.sharded import row_sharded_map as row_sharded_map
