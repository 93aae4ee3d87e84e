"""The closed forms as they run by default, without float64; saves what they return."""

import sys

import jax
import numpy as np

from recon_jax.spectral import (
    alignment_curve,
    eigendecompose,
    explained_variance,
    init_moments,
    learning_times,
    mask_sweep,
    neutrality,
    patch_mask,
    project,
    solve_denoising,
    solve_joint,
    split_by_variance,
    stream_moments,
    update_moments,
)


def main(source, target):
    data = np.load(source)
    images, labels, shape = data["images"], data["labels"], tuple(data["images"].shape[1:])
    moments = stream_moments([(images[:50], labels[:50]), (images[50:], labels[50:])], 3)
    updated = update_moments(init_moments(moments.num_features, 3), images, labels)
    mask = patch_mask(0.5, 2, shape)
    spectrum = eigendecompose(moments)
    top, _ = split_by_variance(spectrum, 0.7)
    joint, denoising = solve_joint(moments, 4, 1.0), solve_denoising(moments, mask, 4, 1.0)
    results = {
        "mean": moments.mean,
        "scatter": moments.scatter,
        "cross": moments.cross,
        "updated": updated.scatter,
        "values": spectrum.values,
        "explained": explained_variance(spectrum),
        "times": learning_times(spectrum),
        "projected": project(images[:3], top, spectrum.mean),
        "joint_loss": joint.loss,
        "joint_map": joint.encoder @ joint.decoder,
        "denoising_loss": denoising.loss,
        "denoising_map": denoising.encoder @ denoising.decoder,
        "clean": alignment_curve(moments),
        "masked": alignment_curve(moments, mask),
        "sines": neutrality(moments, mask).max_sine[:-1],
    }
    dtypes = {name: str(value.dtype) for name, value in results.items()}
    assert not jax.config.jax_enable_x64
    assert set(dtypes.values()) == {"float32"}, dtypes
    results["sweep"] = mask_sweep(moments, [0.0, 0.5], [1, 2], shape)
    np.savez(target, **{name: np.asarray(value, np.float64) for name, value in results.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
