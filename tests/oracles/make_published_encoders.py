"""Makes published_encoders.npz: what timm, torchvision and transformers make of random weights.

    pip install torch timm torchvision transformers
    python tests/oracles/make_published_encoders.py

The vision transformers are tiny ones of timm and torchvision, the residual networks tiny ones of
transformers (the other two have none) under torchvision's names, whose own residual networks give
the names and shapes that must be there. Weights and images are multiples of 1/64, stored as their
numerators, all weights of a network behind each other; features are in float64.
`test_published_encoders.py` also calls `resnet` and `vit` with other seeds where transformers is
installed.
"""

import re
from pathlib import Path

import numpy as np
import torch
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

STEP = 64
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
VIT = {"image": 16, "patch": 4, "width": 24, "depth": 2, "heads": 3}


@torch.no_grad()
def randomize(model, seed):
    """The model in float64 and evaluation mode, no weight at a value that hides a fault."""
    torch.manual_seed(seed)
    for name, weight in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        scale = weight[0].numel() ** -0.5 if weight.ndim in (2, 4) else 0.3
        one = re.search(
            r"(norm\w*|bn\d|ln_\d|ln|downsample.1|normalization).(weight|\w*var)$", name
        )
        value = scale * torch.randn_like(weight) + float(one is not None)
        value = value.abs().clamp(min=0.25) if name.endswith("var") else value
        weight.copy_((STEP * value).round() / STEP)
    return model.double().eval()


def draw_images(*sides):
    return (STEP * torch.randn(2, 3, *sides, dtype=torch.float64)).round() / STEP


def nhwc(images):
    return images.permute(0, 2, 3, 1).numpy()


def described(weights):
    """Names and shapes as lines."""
    return [" ".join([name, *map(str, w.shape)]) for name, w in weights.items()]


def numerators(values):
    """Multiples of 1/64 in one row of whole numbers."""
    flat = np.concatenate([np.asarray(value).ravel() for value in values])
    return (STEP * flat).round().astype(np.int16)


def torchvision_name(name):
    """The name in torchvision of an entry of transformers' ResNetModel."""
    name = name.replace("embedder.embedder.convolution", "conv1")
    name = name.replace("embedder.embedder.normalization", "bn1")

    def block(match):
        stage, index, inner, kind = match.groups()
        conv = kind == "convolution"
        if inner == "shortcut":
            inner = f"downsample.{0 if conv else 1}"
        else:
            inner = f"{'conv' if conv else 'bn'}{int(inner.removeprefix('layer.')) + 1}"
        return f"layer{int(stage) + 1}.{index}.{inner}"

    pattern = r"encoder\.stages\.(\d)\.layers\.(\d+)\.(shortcut|layer\.\d)\.(convolution|norm\w+)"
    return re.sub(pattern, block, name)


@torch.no_grad()
def resnet(depth, seed, width=2, sides=(21, 34)):
    """A tiny residual network of transformers."""
    bottleneck = depth == 50
    config = ResNetConfig(
        embedding_size=width,
        hidden_sizes=[width * 2**i * (4 if bottleneck else 1) for i in range(4)],
        depths=list(BLOCKS[depth]),
        layer_type="bottleneck" if bottleneck else "basic",
    )
    model = randomize(ResNetModel(config), seed)
    images = draw_images(*sides)
    weights = {torchvision_name(name): w.numpy() for name, w in model.state_dict().items()}
    features = model(images).pooler_output.flatten(1)
    return {"weights": weights, "images": nhwc(images), "features": features.numpy()}


def timm_names(weights):
    """Entries of transformers' ViTModel as timm has them."""
    names = (
        (r"layers\.(\d+)\.", r"blocks.\1."),
        (r"embeddings\.position_embeddings", "pos_embed"),
        (r"embeddings\.cls_token", "cls_token"),
        (r"embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
        ("layernorm_before", "norm1"),
        ("layernorm_after", "norm2"),
        ("layernorm", "norm"),
        (r"attention\.o_proj", "attn.proj"),
        (r"attention\.q_proj", "attn.qkv"),
    )
    found = {}
    for name, value in weights.items():
        if re.search("k_proj|v_proj", name):
            continue
        if "q_proj" in name:
            parts = [weights[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            value = np.concatenate(parts)
        for old, new in names:
            name = re.sub(old, new, name)
        found[name] = value
    return found


@torch.no_grad()
def vit(seed):
    """A tiny vision transformer of transformers, at its own image size and at another."""
    config = ViTConfig(
        image_size=VIT["image"],
        patch_size=VIT["patch"],
        hidden_size=VIT["width"],
        num_hidden_layers=VIT["depth"],
        num_attention_heads=VIT["heads"],
        intermediate_size=4 * VIT["width"],
        layer_norm_eps=1e-6,
    )
    model = randomize(ViTModel(config, add_pooling_layer=False), seed)
    images = draw_images(16, 16)
    larger = draw_images(24, 28)
    weights = {name: w.numpy() for name, w in model.state_dict().items()}
    tokens = model(images).last_hidden_state
    resized = model(larger, interpolate_pos_encoding=True).last_hidden_state[:, 0]
    return {
        "weights": timm_names(weights),
        "images": nhwc(images),
        "features": tokens[:, 0].numpy(),
        "mean": tokens[:, 1:].mean(1).numpy(),
        "larger": nhwc(larger),
        "resized": resized.numpy(),
    }


@torch.no_grad()
def timm_vit(seed):
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(
        img_size=VIT["image"],
        patch_size=VIT["patch"],
        embed_dim=VIT["width"],
        depth=VIT["depth"],
        num_heads=VIT["heads"],
        num_classes=5,
    )
    model = randomize(model, seed)
    images = draw_images(16, 16)
    features = model.forward_head(model.forward_features(images), pre_logits=True)
    weights = {name: w.numpy() for name, w in model.state_dict().items()}
    return {
        "weights": weights,
        "images": nhwc(images),
        "features": features.numpy(),
        "logits": model(images).numpy(),
    }


@torch.no_grad()
def torchvision_vit(seed):
    from torchvision.models import VisionTransformer

    width = VIT["width"]
    model = VisionTransformer(
        VIT["image"], VIT["patch"], VIT["depth"], VIT["heads"], width, 4 * width, num_classes=5
    )
    model = randomize(model, seed)
    images = draw_images(16, 16)
    weights = {name: w.numpy() for name, w in model.state_dict().items()}
    logits = model(images).numpy()
    model.heads = torch.nn.Identity()
    features = model(images).numpy()
    return {"weights": weights, "images": nhwc(images), "features": features, "logits": logits}


def entries(depth):
    """Names and shapes in torchvision's residual network."""
    import torchvision

    return described(getattr(torchvision.models, f"resnet{depth}")().state_dict())


if __name__ == "__main__":
    path = Path(__file__).with_name("published_encoders.npz")
    cases = {
        "resnet18": resnet(18, 0),
        "resnet50": resnet(50, 0),
        "timm_vit": timm_vit(0),
        "torchvision_vit": torchvision_vit(0),
    }
    arrays = {f"entries/resnet{depth}": np.array(entries(depth)) for depth in BLOCKS}
    for case, found in cases.items():
        weights = found.pop("weights")
        found["images"] = numerators([found["images"]]).reshape(found["images"].shape)
        arrays |= {f"{case}/{name}": value for name, value in found.items()}
        arrays[f"{case}/entries"] = np.array(described(weights))
        arrays[f"{case}/weights"] = numerators(weights.values())
    np.savez_compressed(path, **arrays)
    print(f"{path}: {path.stat().st_size} bytes")
