"""A sign, a factor or a transposition in a core formula is caught by the tests beside it.

Each mutant is one replacement in a copy of the package; the named tests pass without it (they are
part of the default suite) and must fail with it.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent


class Mutant(NamedTuple):
    """A fault in a formula.

    Attributes:
      file: of the package.
      right: what stands there, once.
      wrong: what stands there in the mutant.
      tests: that must notice.
    """

    file: str
    right: str
    wrong: str
    tests: str


MUTANTS = {
    "generalised eigenvectors: L^-1 for L^-T": Mutant(
        "linalg.py",
        "vectors[:, ::-1], lower=True, trans=1)",
        "vectors[:, ::-1], lower=True)",
        "test_linalg.py::test_eigh_generalized_matches_scipy",
    ),
    "alignment: a class weighs its size, not the root of it": Mutant(
        "spectral/alignment.py",
        "weights = jnp.sqrt(moments.class_counts.astype(projected.dtype))",
        "weights = moments.class_counts.astype(projected.dtype)",
        "spectral/test_alignment.py::test_alignment_matches_the_authors_way",
    ),
    "denoising: the gain of the corruption transposed": Mutant(
        "spectral/encoders.py",
        "jnp.concatenate([spread[:, None] * gain, labels @ gain])",
        "jnp.concatenate([spread[:, None] * gain.T, labels @ gain.T])",
        "spectral/test_autoencoder.py::test_denoising_matches_numpy",
    ),
    "supervision and reconstruction: weight not under the root": Mutant(
        "spectral/encoders.py",
        "jnp.diag(jnp.sqrt(weight * spread))",
        "jnp.diag(weight * jnp.sqrt(spread))",
        "spectral/test_autoencoder.py::test_joint_loss_is_that_of_the_returned_maps",
    ),
    "sensitivity: half the mean squared distance of two images": Mutant(
        "diffeo/sensitivity.py",
        "return 2 * spread, deformed, noisy",
        "return spread, deformed, noisy",
        "diffeo/test_sensitivity.py::test_the_definition_over_all_pairs",
    ),
    "depth laws: sign of the correlation of noise": Mutant(
        "diffeo/depth_laws.py",
        "(r + r * both - 2 * both)",
        "(r + r * both + 2 * both)",
        "diffeo/test_depth_laws.py::test_finite_size_against_all_pairs",
    ),
    "NT-Xent: similarities times the temperature": Mutant(
        "losses/contrastive.py",
        "apart = (1 - (unit_a * unit_b).sum(1)) / temperature",
        "apart = (1 - (unit_a * unit_b).sum(1)) * temperature",
        "losses/test_contrastive.py::test_value_and_gradient_are_those_of_the_formula",
    ),
    "KL of two Gaussians: sign of the log": Mutant(
        "losses/posterior.py",
        "excess * (scale + 1) / 2 - jnp.log1p(excess)",
        "excess * (scale + 1) / 2 + jnp.log1p(excess)",
        "losses/test_posterior.py::test_kl_is_the_integral_it_stands_for",
    ),
    "effective rank: logarithm to base 2": Mutant(
        "geometry/rank.py",
        "shares * jnp.log(jnp.where(shares > 0, shares, 1))",
        "shares * jnp.log2(jnp.where(shares > 0, shares, 1))",
        "geometry/test_rank.py::test_matches_the_entropy_of_numpy_singular_values",
    ),
    "non-invariance: strangers counted as twins": Mutant(
        "geometry/invariance.py",
        "/ (everyone - twins)",
        "/ everyone",
        "geometry/test_invariance.py::test_matches_all_pairs",
    ),
    "mask reconstruction: variance of a mask without its mean": Mutant(
        "multiview/reconstruction.py",
        "spread = (1 - keep) / keep * jnp.square(seen).sum(1)",
        "spread = (1 - keep) * jnp.square(seen).sum(1)",
        "multiview/test_reconstruction.py::test_expectation_is_the_sum_over_all_masks",
    ),
    "teacher scale: power for its root": Mutant(
        "multiview/teacher.py",
        "** (1 / as_power(power))",
        "** as_power(power)",
        "multiview/test_teacher.py::test_numbers_of_the_setting",
    ),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package and its tests, in which `python -m pytest` finds this package first."""
    root = tmp_path_factory.mktemp("mutants")
    for folder in ("recon_jax", "tests"):
        shutil.copytree(
            ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def run_tests(root, *tests):
    """Runs tests of a copy in a new process."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", *(f"tests/{name}" for name in tests)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
def test_without_a_mutant_all_pass(copy):
    run = run_tests(copy, *(mutant.tests for mutant in MUTANTS.values()))
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_a_mutant_is_caught(copy, mutant):
    path = copy / "recon_jax" / mutant.file
    text = path.read_text()
    assert text.count(mutant.right) == 1
    path.write_text(text.replace(mutant.right, mutant.wrong))
    try:
        run = run_tests(copy, mutant.tests)
    finally:
        path.write_text(text)
    # 1: tests ran and some failed; a mutant that cannot be imported would be 2 or more.
    assert run.returncode == 1, run.stdout[-3000:] + run.stderr[-1000:]
