"""What is read from a trained variational autoencoder: code length, latents, probes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import trained, vae_runs
from recon_jax import data, losses, models, probes, spectral, training
from recon_jax.report import local_vae as words


def read_out(context: vae_runs.Context, seen: np.ndarray, unseen: np.ndarray) -> dict[str, Any]:
    """Test accuracies in per cent of probes with all labels, and with a few of each class.

    Args:
      context: of the run.
      seen: features of the training images.
      unseen: features of the test images.
    """
    options, classes = context.config.probe, context.seen.num_classes
    labels, truth = (
        split.read(np.arange(split.num_images))[1] for split in (context.seen, context.unseen)
    )

    def score(rows, neighbors):
        known, test = seen[rows], unseen
        fitted, convergence = probes.logistic_probe(
            known,
            labels[rows],
            classes,
            regularization=options.regularization,
            max_iterations=options.max_iterations,
        )
        scaler = probes.fit_standardizer(known)
        near = probes.knn_classify(
            *(probes.standardize(scaler, part) for part in (test, known)),
            labels[rows],
            classes,
            num_neighbors=min(neighbors, len(known)),
        )
        guesses = (probes.predict(fitted, test), near)
        return [100 * float(probes.accuracy(guess, truth)) for guess in guesses], convergence

    (linear, knn), convergence = score(np.arange(len(labels)), options.num_neighbors)
    few = []
    for draw in range(options.draws):
        rows = probes.few_shot_split(jax.random.key(draw), labels, options.shots, classes)
        few.append(score(np.asarray(rows), 1)[0])
    few_linear, few_knn = np.mean(few, 0)
    return {
        "linear": linear,
        "knn": knn,
        "few_linear": few_linear,
        "few_knn": few_knn,
        "probe_converged": convergence.converged,
    }


def posteriors(context: vae_runs.Context, model: models.VAE, variables: Any, source: data.Source):
    """Posterior means and standard deviations (N, Z) of all images of a split."""
    encode = training.make_encode(model, context.likelihood.levels)
    both, _ = training.extract(encode, variables, trained.evaluation_batches(source))
    return np.split(both, 2, axis=1)


def kept_directions(context: vae_runs.Context, seen: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """Share of each principal direction of the pixels that is linearly read from features."""
    return spectral.predicted_directions(seen, context.scores[0], unseen, context.scores[1])


def judge(context: vae_runs.Context, trainer: trained.Trainer, state: training.TrainState):
    """Code length of test images, and what the latents hold."""
    variables = training.variables_of(state)
    metrics = trainer.evaluate(state, trained.evaluation_batches(context.unseen))
    seen, _ = posteriors(context, trainer.model, variables, context.seen)
    means, scales = posteriors(context, trainer.model, variables, context.unseen)
    posterior = losses.Posterior(jnp.asarray(means), jnp.asarray(scales))
    active = probes.active_units(means)
    kl = np.asarray(losses.gaussian_kl(posterior)).mean(0)
    return {
        **metrics,
        "kl_per_dimension": kl,
        "active": int(np.sum(active)),
        "information": float(probes.mutual_information(jax.random.key(0), means, scales)),
        "collapse": probes.describe_collapse(kl, active),
        "kept": kept_directions(context, seen, means),
        **read_out(context, seen, means),
    }


def run_cell(
    context: vae_runs.Context, decoder: str, latent_size: int, seeds: list[int]
) -> list[dict[str, np.ndarray]]:
    """Train and judge once for each seed; finished runs are read, not trained again."""
    made = functools.cache(functools.partial(vae_runs.make_trainer, context, decoder, latent_size))
    settings = [context.config.probe.to_dict(), trained.decisive(context.config.train)]
    rows = []
    for seed in seeds:
        name, key = vae_runs.run_of(context, decoder, latent_size, seed)

        def compute(seed=seed):
            state, seconds = vae_runs.train_cell(context, made(), decoder, latent_size, seed)
            return {**judge(context, made(), state), "seconds": seconds}

        rows.append(context.cached(name, [key, settings, seed], compute))
    return rows


def outcome(
    context: vae_runs.Context, decoder: str, latent_size: int, rows: list[dict[str, np.ndarray]]
) -> words.Outcome:
    """A row of the table, from what `run_cell` returns."""

    def values(field):
        return np.array([float(row[field]) for row in rows])

    fields = ("nll", "kl", "active", "information", "linear", "knn", "few_linear", "few_knn")
    return words.Outcome(
        horizon=vae_runs.parse_decoder(decoder),
        latent_size=latent_size,
        dimensions=int(np.prod(context.train.image_shape)),
        kept=np.stack([row["kept"] for row in rows]),
        seconds=values("seconds"),
        collapse=tuple(str(row["collapse"]) for row in rows),
        **{field: values(field) for field in fields},
    )


def baselines(context: vae_runs.Context, latent_sizes: tuple[int, ...]) -> list[words.Baseline]:
    """The same read-outs of the pixels, and of their principal components."""
    sizes = {"pixels": 0, **{f"PCA, {size}": size for size in latent_sizes}}
    found = []
    for name, size in sizes.items():

        def compute(size=size):
            # All principal components are the pixels, turned.
            parts = (part[:, : size or None].astype(np.float32) for part in context.scores)
            seen, unseen = parts
            return {
                **read_out(context, seen, unseen),
                "kept": kept_directions(context, seen, unseen),
            }

        row = context.cached(name.replace(", ", "-"), context.config.probe.to_dict(), compute)
        scores = {f: np.array([float(row[f])]) for f in ("linear", "knn", "few_linear", "few_knn")}
        kept = row["kept"] if size else None
        found.append(words.Baseline(name=name, latent_size=size, kept=kept, **scores))
    return found


def describe(
    context: vae_runs.Context,
    rows: list[dict[str, np.ndarray]],
    seeds: list[int],
    facts: Mapping[str, Any],
    details: str = "",
) -> str:
    """Setting of a run in words, for the note of a table; `details` if its read-outs are others."""
    config, train, model = context.config, context.train, context.config.model
    height, width, channels = train.image_shape
    texture, options = config.texture, config.train
    mixtures = config.likelihood.get("num_components", 0)
    warmup = f"KL warm-up over {config.kl_warmup:.0%} of the run" if config.kl_warmup else ""
    parts = [
        f"Ours: {train.name}, {train.num_images:,} training and {context.unseen.num_images:,} test "
        f"images of {height}x{width}x{channels} in {context.likelihood.levels} levels, "
        f"{context.likelihood.name}{f' of {mixtures}' if mixtures else ''}; {model.networks} "
        f"{'-'.join(map(str, model.widths))} with {model.norm} norm, {model.decoder_features} "
        f"features to a head of {2 * model.head_width} channels and {model.num_blocks} block(s); "
        f"{options.epochs} epochs, batch {options.batch_size}, rate {options.learning_rate:g}, "
        f"{warmup or 'no KL warm-up'}"
        f"{'' if options.augment == 'none' else f', {options.augment}'}.",
        f"Images are clip({texture.brightness:g} + {texture.contrast:g} x + strength t), t of "
        f"correlation {texture.correlation:g}."
        if texture.contrast != 1 or texture.strength
        else "",
        details
        or f"Few labels: {config.probe.shots} a class, mean of {config.probe.draws} draws. "
        "Pixels and PCA have one fit each.",
        "Bits are a bound, of one latent an image.",
        f"Reduced: {config.reduction}." if config.reduction else "",
        f"Mean ± standard deviation over seeds {', '.join(map(str, seeds))}.",
        ""
        if all(bool(row.get("probe_converged", True)) for row in rows)
        else "A logistic regression reached its last iteration before it converged.",
        trained.device_note(facts, sum(float(row["seconds"]) for row in rows)),
    ]
    return " ".join(filter(None, parts))
