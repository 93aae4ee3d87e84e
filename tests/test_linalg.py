import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from recon_jax import linalg


def symmetric(size, seed=0):
    a = np.random.default_rng(seed).standard_normal((size, size))
    return a + a.T


def definite(size, seed=1):
    a = np.random.default_rng(seed).standard_normal((size, 2 * size))
    return a @ a.T / size


def maybe_jit(fn, jit):
    return jax.jit(fn) if jit else fn


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("size", [1, 17])
def test_eigh_descending_matches_numpy(size, jit):
    a = symmetric(size)
    values, vectors = map(np.asarray, maybe_jit(linalg.eigh_descending, jit)(jnp.asarray(a)))
    np.testing.assert_allclose(values, np.linalg.eigvalsh(a)[::-1], rtol=1e-12, atol=1e-12)
    assert np.all(np.diff(values) <= 0)
    np.testing.assert_allclose(a @ vectors, vectors * values, atol=1e-12 * size)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(size), atol=1e-13 * size)


def test_eigenvectors_have_a_positive_largest_entry():
    for seed in range(5):
        _, vectors = linalg.eigh_descending(jnp.asarray(symmetric(9, seed)))
        largest = np.abs(vectors).argmax(0)
        assert np.all(np.asarray(vectors)[largest, np.arange(9)] > 0)
        _, vectors = linalg.eigh_generalized(
            jnp.asarray(symmetric(9, seed)), jnp.asarray(definite(9, seed))
        )
        largest = np.abs(vectors).argmax(0)
        assert np.all(np.asarray(vectors)[largest, np.arange(9)] > 0)


def test_sign_of_a_zero_vector_is_left_alone():
    vectors = linalg.fix_signs(jnp.array([[0.0, -2.0], [0.0, 1.0]]))
    np.testing.assert_array_equal(vectors, [[0, 2], [0, -1]])


def test_eigh_descending_symmetrises():
    a = np.random.default_rng(3).standard_normal((6, 6))
    values, _ = linalg.eigh_descending(jnp.asarray(a))
    np.testing.assert_allclose(values, np.linalg.eigvalsh((a + a.T) / 2)[::-1], atol=1e-13)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("size", [1, 20])
