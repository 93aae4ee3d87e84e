"""One seed of the question: which features does each way of training capture, and what is it worth?

Source: Pan et al. 2023 (arXiv 2206.03826); sizes and controls chosen here.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from recon_jax import parallel
from recon_jax.checks import check_integer, check_numbers
from recon_jax.losses import is_correct
from recon_jax.multiview.capture import (
    aligned,
    captured,
    feature_correlation,
    kernel_purity,
    norm_growth,
    winning_views,
)
from recon_jax.multiview.checks import check_keep
from recon_jax.multiview.data_model import (
    MultiViewBatch,
    MultiViewSpec,
    sample_features,
    sample_multiview,
)
from recon_jax.multiview.descent import Trained
from recon_jax.multiview.finetuning import finetune, train_head
from recon_jax.multiview.network import class_scores, init_kernels
from recon_jax.multiview.pretraining import pretrain
from recon_jax.multiview.supervised import train_supervised
from recon_jax.multiview.teacher import default_teacher_scale, warn_outside

# Options of `capture_study` that may be traced.
_NUMBERS = ("single_view_fraction", "init_scale", "keep", "teacher_scale", "threshold")


class Outcome(NamedTuple):
    """What one way of training led to.

    Attributes:
      captured: share of the features, by the relative rule of `captured`.
      multi_view: accuracy on multi-view test images.
      single_view: accuracy on single-view test images.
      loss: of the last training step, mean cross-entropy in nats.
    """

    captured: Float[Array, ""]
    multi_view: Float[Array, ""]
    single_view: Float[Array, ""]
    loss: Float[Array, ""]


class CaptureStudy(NamedTuple):
    """All ways of training on the same images, from the same kernels; M members of an ensemble.

    Attributes:
      supervised: kernels trained on labels, each class with kernels of its own.
      supervised_head: the same with the head trained as well.
      frozen: a head on pretrained kernels, which stay as they are.
      finetuned: pretrained kernels, trained on together with a head.
      random_encoder: a head on the initial kernels: what the head alone can do.
      ensemble_multi_view: accuracy of the mean logits of the first 1 .. M supervised networks,
        which differ in their initial kernels alone, on multi-view images (M,).
      ensemble_single_view: the same on single-view images (M,).
      purity: `kernel_purity` of the pretrained kernels.
      growth: `norm_growth` of the pretrained kernels; the relative rule means nothing below 1.
      aligned: share of the features with a pretrained kernel at cosine 0.6 or more.
      predicted_winners: share of classes and members whose winning view after supervised training
        is the one of the larger initial correlation.
      agreeing_winners: share of classes in which two members have the same winning view, mean over
        pairs; 1/2 by chance, NaN for one member.
    """

    supervised: Outcome
    supervised_head: Outcome
    frozen: Outcome
    finetuned: Outcome
    random_encoder: Outcome
    ensemble_multi_view: Float[Array, " m"]
    ensemble_single_view: Float[Array, " m"]
    purity: Float[Array, ""]
    growth: Float[Array, ""]
    aligned: Float[Array, ""]
    predicted_winners: Float[Array, ""]
    agreeing_winners: Float[Array, ""]


class _Data(NamedTuple):
    features: Array
    train: MultiViewBatch
    multi_view: MultiViewBatch
    single_view: MultiViewBatch


def capture_study(
    key: Array,
    spec: MultiViewSpec | None = None,
    *,
    num_train: int = 400,
    num_test: int = 1000,
    kernels_per_class: int = 10,
    members: int = 4,
    single_view_fraction: ArrayLike = 0.0,
    init_scale: ArrayLike = 0.05,
    keep: ArrayLike = 0.5,
    teacher_scale: ArrayLike | None = None,
    threshold: ArrayLike = 1.0,
    power: float = 4,
    pretrain_steps: int = 400,
    supervised_steps: int = 800,
    finetune_steps: int = 300,
) -> CaptureStudy:
    """The whole comparison for one seed: data, networks and measures are a function of the key.

    It can be jitted and vmapped; `capture_studies` runs several seeds in one compiled call.

    Args:
      key: of everything.
      spec: the data; `MultiViewSpec()` if None.
      num_train: training images, at least 1; pretraining sees the same, without their labels.
      num_test: test images of each kind, at least 1.
      kernels_per_class: m, at least 1; the encoder has k m kernels.
      members: supervised networks, at least 1; the first is `supervised`.
      single_view_fraction: mu, share of single-view training images, in [0, 1].
      init_scale: sigma_0 > 0.
      keep: theta, in (0, 1].
      teacher_scale: tau > 0, or None; see `pretrain`.
      threshold: rho > 0 of the rectifier.
      power: q >= 1 of the rectifier.
      pretrain_steps: at least 1.
      supervised_steps: most steps of supervised training, at least 1.
      finetune_steps: of fine-tuning and of heads alone, at least 1.

    Returns:
      The `CaptureStudy`.

    Raises:
      ValueError: if a number is out of range.

    Source: Pan et al. 2023 (arXiv 2206.03826); sizes and the control `random_encoder` chosen here.
    """
    spec = MultiViewSpec() if spec is None else spec
    check_integer("kernels_per_class", kernels_per_class, 1, "m")
    check_integer("members", members, 1, "supervised networks on the same images")
    data_key, kernel_key = jax.random.split(key)
    data = _draw(data_key, spec, num_train, num_test, single_view_fraction)
    starts = jax.vmap(
        lambda k: init_kernels(k, spec.num_classes * kernels_per_class, spec.dim, init_scale)
    )(jax.random.split(kernel_key, members))
    start, network = starts[0], {"threshold": threshold, "power": power}
    labelled = (data.train.patches, data.train.labels, spec.num_classes)

    def supervise(kernels, **options):
        return train_supervised(
            kernels, *labelled, max_steps=supervised_steps, **options, **network
        )

    def read_out(train, kernels):
        return outcome(train(kernels, *labelled, steps=finetune_steps, **network))

    def outcome(trained):
        found = captured(feature_correlation(trained.kernels, data.features)).mean()
        tests = (data.multi_view, data.single_view)
        accuracies = (_accuracy(_scores(trained, test, network), test) for test in tests)
        return Outcome(found, *accuracies, trained.history.loss[-1])

    supervised = jax.lax.map(supervise, starts)
    ensembles = [
        _ensemble_accuracy(supervised, test, network)
        for test in (data.multi_view, data.single_view)
    ]
    masks = {"patches_per_feature": spec.patches_per_feature, "steps": pretrain_steps}
    pretrained = pretrain(
        start, data.train.patches, keep, teacher_scale, **masks, **network
    ).kernels
    correlations = feature_correlation(pretrained, data.features)
    return CaptureStudy(
        outcome(jax.tree.map(lambda leaf: leaf[0], supervised)),
        outcome(supervise(start, train_head=True)),
        read_out(train_head, pretrained),
        read_out(finetune, pretrained),
        read_out(train_head, start),
        *ensembles,
        kernel_purity(correlations),
        norm_growth(start, pretrained),
        aligned(pretrained, data.features).mean(),
        *_lottery(starts, supervised.kernels, data.features),
    )


def capture_studies(keys: Array, *, at_once: int | None = None, **options: Any) -> CaptureStudy:
    """`capture_study` of several seeds, in one compiled call.

    Other numbers among the options do not compile it again; sizes, numbers of steps and `power` do.

    Args:
      keys: of the seeds (S,).
      at_once: seeds that are computed side by side, at least 1; the others follow. None is all on
        an accelerator, and 1 on a CPU, where what one seed needs then stays in the cache.
      **options: of `capture_study`, the same for all seeds.

    Returns:
      The `CaptureStudy`, each number with a leading axis of seeds (S,).

    Raises:
      ValueError: if a number is out of range, or there is no seed.
    """
    if keys.ndim < 1 or not len(keys):
        raise ValueError(
            f"keys have shape {keys.shape}; give one a seed: jax.random.split(key, 10)"
        )
    at_once = (1 if parallel.is_cpu() else len(keys)) if at_once is None else at_once
    check_integer("at_once", at_once, 1, "seeds computed side by side")
    numbers = {name: options.pop(name) for name in _NUMBERS if options.get(name) is not None}
    _check_numbers(options, **numbers)
    return _studies(keys, numbers, at_once=at_once, static=tuple(sorted(options.items())))


def _check_numbers(options, *, keep=0.5, teacher_scale=None, **numbers):
    """Refuse or warn here, because within jit the numbers have no values."""
    check_keep(keep)
    check_numbers("single_view_fraction", numbers.get("single_view_fraction", 0.0), "[0, 1]", "mu")
    for name in ("init_scale", "threshold"):
        check_numbers(name, numbers.get(name, 1.0), "(0, inf)", "see capture_study")
    spec, power = options.get("spec") or MultiViewSpec(), options.get("power", 4)
    if teacher_scale is None:
        teacher_scale = default_teacher_scale(keep, spec.patches_per_feature, power)
    warn_outside(teacher_scale, keep, spec.patches_per_feature, power)


@functools.partial(jax.jit, static_argnames=("at_once", "static"))
def _studies(keys, numbers, *, at_once, static):
    def study(key):
        return capture_study(key, **numbers, **dict(static))

    # A batch of one would still be a batch, whose products of matrices are slower.
    return jax.lax.map(study, keys, batch_size=at_once if at_once > 1 else None)


def _draw(key, spec, num_train, num_test, single_view_fraction):
    feature_key, train_key, *test_keys = jax.random.split(key, 4)
    features = sample_features(feature_key, spec)
    train = sample_multiview(train_key, spec, features, num_train, single_view_fraction)
    tests = (
        sample_multiview(test_key, spec, features, num_test, fraction)
        for test_key, fraction in zip(test_keys, (0.0, 1.0), strict=True)
    )
    return _Data(features, train, *tests)


def _scores(trained: Trained, test: MultiViewBatch, network) -> Array:
    return class_scores(trained.kernels, trained.head, test.patches, **network)


def _accuracy(scores: Array, test: MultiViewBatch) -> Array:
    return is_correct(scores, test.labels).mean(dtype=scores.dtype)


def _ensemble_accuracy(members: Trained, test: MultiViewBatch, network) -> Array:
    """Accuracy of the summed logits of the first 1 .. M members (M,)."""
    scores = jax.lax.map(lambda member: _scores(member, test, network), members)
    return jax.vmap(_accuracy, (0, None))(jnp.cumsum(scores, 0), test)


def _lottery(starts: Array, trained: Array, features: Array) -> tuple[Array, Array]:
    """Shares of winners that the start predicts, and that two members agree on."""
    initial, final = (
        jax.vmap(lambda kernels: winning_views(feature_correlation(kernels, features)))(kernels)
        for kernels in (starts, trained)
    )
    count = len(final)
    same = (final[:, None] == final[None]).mean(dtype=starts.dtype)
    # The mean over pairs counts each member with itself; taken out.
    agreeing = (count * same - 1) / (count - 1) if count > 1 else jnp.full_like(same, jnp.nan)
    return (initial == final).mean(dtype=starts.dtype), agreeing
