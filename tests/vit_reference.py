"""Vision transformers in NumPy, float64: block by block, image by image, head by head."""

import jax
import numpy as np
import scipy.special


def as_float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def linear(x, p):
    return x @ p["kernel"] + p["bias"]


def normed(x, p):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-6) * p["scale"] + p["bias"]


def attended(x, p, heads):
    """Tokens (N, T, D); image by image, head by head."""
    q, k, v = np.split(linear(x, p["qkv"]), 3, axis=-1)
    mixed, width = np.zeros_like(q), q.shape[-1] // heads
    for n, h in np.ndindex(len(x), heads):
        part = (n, slice(None), slice(h * width, (h + 1) * width))
        scores = q[part] @ k[part].T / np.sqrt(width)
        mixed[part] = scipy.special.softmax(scores, axis=1) @ v[part]
    return linear(mixed, p["out"])


def block(x, p, heads, scales=(1.0, 1.0)):
    """Tokens after a block, and what its attention added; branches times `scales`."""
    mixed = attended(normed(x, p["norm1"]), p["attention"], heads)
    x = x + scales[0] * mixed
    y = linear(normed(x, p["norm2"]), p["mlp1"])
    return x + scales[1] * linear(y * scipy.special.ndtr(y), p["mlp2"]), mixed


def mixer(x, p, heads, scales=None):
    """Tokens after all blocks and the last norm, and after each block before it."""
    depth, inside = len(p["block"]["norm1"]["scale"]), []
    for i in range(depth):
        own = jax.tree.map(lambda leaf: leaf[i], p["block"])  # noqa: B023
        x, _ = block(x, own, heads, (1.0, 1.0) if scales is None else scales[i])
        inside.append(x)
    return normed(x, p["norm"]), inside


def positions(rows, columns, width):
    """sin and cos of the column, then of the row, at rates 10000^(-4 i / width)."""
    rates = 10_000.0 ** (-4 * np.arange(width // 4) / width)
    places = [(column, row) for row in range(rows) for column in range(columns)]
    return np.stack(
        [
            np.concatenate([f(t * rates) for t in place for f in (np.sin, np.cos)])
            for place in places
        ]
    )


def cut(images, size):
    """Patches (N, P, size^2 C), sliced one by one."""
    rows, columns = (side // size for side in images.shape[1:3])
    return np.stack(
        [
            images[:, size * r : size * (r + 1), size * c : size * (c + 1)].reshape(len(images), -1)
            for r in range(rows)
            for c in range(columns)
        ],
        axis=1,
    )


def encoded(p, images, kept, model):
    """Latents (N, 1 + m, D) of the patches `kept`, in that order."""
    patches, places = cut(images, model.patch_size), positions(*model.grid, model.width)
    tokens = [
        np.concatenate([p["class_token"][0], linear(x[own], p["embed"]) + places[own]])
        for x, own in zip(patches, kept, strict=True)
    ]
    return mixer(np.stack(tokens), p["blocks"], model.heads)[0]


def decoded(p, latent, kept, model):
    """Pixels of all patches (N, P, K) from latents: mask tokens first, then visible ones set in."""
    x, places = linear(latent, p["embed"]), positions(*model.grid, model.decoder_width)
    tokens = np.repeat(p["mask_token"], len(x), axis=0).repeat(model.num_patches, axis=1)
    for row, own, visible in zip(tokens, kept, x[:, 1:], strict=True):
        row[own] = visible
    tokens = np.concatenate([x[:, :1], tokens + places], axis=1)
    return linear(mixer(tokens, p["blocks"], model.decoder_heads)[0][:, 1:], p["pixels"])
