"""One of two processes with 4 simulated devices each: streams its half of every batch."""

import sys

import jax

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

import numpy as np  # noqa: E402

from recon_jax import parallel  # noqa: E402


def main(port, index, source, target):
    parallel.initialize(f"localhost:{port}", 2, index)
    from recon_jax.spectral import eigendecompose, stream_moments

    assert parallel.process_count() == 2
    assert parallel.process_index() == index
    assert jax.device_count() == 8
    assert not parallel.is_single_cpu()
    data = np.load(source)

    def halves():
        for start in range(0, len(data["labels"]), 16):
            own = slice(start + 8 * index, start + 8 * index + 8)
            yield data["images"][own], data["labels"][own], data["mask"][own]

    moments = stream_moments(halves(), 3)
    # They are this process's own, not part of an array that both must touch together.
    assert all(leaf.devices() == {jax.local_devices()[0]} for leaf in moments)
    # Ordinary functions, jitted for one device, must accept what the processes agreed on.
    values = jax.jit(lambda m: eigendecompose(m).values)(moments)
    np.testing.assert_allclose(values, eigendecompose(moments).values, rtol=1e-12)
    np.savez(
        target,
        values=np.asarray(values),
        **{k: np.asarray(v) for k, v in moments._asdict().items()},
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
