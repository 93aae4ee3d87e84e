"""One of two processes with 4 simulated devices each: streams its share of every batch."""

import sys
from pathlib import Path

import jax

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

import numpy as np  # noqa: E402

from recon_jax import data, parallel  # noqa: E402


class InterruptionError(Exception):
    """Stands for a machine that is taken away."""


def resumed(batches_from, steps, folder):
    """A pass that all processes leave at step 3, and take up again."""
    from recon_jax.spectral import resume_moments

    def broken(start):
        for step, batch in enumerate(batches_from(start), start):
            if step == 3:
                raise InterruptionError
            yield batch

    options = {"path": folder / "moments.npz", "save_every": 2, "identity": {"source": "x"}}
    try:
        resume_moments(broken, steps, 3, **options)
    except InterruptionError:
        pass
    else:
        raise AssertionError("the pass was not interrupted")
    if parallel.is_main():
        assert sorted(path.name for path in folder.glob("moments*")) == ["moments.npz"]
    started = []

    def recorded(start):
        started.append(start)
        return batches_from(start)

    moments = resume_moments(recorded, steps, 3, **options)
    assert started == [2]
    return moments


def main(port, index, source, target, folder):
    parallel.initialize(f"localhost:{port}", 2, index)
    from recon_jax import spectral

    assert parallel.process_count() == 2
    assert parallel.process_index() == index
    assert jax.device_count() == 8
    assert not parallel.is_single_cpu()
    arrays = np.load(source)
    whole = data.from_arrays(arrays["images"], arrays["labels"])
    seen = []

    def read(indices):
        seen.extend(indices.tolist())
        return whole.read(indices)

    def batches_from(start, source=whole):
        return data.epoch_batches(
            source, 16, seed=5, start_step=start, process_index=index, process_count=2
        )

    moments = spectral.stream_moments(batches_from(0, whole._replace(read=read)), 3)
    assert len(seen) == len(set(seen))
    # They are this process's own, not part of an array that both must touch together.
    assert all(leaf.devices() == {jax.local_devices()[0]} for leaf in moments)
    # Ordinary functions, jitted for one device, must accept what the processes agreed on.
    values = jax.jit(lambda m: spectral.eigendecompose(m).values)(moments)
    np.testing.assert_allclose(values, spectral.eigendecompose(moments).values, rtol=1e-12)

    options = {"key": jax.random.key(0), "oversampling": 2, "power_iterations": 1}
    sketch = spectral.stream_sketch(lambda: batches_from(0), 3, 4, **options)
    sharded = spectral.stream_sharded_moments(batches_from(0), 3)
    shards = sorted(sharded.scatter.addressable_shards, key=lambda shard: shard.index[0].start)
    again = resumed(batches_from, 5, Path(folder))
    np.savez(
        target,
        indices=seen,
        values=np.asarray(values),
        sketch=np.asarray(sketch.values),
        sharded_sketch=np.asarray(spectral.sketch_scatter(sharded, 4, **options).values),
        sharded_rows=np.concatenate([shard.data for shard in shards]),
        **{k: np.asarray(v) for k, v in moments._asdict().items()},
        **{f"resumed_{k}": np.asarray(v) for k, v in again._asdict().items()},
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
