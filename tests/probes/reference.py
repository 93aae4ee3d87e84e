"""Independent float64 NumPy/SciPy answers, by the most direct route."""

import numpy as np
import scipy.optimize
from scipy.special import logsumexp


def blobs(count=120, size=7, num_classes=3, seed=0, spread=1.0, dtype=np.float64):
    """Overlapping classes of unequal size in features of unequal scale and mean; all occur."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, count) * rng.integers(0, 2, count)
    labels[:num_classes] = np.arange(num_classes)
    centres = spread * rng.standard_normal((num_classes, size))
    features = rng.standard_normal((count, size)) + centres[labels]
    features = features * rng.uniform(0.3, 3, size) + rng.standard_normal(size)
    return features.astype(dtype), labels


def ridge(x, y, num_classes, regularization):
    """Least squares on the matrix augmented with sqrt(N lambda) I and a column for the bias."""
    count, size = x.shape
    root = np.sqrt(count * regularization)
    top = np.hstack([x, np.ones((count, 1))])
    bottom = np.hstack([root * np.eye(size), np.zeros((size, 1))])
    targets = np.vstack([np.eye(num_classes)[y], np.zeros((size, num_classes))])
    solution = np.linalg.lstsq(np.vstack([top, bottom]), targets, rcond=None)[0]
    return solution[:-1], solution[-1]


def logistic_loss(weights, bias, x, y, regularization):
    scores = x @ weights + bias
    picked = scores[np.arange(len(y)), y]
    return (logsumexp(scores, 1) - picked).mean() + regularization / 2 * (weights**2).sum()


def logistic(x, y, num_classes, regularization):
    """Optimum by BFGS on the explicit objective with its textbook gradient."""
    shape = (x.shape[1] + 1, num_classes)
    rows = np.hstack([x, np.ones((len(x), 1))])
    mask = np.vstack([np.ones((x.shape[1], 1)), [[0.0]]])
    one_hot = np.eye(num_classes)[y]

    def objective(flat):
        theta = flat.reshape(shape)
        scores = rows @ theta
        p = np.exp(scores - logsumexp(scores, 1, keepdims=True))
        gradient = rows.T @ (p - one_hot) / len(x) + regularization * mask * theta
        return logistic_loss(theta[:-1], theta[-1], x, y, regularization), gradient.ravel()

    result = scipy.optimize.minimize(
        objective, np.zeros(np.prod(shape)), jac=True, method="BFGS", options={"gtol": 1e-9}
    )
    theta = result.x.reshape(shape)
    return theta[:-1], theta[-1]


def neighbors(queries, references, k, metric):
    """Whole distance matrix, stable sort."""
    if metric == "euclidean":
        cost = np.sqrt(((queries[:, None] - references[None]) ** 2).sum(-1))
    else:
        unit = [
            rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
            for rows in (queries, references)
        ]
        cost = -(unit[0][:, None] * unit[1][None]).sum(-1)
    index = np.argsort(cost, 1, kind="stable")[:, :k]
    scores = np.take_along_axis(cost, index, 1)
    return (-scores if metric == "cosine" else scores), index
