"""What others call the parameters of vision transformers, and how they shape them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

BLOCK = "/blocks/block/"


class Layout(NamedTuple):
    """Names of one family of files; ours are paths such as "encoder/blocks/block/norm1/scale".

    Attributes:
      name: of the family.
      tokens: names of class and mask token by our path.
      modules: names of modules outside of the blocks by our path.
      layers: of each half, what the names in block {} begin with.
      block: names of the modules in a block; several are stacked along their outputs.
      positions: of each half, the name of its position embeddings.
    """

    name: str
    tokens: Mapping[str, str]
    modules: Mapping[str, str]
    layers: Mapping[str, str]
    block: Mapping[str, tuple[str, ...]]
    positions: Mapping[str, str]

    def names(self, path: str, layer: int = 0) -> tuple[str, ...]:
        """The entries of a file that make up the parameter at `path`, of one block."""
        if path in self.tokens:
            return (self.tokens[path],)
        module, leaf = path.rsplit("/", 1)
        leaf = "bias" if leaf == "bias" else "weight"
        half, inside, inner = module.partition(BLOCK)
        start = self.layers[half].format(layer) if inside else ""
        modules = self.block[inner] if inside else (self.modules[module],)
        # PyTorch's own attention keeps its matrix outside of any module: in_proj_weight.
        return tuple(f"{start}{m}{'' if m.endswith('_') else '.'}{leaf}" for m in modules)

    def depth(self, weights: Iterable[str], half: str) -> int:
        """How many blocks the names speak of."""
        start, end = map(re.escape, self.layers[half].split("{}"))
        found = (re.match(f"{start}([0-9]+){end}", name) for name in weights)
        return max((int(match[1]) + 1 for match in found if match), default=0)

    def known(self, weights: Iterable[str], half: str) -> set[str]:
        """Those of the names that belong to a half, its first block standing for all."""
        modules = [f"{half}{BLOCK}{name}" for name in self.block]
        modules += [path for path in self.modules if path.startswith(half)]
        paths = [path for path in self.tokens if path.startswith(half)]
        paths += [f"{module}/{leaf}" for module in modules for leaf in ("kernel", "bias")]
        names = {name for path in paths for name in self.names(path)} | {self.positions[half]}
        return names & set(weights)


ORIGINAL = Layout(
    name="original",
    tokens={"encoder/class_token": "cls_token", "decoder/mask_token": "mask_token"},
    modules={
        "encoder/embed": "patch_embed.proj",
        "encoder/blocks/norm": "norm",
        "decoder/embed": "decoder_embed",
        "decoder/blocks/norm": "decoder_norm",
        "decoder/pixels": "decoder_pred",
    },
    layers={"encoder": "blocks.{}.", "decoder": "decoder_blocks.{}."},
    block={
        "norm1": ("norm1",),
        "attention/qkv": ("attn.qkv",),
        "attention/out": ("attn.proj",),
        "norm2": ("norm2",),
        "mlp1": ("mlp.fc1",),
        "mlp2": ("mlp.fc2",),
    },
    positions={"encoder": "pos_embed", "decoder": "decoder_pos_embed"},
)

TIMM = ORIGINAL._replace(name="timm")


def torchvision(mlp: tuple[str, str]) -> Layout:
    """The layout of torchvision's VisionTransformer, its two linear layers by these names."""
    return Layout(
        name="torchvision",
        tokens={"encoder/class_token": "class_token"},
        modules={"encoder/embed": "conv_proj", "encoder/blocks/norm": "encoder.ln"},
        layers={"encoder": "encoder.layers.encoder_layer_{}."},
        block={
            "norm1": ("ln_1",),
            "attention/qkv": ("self_attention.in_proj_",),
            "attention/out": ("self_attention.out_proj",),
            "norm2": ("ln_2",),
            "mlp1": (mlp[0],),
            "mlp2": (mlp[1],),
        },
        positions={"encoder": "encoder.pos_embedding"},
    )


# Files that were published before torchvision 0.15 have the second names.
TORCHVISION = (torchvision(("mlp.0", "mlp.3")), torchvision(("mlp.linear_1", "mlp.linear_2")))

