import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from recon_jax.losses.bins import log_logistic_mass, log_normal_mass

MASSES = {"logistic": log_logistic_mass, "normal": log_normal_mass}
NODES, WEIGHTS = np.polynomial.legendre.leggauss(60)


@pytest.fixture(scope="module", params=MASSES)
def law(request):
    """Name, log-mass and its two gradients; functions of (distance, log_half_bin, which end)."""
    mass = MASSES[request.param]
    gradients = jax.grad(lambda d, h, *ends: mass(d, h, *ends).sum(), (0, 1))
    return request.param, *(in_one_shape(jax.jit(fn)) for fn in (mass, gradients))


def in_one_shape(fn):
    """Inputs repeated up to 128, so that it is compiled but once for a dtype."""

    def call(distance, log_half_bin, which=""):
        ends = [np.full(128, which == end) for end in ("lowest", "highest")]
        found = fn(np.resize(distance, 128), np.resize(log_half_bin, 128), *ends)
        return jax.tree.map(lambda x: np.asarray(x)[: len(distance)], found)

    return call


def grid(distances, log_half_bins, dtype=np.float64):
    d, h = np.meshgrid(distances, log_half_bins)
    return d.ravel().astype(dtype), h.ravel().astype(dtype)


def log_cosh(x):
    return np.logaddexp(x, -x) - np.log(2)


def inner_log_mass(name, distance, log_half_bin):
    """Other formulas: sinh h / (cosh h + cosh c); differences, quadrature where they cancel."""
    h = np.exp(log_half_bin)
    if name == "logistic":
        log_sinh = h + np.log(-np.expm1(-2 * h) / 2)
        return log_sinh - np.logaddexp(log_cosh(h), log_cosh(distance * h))
    top, bottom = (1 - np.abs(distance)) * h, -(1 + np.abs(distance)) * h
    lower, upper = scipy.special.log_ndtr(bottom), scipy.special.log_ndtr(top)
    difference = upper + np.log1p(-np.exp(np.minimum(lower - upper, -1e-9)))
    points = (np.abs(distance)[:, None] + NODES[None]) * h[:, None]
    log_terms = scipy.stats.norm.logpdf(points) + np.log(WEIGHTS)[None]
    quadrature = scipy.special.logsumexp(log_terms, axis=1) + log_half_bin
    return np.where(h > 0.3, difference, quadrature)


def end_log_mass(name, which, distance, log_half_bin):
    law = {"logistic": scipy.stats.logistic, "normal": scipy.stats.norm}[name]
    h = np.exp(log_half_bin)
    if which == "lowest":
        return law.logcdf((distance + 1) * h)
    return law.logsf((distance - 1) * h)


DISTANCES = [-40.0, -7.3, -2.0, -1.0, -0.4, 0.0, 1e-9, 0.9, 1.0, 1.1, 6.0, 90.0]
HALF_BINS = [-25.0, -12.3, -12.1, -7.5, -7.2, -4.0, -3.4, -1.0, 0.0, 0.8]


def test_inner_bins(law):
    name, mass, _ = law
    d, h = grid(DISTANCES, HALF_BINS)
    expected = inner_log_mass(name, d, h)
    np.testing.assert_allclose(mass(d, h), expected, rtol=3e-12, atol=3e-12)
    single = mass(d.astype(np.float32), h.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("which", ["lowest", "highest"])
def test_open_bins(law, which):
    name, mass, _ = law
    d, h = grid(DISTANCES, HALF_BINS)
    expected = end_log_mass(name, which, d, h)
    np.testing.assert_allclose(mass(d, h, which), expected, rtol=1e-11, atol=1e-13)
    single = mass(d.astype(np.float32), h.astype(np.float32), which)
    np.testing.assert_allclose(single, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("which", ["", "lowest", "highest"])
def test_gradients_are_those_of_the_independent_formulas(law, which):
    name, _, gradients = law
    d, h = grid([-9.0, -1.0, -0.4, 0.3, 2.0, 30.0], [-14.0, -6.0, -3.0, -1.0, 0.5])

    def value(d, h):
        if which:
            return end_log_mass(name, which, d, h)
        return inner_log_mass(name, d, h)

    found = gradients(d, h, which)
    for i, shift in enumerate([(1e-3, 0.0), (0.0, 1e-3)]):
        steps = [value(d + k * shift[0], h + k * shift[1]) for k in (-2, -1, 1, 2)]
        expected = (steps[0] - 8 * steps[1] + 8 * steps[2] - steps[3]) / 12e-3
        np.testing.assert_allclose(found[i], expected, rtol=1e-7, atol=3e-8)


@pytest.mark.parametrize("which", ["", "lowest", "highest"])
def test_extremes_are_finite_in_float32_and_so_are_their_gradients(law, which):
    _, mass, gradients = law
    # A mean of +-50 is 12,750 half bins away with 256 levels, 3.3 million with 65,536.
    far = np.array([0.5, 1.0, 2.0, 255.0, 12750.0, 3.3e6])
    d, h = grid(
        [*-far, 0.0, *far], [-100.0, -30.0, -16.0, -12.2, -4.0, -3.47, 0.0, 1.46, 7.0], np.float32
    )
    value = mass(d, h, which)
    assert np.isfinite(value).all()
    assert (np.asarray(value) <= 0).all()
    for gradient in gradients(d, h, which):
        assert gradient.dtype == np.float32
        assert np.isfinite(gradient).all()


def test_in_far_tails_the_gradient_is_that_of_the_tail(law):
    name, _, gradients = law
    d = np.float32([400.0, -400.0])
    h = np.zeros(2, np.float32)
    slopes = {"logistic": [-1.0, 1.0], "normal": [-399.0, 399.0]}[name]  # log mass ~ -c, -c^2 / 2
    np.testing.assert_allclose(gradients(d, h)[0], slopes, rtol=1e-4)


def test_forward_mode_and_second_derivatives(law):
    name, _, gradients = law
    mass = MASSES[name]
    inner = [jnp.zeros(3, bool)] * 2
    d, h = np.array([0.3, 4.0, 0.2]), np.array([-0.5, -0.5, -9.0])
    tangent = np.array([0.7, -0.2, 1.0])

    @jax.jit
    def forward(d):
        def value(d):
            return mass(d, jnp.asarray(h), *inner)

        def slope(d):
            return jax.grad(lambda d: value(d).sum())(d)

        return jax.jvp(value, (d,), (tangent,))[1], jax.jvp(slope, (d,), (tangent,))[1]

    first, second = forward(d)
    np.testing.assert_allclose(first, gradients(d, h)[0] * tangent, rtol=1e-11)
    change = (gradients(d + 1e-4, h)[0] - gradients(d - 1e-4, h)[0]) / 2e-4
    np.testing.assert_allclose(second, change * tangent, rtol=1e-6)
