"""From the images that a config names to their moments: what experiments on moments share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from recon_jax import data, parallel, report, spectral


def open_data(options: ConfigDict, name: str) -> data.Source:
    """The source a name stands for, under the data options of a config."""
    return data.open_source(
        name,
        options.split,
        # A scene is drawn at its own size.
        image_size=None if "image_size=" in name else options.image_size or None,
        data_dir=options.data_dir or None,
        limit=options.limit or None,
    )


def seeded(name: str, seed: int) -> str:
    """The name of a source that is drawn, with its seed; other names as they are."""
    if not name.startswith("scenes:") or "seed=" in name:
        return name
    return f"{name}{'' if name == 'scenes:' else '&'}seed={seed}"


def first_images(source: data.Source) -> str:
    """Short SHA-256 of the first 64 images, to tell data of one name apart."""
    first = source.read(np.arange(min(64, source.num_images)))[0]
    return hashlib.sha256(np.ascontiguousarray(first).tobytes()).hexdigest()


def in_units(batches: Iterable[data.Batch], normalization: str) -> Iterator[data.Batch]:
    """The batches, each image divided by its own standard deviation for "per_image"."""
    for batch in batches:
        if normalization == "per_image":
            batch = batch._replace(images=data.per_image_standardize(batch.images))
        yield batch


def stream_folds(config: ConfigDict, source: data.Source, workdir: Path) -> list[spectral.Moments]:
    """Statistics of each fold of the images, kept in the workdir."""
    options = config.data
    count = max(config.folds, 1)
    devices = parallel.total_device_count()
    size, folds = data.fold_steps(source.num_images, count, options.batch_size, devices)
    key = {
        "source": [source.name, source.num_images, source.image_shape],
        "first_images": first_images(source),
        "data": options.to_dict(),
        "precision": config.precision,
    }
    found = []
    for fold, steps in enumerate(folds):

        def compute(label=f"{source.name} {fold + 1}/{count}", steps=steps):
            batches = (
                data.batch_at(source, step=step, batch_size=size, **parallel.placement())
                for step in steps
            )
            shown = report.progress(in_units(batches, options.normalization), label, len(steps))
            return spectral.stream_moments(data.prefetch(shown), source.num_classes)._asdict()

        arrays = report.cached(workdir / "cache", "moments", [key, count, fold], compute)
        found.append(jax.tree.map(jnp.asarray, spectral.Moments(**arrays)))
    return found


def read_saved(config: ConfigDict, source: data.Source) -> spectral.Moments:
    """Statistics from a file of `experiments.moments`; ValueError unless of these very images."""
    path = Path(config.data.moments)
    moments, about = spectral.load_moments(path / "moments.npz" if path.is_dir() else path)
    missing = spectral.missing_shares(about)
    if missing:
        raise ValueError(
            f"data.moments={path} lacks shares {missing} of {about['shares']}; merge them first: "
            "python -m experiments.moments --merge"
        )
    units = "per_image" if config.data.normalization == "per_image" else "none"
    wanted = describe(config.data, source, units)
    wrong = [
        f"{field} is {about.get(field)!r} there, {value!r} here"
        for field, value in wanted.items()
        if about.get(field) != value
    ]
    if wrong:
        raise ValueError(f"data.moments={path} is of other images: {'; '.join(wrong)}")
    return moments


def describe(options: ConfigDict, source: data.Source, units: str) -> dict[str, Any]:
    """What moments in a file must be of for two of them to be of the same images, as JSON."""
    return {
        "source": source.name,
        "split": source.split,
        "image_shape": list(source.image_shape),
        "num_images": source.num_images,
        "limit": options.limit,
        "units": units,
        "first_images": first_images(source),
    }


def stream(
    config: ConfigDict, source: data.Source, workdir: Path
) -> tuple[list[spectral.Moments], np.ndarray]:
    """Statistics of the normalised images for each fold, and the factor that normalised them."""
    if config.data.moments:
        found = [read_saved(config, source)]
    else:
        found = stream_folds(config, source, workdir)
    name = config.data.normalization
    if name == "per_image":  # each image has been divided by its own
        return found, np.ones(())
    scale = spectral.normalizing_scale(name, spectral.union_moments(found))
    return [spectral.scale_moments(fold, scale) for fold in found], np.asarray(scale)