_BLOCK = {
    "norm1": ("layernorm_before",),
    "attention/qkv": tuple(f"attention.attention.{part}" for part in ("query", "key", "value")),
    "attention/out": ("attention.output.dense",),
    "norm2": ("layernorm_after",),
    "mlp1": ("intermediate.dense",),
    "mlp2": ("output.dense",),
}
# What transformers 5 calls them in memory, hence in a state_dict that is saved as it is.
_BLOCK_IN_MEMORY = {
    **_BLOCK,
    "attention/qkv": tuple(f"attention.{part}_proj" for part in "qkv"),
    "attention/out": ("attention.o_proj",),
    "mlp1": ("mlp.fc1",),
    "mlp2": ("mlp.fc2",),
}


def hugging_face(
    prefix: str = "vit.",
    layers: str = "encoder.layer.{}.",
    decoder_layers: str = "decoder.decoder_layers.{}.",
    block: Mapping[str, tuple[str, ...]] = _BLOCK,
) -> Layout:
    """The layout of Hugging Face's ViTMAEForPreTraining; of ViTMAEModel with an empty prefix."""
    return Layout(
        name="huggingface",
        tokens={
            "encoder/class_token": f"{prefix}embeddings.cls_token",
            "decoder/mask_token": "decoder.mask_token",
        },
        modules={
            "encoder/embed": f"{prefix}embeddings.patch_embeddings.projection",
            "encoder/blocks/norm": f"{prefix}layernorm",
            "decoder/embed": "decoder.decoder_embed",
            "decoder/blocks/norm": "decoder.decoder_norm",
            "decoder/pixels": "decoder.decoder_pred",
        },
        layers={"encoder": prefix + layers, "decoder": decoder_layers},
        block=block,
        positions={
            "encoder": f"{prefix}embeddings.position_embeddings",
            "decoder": "decoder.decoder_pos_embed",
        },
    )


def _layouts() -> Iterator[Layout]:
    yield ORIGINAL
    for prefix in ("vit.", ""):
        yield hugging_face(prefix)
        # transformers 5 renames the decoder's blocks when it saves a model it has not loaded.
        yield hugging_face(prefix, decoder_layers="decoder.decoder_encoder.layer.{}.")
        yield hugging_face(prefix, layers="layers.{}.", block=_BLOCK_IN_MEMORY)


def find_layout(weights: Iterable[str]) -> Layout:
    """The layout that knows most of these names.

    Raises:
      ValueError: if none knows that of the patch embedding.
    """
    weights = set(weights)

    def score(layout):
        return len(layout.known(weights, "encoder")) + len(layout.known(weights, "decoder"))

    best = max(_layouts(), key=score)
    if not weights & set(best.names("encoder/embed/kernel")):
        some = ", ".join(sorted(weights)[:6]) or "nothing"
        wanted = [f"{_.names('encoder/embed/kernel')[0]} ({_.name})" for _ in _layouts()]
        raise ValueError(
            f"no masked autoencoder is known by these names: {some}, ... ({len(weights)} in all); "
            f"the embedding of patches must be one of {', '.join(dict.fromkeys(wanted))}"
        )
    return best


def published_shape(path: str, shape: tuple[int, ...], patch_size: int) -> tuple[int, ...]:
    """The shape that others give a parameter which has `shape` here (of one block)."""
    if path == "encoder/embed/kernel":
        return (shape[1], shape[0] // patch_size**2, patch_size, patch_size)
    return shape[::-1] if path.endswith("kernel") else shape


def from_published(path: str, value: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """A parameter as we have it, from its published form: kernels are (inputs, outputs) here.

    A convolution over patches becomes a matrix on their (height, width, channel).
    """
    if path == "encoder/embed/kernel":
        return value.transpose(2, 3, 1, 0).reshape(-1, len(value))
    return value.T if path.endswith("kernel") else value


def to_published(
    path: str, value: Float[np.ndarray, "..."], patch_size: int
) -> Float[np.ndarray, "..."]:
    """The inverse of `from_published`."""
    if path == "encoder/embed/kernel":
        cut = value.reshape(patch_size, patch_size, -1, value.shape[1])
        return cut.transpose(3, 2, 0, 1)
    return value.T if path.endswith("kernel") else value
