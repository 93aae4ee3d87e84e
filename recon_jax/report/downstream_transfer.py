"""What pretraining is worth on other classes that share features with it: tables and claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from recon_jax.report.capture_figures import PRETRAINED, PURITY, SUPERVISED, draw_line
from recon_jax.report.claims import Claim, judge, sentence, tally
from recon_jax.report.feature_capture import PAPER, cell
from recon_jax.report.figures import COLORS, new_figure
from recon_jax.report.masked_autoencoder import UNPUBLISHED
from recon_jax.report.scale_detection import short
from recon_jax.report.tables import Table
from recon_jax.report.vae_outcomes import share_legend

NAMES = {
    "pretrained": "pretraining + fine-tuning",
    "pretrained_frozen": "pretraining + head",
    "transferred": "supervised pretraining + fine-tuning",
    "scratch": "supervision from scratch",
    "random_tuned": "random kernels + fine-tuning",
    "random_frozen": "random kernels + head",
}
STYLES = {
    "pretrained": PRETRAINED,
    "pretrained_frozen": {"color": COLORS[5], "marker": "o", "linestyle": ":"},
    "transferred": SUPERVISED,
    "scratch": {"color": COLORS[0], "marker": "D", "linestyle": "-."},
    "random_tuned": {"color": COLORS[4], "marker": "v", "linestyle": "--"},
    "random_frozen": PURITY,
}
READING = (
    "Overlap: share of the downstream features that were seen in pretraining. Covered: downstream "
    "features with a kernel at cosine 0.6 or more, before and after downstream training. Kept: of "
    "those covered before, the share still covered after."
)
CAPTION = (
    "Downstream accuracy and covered downstream features against the share of these features that "
    "were seen in pretraining: images of both features of their class, images of one, and features "
    "with a kernel at cosine 0.6 after downstream training; dotted: equal to the overlap. Mean and "
    "standard deviation over seeds."
)
RULES = (
    "The rules are this project's, because the paper's theorem and tables are not known here; they "
    "are about means over seeds, and were fixed before the first run."
)

COVERED, PART = 0.93, (0.4, 0.75)
NEAR, KEPT = 0.1, 0.95
MULTI, SINGLE = 97.0, 90.0
LEAD, RANDOM_LEAD = 15.0, 5.0
FALL, RISE = 2.0, 10.0


class Transfer(NamedTuple):
    """All ways of downstream training, at every overlap, over seeds.

    Attributes:
      overlaps: ascending (O,).
      pretraining_covered: share of the pretraining features with a kernel at cosine 0.6, after
        mask-reconstruction pretraining (seeds,).
      supervised_covered: the same after supervised pretraining (seeds,).
      methods: by the keys of `NAMES`, measures by name (seeds, O): "before", "after" and "kept",
        shares of downstream features; "multi" and "single", accuracies in per cent.
      seconds: all of it took, compilation included.
    """

    overlaps: Float[np.ndarray, " O"]
    pretraining_covered: Float[np.ndarray, " seeds"]
    supervised_covered: Float[np.ndarray, " seeds"]
    methods: Mapping[str, Mapping[str, Float[np.ndarray, "seeds O"]]]
    seconds: float


MEASURES = ("before", "after", "kept", "multi", "single")


def gather(arrays: Mapping[str, np.ndarray], overlaps: Sequence[float]) -> Transfer:
    """From arrays such as "pretrained.single" (seeds, O), accuracies as shares.

    Args:
      arrays: as computed, with "seconds".
      overlaps: in the order of their axis.
    """
    order = np.argsort(overlaps)
    methods = {
        key: {
            name: arrays[f"{key}.{name}"][:, order] * (100 if name in ("multi", "single") else 1)
            for name in MEASURES
        }
        for key in NAMES
    }
    covered = (arrays[f"{name}_covered"] for name in ("pretraining", "supervised"))
    return Transfer(
        np.sort(np.asarray(overlaps, float)), *covered, methods, float(arrays["seconds"])
    )


def transfer_table(found: Transfer, note: str) -> Table:
    """Every overlap and way of training, one row each."""
    rows = [
        [f"{overlap:g}", name, *(cell(found.methods[key][m][:, i]) for m in MEASURES), UNPUBLISHED]
        for i, overlap in enumerate(found.overlaps)
        for key, name in NAMES.items()
    ]
    columns = ["overlap", "way of training", "covered before", "covered after", "kept"]
    columns += ["multi-view accuracy (%)", "single-view accuracy (%)", "paper"]
    title = "What pretraining is worth on classes that share some of its features"
    return Table("transfer", title, columns, rows, f"{PAPER} {READING} {note}")


def _claim(
    claim: str,
    rule: str,
    values: np.ndarray,
    test: Callable[[np.ndarray], bool | np.bool_],
    overlaps: np.ndarray | None = None,
) -> Claim:
    """A claim about means over seeds of (seeds,), or of (seeds, O) at some overlaps."""
    if overlaps is None:
        return Claim(
            claim, rule, short(values), judge(values.mean(keepdims=True), test(values.mean()))
        )
    means = values.mean(0)
    told = ", ".join(f"{short(values[:, i])} at {at:g}" for i, at in enumerate(overlaps))
    holds = len(overlaps) > 0 and test(means)
    return Claim(claim, rule, told or "no such overlap", judge(means, holds))


def _coverage_claims(found: Transfer) -> list[Claim]:
    tuned, overlaps = found.methods["pretrained"], found.overlaps
    some = overlaps > 0
    return [
        _claim(
            "pretraining covers its own features",
            f"1: covered >= {COVERED:g}",
            found.pretraining_covered,
            lambda mean: mean >= COVERED,
        ),
        _claim(
            "supervised pretraining covers a part of them",
            f"1: covered in [{PART[0]:g}, {PART[1]:g}]",
            found.supervised_covered,
            lambda mean: PART[0] <= mean <= PART[1],
        ),
        _claim(
            "pretraining covers the downstream features it has seen, and no others",
            f"2: covered before fine-tuning within {NEAR:g} of the overlap, at all overlaps",
            tuned["before"],
            lambda means: (np.abs(means - overlaps) <= NEAR).all(),
            overlaps,
        ),
        _claim(
            "fine-tuning keeps the covered features",
            f"3: kept >= {KEPT:g} at all overlaps > 0",
            tuned["kept"][:, some],
            lambda means: (means >= KEPT).all(),
            overlaps[some],
        ),
    ]


def _accuracy_claims(found: Transfer) -> list[Claim]:
    methods, overlaps = found.methods, found.overlaps
    full, none, half = overlaps == 1, overlaps == 0, overlaps == 0.5
    single = methods["pretrained"]["single"]

    def ahead_of(key, kind="single"):
        return methods["pretrained"][kind] - methods[key][kind]

    def at(where, claim, rule, values, test):
        return _claim(
            claim, rule, values[:, where], lambda means: test(means).all(), overlaps[where]
        )

    rows = [
        at(
            full,
            "where all features were seen, fine-tuned networks classify multi-view images",
            f"4: multi-view accuracy >= {MULTI:g} % at overlap 1",
            methods["pretrained"]["multi"],
            lambda means: means >= MULTI,
        ),
        at(
            full,
            "where all features were seen, they classify single-view images",
            f"4: single-view accuracy >= {SINGLE:g} % at overlap 1",
            single,
            lambda means: means >= SINGLE,
        ),
    ]
    for key, lead in (("transferred", LEAD), ("scratch", LEAD), ("random_frozen", RANDOM_LEAD)):
        rows.append(
            at(
                full,
                f"pretraining + fine-tuning is ahead of {NAMES[key]}",
                f"5: single-view accuracy by >= {lead:g} points at overlap 1",
                ahead_of(key),
                lambda means, lead=lead: means >= lead,
            )
        )
    return [
        *rows,
        at(
            full,
            "pretraining is not behind scratch on multi-view images",
            f"5: multi-view accuracy behind by <= {FALL:g} points at overlap 1",
            ahead_of("scratch", "multi"),
            lambda means: means >= -FALL,
        ),
        at(
            half,
            "half of the features are enough to be ahead of scratch",
            "6: single-view accuracy above scratch at overlap 0.5",
            ahead_of("scratch"),
            lambda means: means > 0,
        ),
        _rise_claim(single, overlaps),
        at(
            none,
            "without shared features pretraining is worth what random kernels are",
            f"7: single-view accuracy within {RANDOM_LEAD:g} points of them at overlap 0",
            ahead_of("random_frozen"),
            lambda means: np.abs(means) <= RANDOM_LEAD,
        ),
    ]


def _rise_claim(single: np.ndarray, overlaps: np.ndarray) -> Claim:
    def rises(means):
        return means[-1] - means[0] >= RISE and (np.diff(means) >= -FALL).all()

    claim = _claim(
        "the more features were seen, the better",
        f"6: single-view accuracy rises by >= {RISE:g} points from the lowest overlap to the "
        f"highest, and falls by <= {FALL:g} at every step",
        single,
        rises,
        overlaps,
    )
    return claim._replace(verdict=judge(single.mean(0), rises(single.mean(0)), 2))


def find_claims(found: Transfer) -> list[Claim]:
    """Every claim with its rule, the numbers and the verdict."""
    return [*_coverage_claims(found), *_accuracy_claims(found)]


def ahead_from(found: Transfer, key: str) -> float | None:
    """Overlap from which on pretraining has the higher mean single-view accuracy; None if never."""
    gaps = found.methods["pretrained"]["single"] - found.methods[key]["single"]
    ahead = gaps.mean(0) > 0
    lasting = np.logical_and.accumulate(ahead[::-1])[::-1]
    return float(found.overlaps[lasting][0]) if lasting.any() else None


def _ahead_line(found: Transfer) -> str:
    told = []
    for key in ("transferred", "scratch", "random_tuned", "random_frozen"):
        overlap = ahead_from(found, key)
        where = "at no overlap" if overlap is None else f"from overlap {overlap:g} on"
        told.append(f"of {NAMES[key]} {where}")
    return f"On single-view images pretraining + fine-tuning is ahead {'; '.join(told)}."


def answer(found: Transfer, claims: Sequence[Claim]) -> list[str]:
    """How many claims hold, from which overlap on pretraining helps, every claim as a sentence."""
    lines = [tally(claims), _ahead_line(found)]
    if len(found.pretraining_covered) == 1:
        lines.append("One seed: the spread over seeds is not known; give --seeds=0,1,2 and more.")
    return [*lines, *map(sentence, claims)]


def transfer_figure(found: Transfer) -> Figure:
    """Accuracies and covered features against the overlap, one line a way of training."""
    figure, grid = new_figure(9.0, 3.8, 1, 3)
    titles = {
        "multi": ("multi-view images", "test accuracy (%)"),
        "single": ("single-view images", "test accuracy (%)"),
        "after": ("covered downstream features", "share"),
    }
    for axes, (measure, (title, label)) in zip(grid[0], titles.items(), strict=True):
        for key, style in STYLES.items():
            rows = list(found.methods[key][measure].T)
            draw_line(axes, list(found.overlaps), rows, style, NAMES[key])
        axes.set(title=title, ylabel=label, xlabel="overlap of features")
    grid[0, 2].plot([0, 1], [0, 1], color="gray", linestyle=":", linewidth=1.0)
    share_legend(figure, 3)
    return figure