def test_eigh_generalized_matches_scipy(size, jit):
    a, b = symmetric(size), definite(size)
    values, vectors = map(
        np.asarray, maybe_jit(linalg.eigh_generalized, jit)(jnp.asarray(a), jnp.asarray(b))
    )
    expected = scipy.linalg.eigh(a, b, eigvals_only=True)[::-1]
    np.testing.assert_allclose(values, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(a @ vectors, (b @ vectors) * values, atol=1e-10)
    np.testing.assert_allclose(vectors.T @ b @ vectors, np.eye(size), atol=1e-11)


def test_eigh_generalized_keeps_float32():
    a, b = jnp.asarray(symmetric(8), jnp.float32), jnp.asarray(definite(8), jnp.float32)
    values, vectors = linalg.eigh_generalized(a, b)
    assert values.dtype == vectors.dtype == jnp.float32
    expected = scipy.linalg.eigh(np.float64(a), np.float64(b), eigvals_only=True)[::-1]
    np.testing.assert_allclose(values, expected, atol=1e-4)


def test_eigh_generalized_refuses_a_metric_that_is_not_definite():
    b = np.diag([3.0, 2.0, -1.0])
    with pytest.raises(ValueError, match=r"positive definite; its eigenvalues run from -1 to 3"):
        linalg.eigh_generalized(jnp.eye(3), jnp.asarray(b))
    _, vectors = jax.jit(linalg.eigh_generalized)(jnp.eye(3), jnp.asarray(b))
    assert not np.isfinite(vectors).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_matrices_are_refused(bad):
    a = jnp.eye(3).at[0, 1].set(bad)
    message = r"a holds 1 NaN or infinite entries out of 9"
    with pytest.raises(ValueError, match=message):
        linalg.eigh_descending(a)
    with pytest.raises(ValueError, match=message):
        linalg.eigh_generalized(a, jnp.eye(3))
    with pytest.raises(ValueError, match=message.replace("a holds", "b holds")):
        linalg.eigh_generalized(jnp.eye(3), a)
    with pytest.raises(ValueError, match="u holds 1 NaN"):
        linalg.principal_angles(a, jnp.eye(3))
    with pytest.raises(ValueError, match="metric holds 1 NaN"):
        linalg.principal_angles(jnp.eye(3), jnp.eye(3), a)


def test_shapes_that_do_not_fit_are_refused():
    # The shape annotations catch the first two under test; the functions say it in production.
    with pytest.raises(ValueError, match=r"a must be a square matrix, got shape \(2, 3\)"):
        linalg._require_square("a", jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"a must be a square matrix, got shape \(2,\)"):
        linalg._require_square("a", jnp.ones(2))
    with pytest.raises(ValueError, match=r"u must be \(D, K\) with 1 <= K <= D"):
        linalg.principal_angles(jnp.ones((2, 3)), jnp.ones((2, 1)))
    with pytest.raises(ValueError, match=r"v must be \(D, K\) with 1 <= K <= D"):
        linalg.principal_angles(jnp.ones((2, 1)), jnp.ones((2, 0)))


def test_default_tolerance_is_16_eps():
    assert linalg.default_tolerance(jnp.float32) == 16 * np.finfo(np.float32).eps
    assert linalg.default_tolerance(jnp.float64) == 16 * np.finfo(np.float64).eps


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(("k", "m"), [(1, 1), (2, 5), (7, 6), (8, 8)])
def test_principal_angles_match_scipy(k, m, jit):
    rng = np.random.default_rng(k + 10 * m)
    u, v = rng.standard_normal((8, k)), rng.standard_normal((8, m))
    angles = maybe_jit(linalg.principal_angles, jit)(jnp.asarray(u), jnp.asarray(v))
    assert angles.shape == (min(k, m),)
    assert np.all(np.diff(angles) >= -1e-12)
    np.testing.assert_allclose(angles, scipy.linalg.subspace_angles(u, v)[::-1], atol=1e-13)


@pytest.mark.parametrize("jit", [False, True])
def test_tiny_and_right_angles_keep_their_digits(jit):
    wanted = np.array([1e-12, 1e-9, 1e-5, 0.3, np.pi / 2 - 1e-9])
    size = 2 * len(wanted)
    u = np.eye(size)[:, : len(wanted)]
    v = np.concatenate([np.diag(np.cos(wanted)), np.diag(np.sin(wanted))])
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((size, size)))[0]
    mix_u, mix_v = (np.linalg.qr(rng.standard_normal((5, 5)))[0] for _ in range(2))
    angles = maybe_jit(linalg.principal_angles, jit)(
        jnp.asarray(rotation @ u @ mix_u), jnp.asarray(rotation @ v @ mix_v)
    )
    np.testing.assert_allclose(angles, wanted, rtol=1e-12, atol=5e-15)


@pytest.mark.parametrize("jit", [False, True])
def test_tiny_angles_between_subspaces_of_unequal_width(jit):
    u = np.eye(6)[:, :3]
    v = np.zeros((6, 2))
    v[0, 0], v[3, 0] = 1, 1e-9
    v[1, 1], v[4, 1] = np.cos(0.2), np.sin(0.2)
    fn = maybe_jit(linalg.principal_angles, jit)
    for pair in ((u, v), (v, u)):
        angles = fn(*map(jnp.asarray, pair))
        np.testing.assert_allclose(angles, [1e-9, 0.2], rtol=1e-9)


@pytest.mark.parametrize("jit", [False, True])
def test_metric_gives_the_angles_between_latents(jit):
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((50, 6)) * np.array([5, 3, 2, 1, 0.5, 0.1])
    u, v = rng.standard_normal((6, 2)), rng.standard_normal((6, 3))
    angles = maybe_jit(linalg.principal_angles, jit)(
        jnp.asarray(u), jnp.asarray(v), jnp.asarray(rows.T @ rows)
    )
    expected = scipy.linalg.subspace_angles(rows @ u, rows @ v)[::-1]
    np.testing.assert_allclose(angles, expected, atol=1e-12)


def test_angles_do_not_depend_on_the_basis():
    rng = np.random.default_rng(6)
    u, mix = rng.standard_normal((7, 3)), rng.standard_normal((3, 3))
    np.testing.assert_allclose(
        linalg.principal_angles(jnp.asarray(u), jnp.asarray(u @ mix)), 0, atol=1e-13
    )


def test_metric_must_be_definite():
    with pytest.raises(ValueError, match="metric must be positive definite; restrict u and v"):
        linalg.principal_angles(jnp.eye(2), jnp.eye(2), jnp.diag(jnp.array([1.0, 0.0])))


def test_is_concrete_sees_tracers():
    seen = []

    def fn(x):
        seen.append((linalg.is_concrete(x), linalg.is_concrete(1.0, np.ones(2))))
        return x

    jax.jit(fn)(1.0)
    assert seen == [(False, True)]
