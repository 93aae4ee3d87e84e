"""Networks written once more in PyTorch, as functions of Flax variables, to compare with."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

torch.set_num_threads(1)


def tensor(array):
    return torch.from_numpy(np.array(array))


def images_to_torch(images):
    return tensor(images).permute(0, 3, 1, 2)


def conv(x, params, stride=1, padding=None):
    kernel = tensor(params["kernel"]).permute(3, 2, 0, 1)
    bias = tensor(params["bias"]) if "bias" in params else None
    padding = kernel.shape[-1] // 2 if padding is None else padding
    return F.conv2d(x, kernel, bias, stride, padding)


def up(x, params, output_padding):
    # Flax slides the kernel as it is, PyTorch the transpose of a convolution's.
    kernel = tensor(params["kernel"]).flip(0, 1).permute(2, 3, 0, 1)
    bias = tensor(params["bias"]) if "bias" in params else None
    return F.conv_transpose2d(x, kernel, bias, 2, kernel.shape[-1] // 2, output_padding)


def norm(x, params, stats, train=False):
    """Batch norm, and the running mean and variance after it."""
    mean, var = tensor(stats["mean"]), tensor(stats["var"])
    out = F.batch_norm(x, mean, var, tensor(params["scale"]), tensor(params["bias"]), train, 0.1)
    return out, mean, var


def block(x, params, stats, stride=1, relu=True):
    x = conv(x, params["conv"], stride)
    if "norm" in params:
        x = norm(x, params["norm"], stats["norm"])[0]
    return F.relu(x) if relu else x


def dense(x, params):
    return F.linear(x, tensor(params["kernel"]).T, tensor(params["bias"]))


def resnet9(images, variables):
    p, s = variables["params"], variables["batch_stats"]

    def step(x, name):
        return block(x, p[name], s[name])

    def residual(x, name):
        y = block(x, p[name]["conv1"], s[name]["conv1"])
        return x + block(y, p[name]["conv2"], s[name]["conv2"])

    x = step(images_to_torch(images), "conv1")
    x = residual(F.max_pool2d(step(x, "conv2"), 2), "res1")
    x = F.max_pool2d(step(x, "conv3"), 2)
    x = residual(F.max_pool2d(step(x, "conv4"), 2), "res2")
    x = residual(F.max_pool2d(step(x, "conv5"), 2), "res3")
    return dense(F.adaptive_max_pool2d(x, 1).flatten(1), p["head"])


def resnet18(images, variables):
    p, s = variables["params"], variables["batch_stats"]
    x = block(images_to_torch(images), p["stem"], s["stem"], 2)
    x = F.max_pool2d(x, 3, 2, 1)
    for stage in range(1, 5):
        for index in (1, 2):
            name = f"stage{stage}_block{index}"
            stride = 2 if stage > 1 and index == 1 else 1
            y = block(x, p[name]["conv1"], s[name]["conv1"], stride)
            y = block(y, p[name]["conv2"], s[name]["conv2"], relu=False)
            if "shortcut" in p[name]:
                x = block(x, p[name]["shortcut"], s[name]["shortcut"], stride, relu=False)
            x = F.relu(x + y)
    return dense(x.mean((2, 3)), p["head"])


def conv_autoencoder(images, variables, output_paddings):
    p = variables["params"]
    x, depth = images_to_torch(images), len(output_paddings)
    for i in range(1, depth + 1):
        x = conv(x, p["encoder"][f"conv{i}"]["conv"], 2)
        x = F.relu(x) if i < depth else x
    for i, extra in enumerate(output_paddings, 1):
        x = up(x, p["decoder"][f"conv{i}"]["conv"], extra)
        x = F.relu(x) if i < depth else x
    return torch.sigmoid(x).permute(0, 2, 3, 1)


def efficientnet(images, variables, stages, stem_stride):
    """EfficientNet in evaluation mode; stages of (blocks, stride of the first)."""
    p, s = variables["params"], variables["batch_stats"]

    def step(x, params, stats, stride=1, groups=1, swish=True):
        kernel = tensor(params["conv"]["kernel"]).permute(3, 2, 0, 1)
        x = F.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2, 1, groups)
        x = norm(x, params["norm"], stats["norm"])[0]
        return F.silu(x) if swish else x

    def inverted(x, params, stats, stride):
        y = step(x, params["expand"], stats["expand"]) if "expand" in params else x
        y = step(y, params["depthwise"], stats["depthwise"], stride, y.shape[1])
        excite = params["squeeze_excite"]
        weights = F.silu(dense(y.mean((2, 3)), excite["squeeze"]))
        y = y * torch.sigmoid(dense(weights, excite["excite"]))[:, :, None, None]
        y = step(y, params["project"], stats["project"], swish=False)
        return x + y if x.shape == y.shape else y

    x = step(images_to_torch(images), p["stem"], s["stem"], stem_stride)
    for stage, (blocks, first) in enumerate(stages, start=1):
        for block in range(1, blocks + 1):
            name = f"stage{stage}_block{block}"
            x = inverted(x, p[name], s[name], first if block == 1 else 1)
    if "top" in p:
        x = step(x, p["top"], s["top"])
    return dense(x.mean((2, 3)), p["head"]).numpy()
