"""What the papers claim of deformation sensitivities, what was found, and fixed verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from recon_jax.report.claims import Claim
from recon_jax.report.claims import claims_table as table_of
from recon_jax.report.diffeo_stability import (
    Outcome,
    at_output,
    clean,
    convolutional,
    correlation,
    geometric,
    is_measured,
)
from recon_jax.report.masked_autoencoder import is_more_than_spread
from recon_jax.report.tables import Table

REPRODUCED = "reproduced"
PARTLY = "in part"
NOT = "not reproduced"
UNCERTAIN = "same sign, within chance"
UNKNOWN = "cannot be told from these networks"

# R_f at initialisation counts as about 1 within this factor.
ABOUT = 2.0
# Test error of Petrini et al. 2021 (arXiv 2105.02468), abstract: 0.2 sqrt(R_f).
PUBLISHED_FACTOR, PUBLISHED_POWER = 0.2, 0.5

RULES = (
    f"Verdicts: about 1 is within a factor {ABOUT:g} in every network. A fall, a gain or an order "
    "counts in a network if the mean over seeds of the log ratio has the sign and exceeds twice "
    f"its standard deviation (one seed: the sign alone); {REPRODUCED} is in every network, "
    f"{PARTLY} in more than half. Correlations are Pearson's of logarithms, one point a network "
    "(geometric mean over seeds), with 95% intervals by jackknife over networks of Fisher's z, "
    f"which are rough for so few: {REPRODUCED} if the whole interval has the sign."
)


# What each claim is judged by; `RULES` says the same once for all.
NEAR = f"within a factor {ABOUT:g} in every network"
IN_EVERY = "by more than twice the spread over seeds, in every network"
WHOLE_INTERVAL = "Pearson's r of logarithms: the whole 95% interval has the sign"
INSIDE = f"the 95% interval holds {PUBLISHED_POWER:g}"


def _counted(name: str, paper: str, gains: Mapping[str, np.ndarray], what: str) -> Claim:
    """A claim that holds in so many networks.

    Args:
      name: of the claim.
      paper: its statement.
      gains: network -> log ratio by seed, positive as claimed.
      what: of the factors, for `ours`.
    """
    holds = {
        net: bool(values.mean() > 0 and is_more_than_spread(values) is not False)
        for net, values in gains.items()
    }
    count, factors = sum(holds.values()), [float(np.exp(v.mean())) for v in gains.values()]
    verdict = REPRODUCED if count == len(holds) else PARTLY if 2 * count > len(holds) else NOT
    missing = [net for net, held in holds.items() if not held]
    ours = f"in {count} of {len(holds)} networks; {what} {min(factors):.3g} to {max(factors):.3g}"
    ours += f"; not in {', '.join(missing)}" if missing else ""
    return Claim(name, IN_EVERY, ours, verdict, paper=paper)


def _initial_claim(nets: Sequence[Outcome]) -> Claim:
    values = [float(geometric(at_output(item, "initial", "R"))) for item in nets]
    medians = [float(geometric(item.states["initial"].median[:, 2])) for item in nets]
    near = sum(1 / ABOUT <= value <= ABOUT for value in values)
    ours = (
        f"{min(values):.3g} to {max(values):.3g}, geometric mean {geometric(np.array(values)):.3g}"
        f" over {len(values)} networks; by medians {min(medians):.3g} to {max(medians):.3g}"
    )
    verdict = REPRODUCED if near == len(values) else PARTLY if 2 * near > len(values) else NOT
    paper = "about 1 (2021, abstract)"
    return Claim("R_f is about 1 at initialisation", NEAR, ours, verdict, paper=paper)


def _fall_claim(nets: Sequence[Outcome]) -> Claim:
    gains = {
        item.name: np.log(at_output(item, "initial", "R") / at_output(item, "trained", "R"))
        for item in nets
    }
    paper = "falls by decades in good networks (2021, abstract)"
    return _counted("R_f falls with training", paper, gains, "divided by")


def _correlation_claim(outcomes: Sequence[Outcome], letter: str, sign: int, paper: str) -> Claim:
    nets = clean(outcomes)
    found = correlation(nets, letter)
    if np.isnan(found.low):
        verdict = UNKNOWN
    elif sign * found.low > 0 and sign * found.high > 0:
        verdict = REPRODUCED
    else:
        verdict = UNCERTAIN if sign * found.r > 0 else NOT
    ours = f"{found.describe()}, {len(nets)} networks"
    if len(nets) < len(outcomes):
        ours += (
            f"; with noise-trained ones {correlation(outcomes, letter).r:+.2f} of {len(outcomes)}"
        )
    way = "rises" if sign > 0 else "falls"
    text = f"the test error {way} with {letter}_f"
    return Claim(text, WHOLE_INTERVAL, ours, verdict, paper=paper)


def _power_claim(nets: Sequence[Outcome]) -> Claim:
    found = correlation(nets, "R")
    ours = f"{found.factor:.2g} R_f^{found.slope:.2f}, power {found.describe_slope()}"
    verdict = UNKNOWN
    if not np.isnan(found.slope_low):
        inside = found.slope_low <= PUBLISHED_POWER <= found.slope_high
        verdict = REPRODUCED if inside else NOT
    paper = f"{PUBLISHED_FACTOR:g} R_f^{PUBLISHED_POWER:g} over 15 networks (2021, abstract)"
    text = "power by which the test error goes with R_f"
    return Claim(text, INSIDE, ours, verdict, paper=paper)


def _pooling_claims(nets: Sequence[Outcome]) -> list[Claim]:
    logs = {
        item.name: {state: np.log(found.mean[:, 0]).mean(1) for state, found in item.states.items()}
        for item in nets
    }
    spatial = {name: found["initial"] - found["shuffled"] for name, found in logs.items()}
    channel = {name: found["shuffled"] - found["trained"] for name, found in logs.items()}
    paper = "both poolings contribute (2022, abstract of v2; no number known here)"
    claims = [
        _counted("spatial pooling: shuffled channels leave D_k below its start", paper, spatial, "D"
                 " divided, over layers, by"),
        _counted("channel pooling: D_k of shuffled channels is above the trained", paper, channel,
                 "D multiplied, over layers, by"),
    ]  # fmt: skip
    gains = {}
    for item in nets:
        before, after = (_constant_share(item.spectra[state]) for state in ("initial", "trained"))
        gains[item.name] = np.log(after / before).mean(1)
    paper = "training raises the low modes (2022; no number known here)"
    what = "its share of the energy, over kernels, multiplied by"
    return [*claims, _counted("filters gain in their constant mode", paper, gains, what)]


def _constant_share(spectra: np.ndarray) -> np.ndarray:
    return spectra[..., 0] / spectra.sum(-1)


def find_claims(outcomes: Sequence[Outcome]) -> list[Claim]:
    """The papers' claims and what the outcomes say of them.

    Args:
      outcomes: networks without noise, all with the states "initial" and "trained", and others.
        Those without sensitivities are left out.

    Returns:
      The claims, in the order of the table; none if no network is left.
    """
    outcomes = [item for item in outcomes if is_measured(item)]
    nets = clean(outcomes)
    if not nets:
        return []
    r_paper = "correlates strongly (2021, abstract; coefficient not published here)"
    d_paper = "correlates (2022, abstract; not strongly by 2021); no number known here"
    g_paper = "larger G_f with smaller error (2022, abstract); no number known here"
    claims = [
        _initial_claim(nets),
        _fall_claim(nets),
        _correlation_claim(outcomes, "R", 1, r_paper),
        _power_claim(nets),
        _correlation_claim(outcomes, "D", 1, d_paper),
        _correlation_claim(outcomes, "G", -1, g_paper),
    ]
    found = convolutional(nets)
    return [*claims, *_pooling_claims(found)] if found else claims


def claims_table(claims: Sequence[Claim], note: str) -> Table:
    """What the papers say and what was found."""
    return table_of("The papers' claims, and what was measured", claims, f"{RULES} {note}")


def answer(outcomes: Sequence[Outcome], claims: Sequence[Claim]) -> list[str]:
    """The claims as sentences, and which networks have no part in them."""
    lines = [
        f"{claim.claim[0].upper()}{claim.claim[1:]}: {claim.verdict} ({claim.measured})."
        for claim in claims
    ]
    dead = [item.label for item in outcomes if not is_measured(item)]
    if dead:
        lines.append(f"Left out, because they make the same of all images: {', '.join(dead)}.")
    return lines
