import jax
import numpy as np
import pytest

from experiments import (
    benchmark,
    benchmark_contrastive,
    benchmark_deformation,
    benchmark_devices,
    benchmark_geometry,
    benchmark_job,
    benchmark_masked,
    benchmark_multiview,
    benchmark_probes,
    benchmark_sensitivity,
    benchmark_training,
    benchmark_variational,
    benchmark_variational_peers,
    benchmark_views,
)
from experiments.benchmark_job import Job, Measured, measure
from recon_jax import augment, diffeo

pytest.importorskip("torch", reason="the peers are PyTorch and scikit-learn: [benchmark]")
pytest.importorskip("sklearn", reason="the peers are PyTorch and scikit-learn: [benchmark]")


TRAINED = {
    **benchmark_probes.JOBS,
    **benchmark_training.JOBS,
    **benchmark_masked.JOBS,
    **benchmark_variational.JOBS,
    **benchmark_deformation.JOBS,
    **benchmark_sensitivity.JOBS,
    **benchmark_contrastive.JOBS,
    **benchmark_views.JOBS,
}


# "resume" starts three processes.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "resume" else ())
        for name in sorted(TRAINED)
    ],
)
def test_jobs_and_their_peers_run(name):
    with jax.enable_x64(False):
        job = benchmark.JOBS[name](True)
        for call in (job.ours, *job.peers.values()):
            assert benchmark_job.timed(call) > 0


def test_streams_on_8_devices_are_timed_against_one():
    job = benchmark.JOBS["devices-moments"](True)
    for call in (job.ours, *job.peers.values()):
        assert benchmark_job.timed(call) > 0
    benchmark_devices.stream_sketch(benchmark_devices.BATCH, 16)


def test_the_steps_compute_in_float32():
    with jax.enable_x64(False):
        state, metrics = benchmark_training.JOBS["autoencoder"](True).ours()
        assert np.isfinite(metrics["loss"][0])
        for leaf in jax.tree.leaves((state, metrics)):
            assert leaf.dtype.itemsize <= 4 or jax.dtypes.issubdtype(
                leaf.dtype, jax.dtypes.extended
            )


def test_networks_of_another_size_are_not_compared():
    other = benchmark_training.torch_autoencoder((3, 4, 6, 9))
    batch = benchmark_training.batch_of(2)
    with jax.enable_x64(False), pytest.raises(ValueError, match="networks differ"):
        benchmark_training.step_job("", benchmark_training.autoencoder(True), other, None, batch)


def test_mixtures_of_the_peers_are_ours():
    with jax.enable_x64(False):
        job = benchmark_variational.JOBS["mixture"](True)
        value, gradient = job.ours()
        # The second one takes a density for improbable bins.
        for call, accuracy in zip(job.peers.values(), (1e-5, 1e-3), strict=True):
            other, slope = call()
            np.testing.assert_allclose(other, value, rtol=accuracy)
            np.testing.assert_allclose(slope, gradient, atol=10 * accuracy * np.abs(slope).max())


def test_both_orders_sample_the_same_images():
    with jax.enable_x64(False):
        job = benchmark_variational.JOBS["sampling"](True)
        (other,) = (call() for call in job.peers.values())
        np.testing.assert_array_equal(job.ours(), other)
        assert len(np.unique(other)) > 20


def test_pixel_models_of_another_size_are_not_compared():
    model, batch = benchmark_variational.MaskedStack(100, 4), benchmark_variational.batch_of
    for other in ((100, 5), (90, 4)):
        network = benchmark_variational_peers.stack(*other)
        with jax.enable_x64(False), pytest.raises(ValueError, match="networks differ"):
            benchmark_variational.step_job("", model, None, network, None, batch(2, (8, 8, 3)), 1.0)


