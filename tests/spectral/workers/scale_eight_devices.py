"""Checks on 8 simulated devices of what large images need, in a process of its own."""

import re
import sys

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from recon_jax import parallel  # noqa: E402
from recon_jax.parallel import mapping, sharded  # noqa: E402
from recon_jax.spectral import (  # noqa: E402
    eigendecompose,
    eigenvalue_bounds,
    sketch_scatter,
    sketched_alignment,
    stream_moments,
    stream_sharded_moments,
    stream_sketch,
)
from tests.checks import run_checks  # noqa: E402

D, CLASSES, KEY = 48, 3, jax.random.key(0)


def batches(count=3, size=16, dtype=np.float64, shape=(4, 4, 3)):
    rng = np.random.default_rng(0)
    for _ in range(count):
        images = 2 + rng.standard_normal((size, *shape)) * np.linspace(0.1, 1, shape[2])
        if dtype == np.uint8:
            images = np.clip(60 * images, 0, 255)
        yield images.astype(dtype), rng.integers(0, CLASSES, size), rng.random(size) < 0.8


def one_device(*args, **options):
    return stream_moments(batches(*args, **options), CLASSES, engine="host")


def assert_close(tree, expected, rtol=1e-12):
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(np.abs(b).max()))


def check_the_sharded_scatter_equals_the_dense_one():
    for options in ({}, {"dtype": np.uint8}, {"count": 20, "size": 8}):
        ours = stream_sharded_moments(batches(**options), CLASSES)
        assert_close(ours, one_device(**options))


def check_no_device_holds_more_than_its_rows():
    scatter = stream_sharded_moments(batches(), CLASSES).scatter
    assert scatter.shape == (D, D)
    assert parallel.is_row_sharded(scatter)
    shards = sorted(scatter.addressable_shards, key=lambda shard: shard.index[0].start)
    assert len({shard.device for shard in shards}) == 8
    for number, shard in enumerate(shards):
        assert shard.data.shape == (D // 8, D)
        assert shard.index[0] == slice(number * D // 8, (number + 1) * D // 8)
    assert not parallel.is_row_sharded(jnp.eye(16))


def largest_array(program):
    """Scalars of the largest array in a compiled program."""
    shapes = re.findall(r"\b[fsu]\d+\[([\d,]+)\]", program)
    return max(int(np.prod([int(n) for n in shape.split(",")])) for shape in shapes)


def check_no_step_makes_more_than_its_rows_and_the_batch():
    lowered = []
    step = sharded._fold_step

    def recording(*args):
        compiled = step(*args)

        def call(*arrays):
            lowered.append(compiled.lower(*arrays).compile().as_text())
            return compiled(*arrays)

        return call

    sharded._fold_step = recording
    try:
        stream_sharded_moments(batches(count=1, size=8), CLASSES)
    finally:
        sharded._fold_step = step
    assert largest_array(lowered[0]) == max(D // 8 * D, 8 * D)


def check_the_top_of_a_sharded_scatter_is_that_of_the_dense_one():
    dense, ours = one_device(), stream_sharded_moments(batches(), CLASSES)
    options = {"key": KEY, "oversampling": 4, "power_iterations": 3}
    assert_close(sketch_scatter(ours, 6, **options), sketch_scatter(dense, 6, **options), 1e-8)
    whole = sketch_scatter(ours, D, key=KEY, power_iterations=0)
    assert_close(whole.values, eigendecompose(dense).values, 1e-10)


def check_rows_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"27 rows cannot be spread over 8 devices; .* pad to 32"):
        stream_sharded_moments(batches(shape=(3, 3, 3)), CLASSES)
    with pytest.raises(ValueError, match="a batch of 12 rows cannot be split over 8 devices"):
        stream_sharded_moments(batches(size=12), CLASSES)
    with pytest.raises(ValueError, match="no images were given"):
        stream_sharded_moments([], CLASSES)
    images, labels, mask = next(batches())
    with pytest.raises(ValueError, match="no images were given"):
        stream_sharded_moments([(images, labels, mask & False)], CLASSES)


def check_a_sketch_over_devices_is_that_of_one():
    options = {"key": KEY, "oversampling": 4, "power_iterations": 1}
    ours = stream_sketch(batches, CLASSES, 6, **options)
    expected = sketch_scatter(one_device(), 6, **options)
    assert_close(ours, expected, 1e-8)
    lower, upper = eigenvalue_bounds(ours)
    values = eigendecompose(one_device()).values[:10]
    assert (lower <= values).all()
    assert (values <= upper).all()
    assert_close(sketched_alignment(ours), sketched_alignment(expected), 1e-8)


def programs_of(stream):
    """Compiled programs that a stream runs over the devices, in their order."""
    found, replicas = [], mapping._replicas

    def recording(*args):
        mapped = replicas(*args)

        def call(*arrays):
            found.append(mapped.lower(*arrays).compile().as_text())
            return mapped(*arrays)

        return call

    mapping._replicas = recording
    try:
        stream()
    finally:
        mapping._replicas = replicas
    return found


def collective_bytes(program):
    """Bytes that the collectives of a compiled program produce."""
    kinds = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|ragged-all-to-all"
    total = 0
    for line in program.splitlines():
        found = re.search(rf"= (.*?) (?:{kinds})(?:-start)?\(", line)
        if found:
            for kind, shape in re.findall(r"\b[a-z]+(\d+)\[([\d,]*)\]", found[1]):
                total += int(kind) // 8 * int(np.prod([int(n) for n in shape.split(",") if n]))
    return total


def bytes_of(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def check_collectives_are_recognised():
    line = "%x = (f64[3,4]{1,0}, s32[]) all-reduce(%a, %b), replica_groups={{0,1}}"
    assert collective_bytes(line) == 3 * 4 * 8 + 4
    assert collective_bytes("%y = f32[8]{0} all-gather-start(%a)") == 32
    assert collective_bytes("%z = f32[8]{0} add(%a, %b)") == 0


def check_traffic_of_moments_does_not_depend_on_the_number_of_images():
    seen = set()
    for name in mapping.MAPPINGS:
        parallel.use_mapping(name)
        for count, size in ((1, 8), (5, 8), (3, 64)):
            moments = []
            programs = programs_of(
                lambda out=moments, c=count, s=size: out.append(
                    stream_moments(batches(c, s), CLASSES)
                )
            )
            assert len(programs) == count + 1
            assert [collective_bytes(program) for program in programs[:-1]] == [0] * count
            seen.add(collective_bytes(programs[-1]))
            # Each statistic once, and nothing else.
            assert seen == {bytes_of(moments[0])}
    parallel.use_mapping("pmap")


def check_traffic_of_a_sketch_is_one_thin_matrix_a_pass():
    traffic = set()
    for count, size in ((1, 8), (4, 16)):
        programs = programs_of(
            lambda c=count, s=size: stream_sketch(
                lambda: batches(c, s), CLASSES, 5, key=KEY, oversampling=0
            )
        )
        assert len(programs) == 2 * (count + 1)
        updates = [p for i, p in enumerate(programs) if i % (count + 1) < count]
        assert [collective_bytes(program) for program in updates] == [0] * len(updates)
        traffic.add(tuple(collective_bytes(programs[i]) for i in (count, 2 * count + 1)))
    (bytes_per_pass,) = traffic
    small = 8 * (D * (1 + CLASSES) + 1) + 4 * (1 + CLASSES)
    assert bytes_per_pass == (8 * D * 5 + small, 8 * D * 25 + small)


if __name__ == "__main__":
    run_checks(globals(), sys.argv[1])
