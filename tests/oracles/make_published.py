"""Makes published.npz: what transformers computes with random weights of a tiny masked autoencoder.

    pip install torch transformers && python tests/oracles/make_published.py

Weights are multiples of 1/64, so that the file is small; none has a value that hides a fault, such
as a bias of zero. `test_published.py` also calls `compute` with another seed where transformers is
installed.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

CONFIG = {
    "image_size": 16,
    "patch_size": 4,
    "num_channels": 3,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 64,
    "layer_norm_eps": 1e-6,
}
GRIDS = ((4, 4), (2, 3), (7, 5))  # the first is that of the positions that are resized


def set_positions(model):
    """Give the model its fixed positions by its own methods, which transformers 5 forgets to."""
    for part in (*model.modules(), *model.parameters()):
        part.__dict__.pop("_is_hf_initialized", None)
    model.vit.embeddings.initialize_weights()
    model.decoder.initialize_weights(model.vit.embeddings.patch_embeddings.num_patches)


@torch.no_grad()
def make_model(seed, **options):
    """The model with random weights."""
    torch.manual_seed(seed)
    model = ViTMAEForPreTraining(ViTMAEConfig(**{**CONFIG, **options})).eval()
    set_positions(model)
    for name, weight in model.named_parameters():
        if "pos" in name:
            continue
        scale = weight[0].numel() ** -0.5 if weight.ndim in (2, 4) else 0.3
        one = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        weight.copy_((64 * (one + scale * torch.randn_like(weight))).round() / 64)
    return model


def old_names(model):
    """Its weights by the names that published files have, whatever the version calls them."""
    news = (
        ("vit.layers.", "vit.encoder.layer."),
        ("attention.q_proj", "attention.attention.query"),
        ("attention.k_proj", "attention.attention.key"),
        ("attention.v_proj", "attention.attention.value"),
        ("attention.o_proj", "attention.output.dense"),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
    )
    weights = {}
    for name, weight in model.state_dict().items():
        for new, old in news:
            name = name.replace(new, old)
        weights[name] = weight.numpy()
    return weights


def nhwc(images):
    return images.permute(0, 2, 3, 1).numpy()


@torch.no_grad()
def compute(seed, **options):
    """Weights, inputs and outputs, all by name."""
    model = make_model(seed, **options)
    side = model.config.image_size
    images, larger = torch.randn(2, 3, side, side), torch.randn(1, 3, side + 8, side + 12)
    noise = torch.rand(2, 16)
    visible = model.vit(images, noise=noise).last_hidden_state
    output = model(images, noise=noise)
    model.config.norm_pix_loss = True
    normalized = model(images, noise=noise).loss
    model.config.mask_ratio = 0.0
    ascending = torch.arange(42.0)[None]
    found = {
        "images": nhwc(images),
        "kept": torch.argsort(noise, dim=1)[:, : visible.shape[1] - 1].numpy(),
        "latent": visible.numpy(),
        "reconstruction": output.logits.numpy(),
        "mask": output.mask.numpy(),
        "loss": output.loss.numpy(),
        "normalized_loss": normalized.numpy(),
        "encoded": model.vit(images, noise=ascending[:, :16].expand(2, 16)).last_hidden_state,
        "larger": nhwc(larger),
        "encoded_larger": model.vit(
            larger, noise=ascending, interpolate_pos_encoding=True
        ).last_hidden_state,
    }
    return {**found, **{f"weights/{name}": value for name, value in old_names(model).items()}}


def compute_resized(seed):
    """Positions of a grid, in float64, and what PyTorch resizes them to."""
    torch.manual_seed(seed)
    positions = torch.randn(1, 5, *GRIDS[0], dtype=torch.float64)
    rows = {
        "x".join(map(str, grid)): torch.nn.functional.interpolate(
            positions, size=grid, mode="bicubic", align_corners=False
        )
        for grid in GRIDS
    }
    return {f"resized/{grid}": nhwc(value).reshape(-1, 5) for grid, value in rows.items()}


if __name__ == "__main__":
    path = Path(__file__).with_name("published.npz")
    arrays = {**compute(0), **compute_resized(0)}
    np.savez_compressed(path, **{name: np.asarray(value) for name, value in arrays.items()})
    print(f"{path}: {path.stat().st_size} bytes")