def test_deformations_of_the_peers_are_ours():
    import torch

    images = np.random.default_rng(0).random((3, 8, 8, 2), np.float32)
    tables = 3 * np.random.default_rng(1).standard_normal((2, 3, 3, 3), np.float32)
    temperature = diffeo.temperature_for(1.0, 8, benchmark_deformation.CUTOFF)
    expected = diffeo.warp(images, *diffeo.displacement_field(*tables, 8, temperature))
    peer = benchmark_deformation.Peer(8, temperature)
    theirs = torch.tensor(images).permute(0, 3, 1, 2), torch.tensor(tables)
    single = [peer.one(theirs[0][i], theirs[1][:, i]) for i in range(3)]
    for found in (peer.batched(*theirs), torch.stack(single)):
        np.testing.assert_allclose(found.permute(0, 2, 3, 1), expected, atol=1e-5)


def test_sensitivities_of_the_peer_are_ours():
    with jax.enable_x64(False):
        job = benchmark_sensitivity.JOBS["layerwise"](True)
        (other,) = (call() for call in job.peers.values())
        np.testing.assert_allclose(np.stack(list(job.ours().values())), other, rtol=1e-4)
        assert other.shape == (15, 3)


def test_contrastive_losses_of_the_peer_are_ours():
    with jax.enable_x64(False):
        job = benchmark_contrastive.JOBS["nt-xent"](True)
        value, gradients = job.ours()
        other, slopes = next(iter(job.peers.values()))()
        slopes = [slope.numpy() for slope in slopes]
        np.testing.assert_allclose(value, other, rtol=1e-6)
        for gradient, slope in zip(gradients, slopes, strict=True):
            np.testing.assert_allclose(gradient, slope, atol=1e-5 * np.abs(slope).max())


def test_tangent_planes_of_the_peer_are_ours():
    with jax.enable_x64(False):
        job = benchmark_geometry.JOBS["tangents"](True)
        ours, (theirs,) = np.asarray(job.ours()), (call() for call in job.peers.values())
        assert ours.shape == theirs.shape == (200, 24, 6)
        # Bases of one plane differ by signs and, among equal singular values, by rotations.
        planes = [basis @ basis.swapaxes(1, 2) for basis in (ours, theirs)]
        np.testing.assert_allclose(*planes, atol=1e-4)


def test_views_of_the_peer_are_ours():
    import torch

    shape = (40, 12, 3)  # of another size down than across, and of a wider blur
    images = np.random.default_rng(0).random((40, *shape), np.float32)
    keys = jax.random.split(jax.random.key(0), 40)
    numbers = jax.vmap(lambda key: jax.random.uniform(key, (13,), jax.numpy.float32))(keys)
    expected = augment.view_policy(shape)(keys, jax.numpy.asarray(images), 1.0)
    theirs = torch.tensor(images).permute(0, 3, 1, 2), torch.tensor(np.asarray(numbers).T)
    found = benchmark_views.Peer()(*theirs).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_seeds_of_the_study_in_one_call_are_those_of_the_loop():
    with jax.enable_x64(False):
        job = benchmark_multiview.JOBS["multiview-seeds"](True)
        (loop,) = (call() for call in job.peers.values())
        for found, *seeds in zip(*map(jax.tree.leaves, (job.ours(), *loop)), strict=True):
            np.testing.assert_allclose(found, np.stack(seeds), atol=1e-3)


def test_rows_hold_medians_and_ratios():
    seconds = {"ours": iter([9.0, 2.0, 1.0, 8.0]), "peer": iter([5.0, 4.0, 3.0])}
    job = Job(
        "task",
        lambda: Measured(next(seconds["ours"])),
        {"peer": lambda: Measured(next(seconds["peer"]))},
        1.0,
    )
    assert measure("name", job, 3) == [["task", "peer", 2.0, 4.0, 0.5, "<= 1", 7.0]]


def test_peers_are_warmed_and_repeated():
    calls = []
    job = Job("task", lambda: None, {"peer": lambda: calls.append(1)}, 1.0, 3, warm_peers=True)
    measure("name", job, 2)
    assert len(calls) == 1 + 2 * 3
