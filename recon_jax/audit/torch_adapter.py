"""PyTorch modules as encoders; PyTorch itself is asked for only here, and only when one is made."""

from __future__ import annotations

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike

from recon_jax.audit.adapting import Constant, Output, as_constants, listed, normalized, pick
from recon_jax.audit.encoders import Encoder


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "an encoder of PyTorch needs PyTorch: pip install 'recon-jax[torch]'"
        ) from error
    return torch


@contextlib.contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Evaluation mode and no gradients; every part is then in its own mode again."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with _torch().inference_mode():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


class _TorchCall:
    """A module called on NumPy images (N, H, W, C)."""

    def __init__(
        self, module: Any, names: tuple[str, ...], output: Output, constants: tuple, device: Any
    ):
        self.module, self.names, self.output, self.constants = module, names, output, constants
        parameters = list(module.parameters())
        self.device = device or (parameters[0].device if parameters else "cpu")
        floats = [each.dtype for each in parameters if each.dtype.is_floating_point]
        self.dtype = floats[0] if floats else _torch().float32
        module.to(self.device)

    def _run(self, images: ArrayLike) -> Any:
        images = normalized(np.asarray(images, np.float32), *self.constants)
        # A copy: PyTorch warns of memory that must not be written to.
        channels_first = np.array(images.transpose(0, 3, 1, 2), order="C")
        with _evaluating(self.module):
            tensor = _torch().from_numpy(channels_first)
            return self.module(tensor.to(self.device, self.dtype))

    def features(self, images: ArrayLike) -> np.ndarray:
        what = type(self.module).__name__
        return _to_numpy(pick(self._run(images), self.output, what), f"the output of {what}")

    def layers(self, images: ArrayLike) -> OrderedDict[str, np.ndarray]:
        calls: list[tuple[str, Any]] = []
        parts = [(name, self.module.get_submodule(name)) for name in self.names]
        with contextlib.ExitStack() as stack:
            for name, part in parts:
                keep = lambda part, inputs, output, name=name: calls.append((name, output))  # noqa: E731
                stack.callback(part.register_forward_hook(keep).remove)
            self._run(images)
        found, times = OrderedDict(), dict.fromkeys(self.names, 0)
        for name, output in calls:
            times[name] += 1
            first = output[0] if isinstance(output, tuple | list) and output else output
            key = name if times[name] == 1 else f"{name}/{times[name]}"
            found[key] = _to_numpy(first, f"the output of layer {name!r}")
        if unused := [name for name in self.names if not times[name]]:
            raise ValueError(
                f"{type(self.module).__name__} did not call its layer(s) {listed(unused)}; leave "
                "them out of layers=..."
            )
        return found


def _to_numpy(found: Any, what: str) -> np.ndarray:
    """A tensor in host memory, maps as (N, H, W, C)."""
    torch = _torch()
    if not isinstance(found, torch.Tensor):
        raise ValueError(
            f"{what} is {type(found).__name__}, not a tensor; choose one by output=... or, of a "
            "layer, another layer"
        )
    array = (found.float() if found.dtype in (torch.float16, torch.bfloat16) else found).cpu()
    return np.moveaxis(array.numpy(), 1, -1) if array.ndim == 4 else array.numpy()


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """PyTorch's generators at a seed, and afterwards where they were."""
    torch = _torch()
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def _reset(part: Any) -> Callable[[], Any] | None:
    """What draws the parameters of a part again, if it has such a thing."""
    return getattr(part, "reset_parameters", getattr(part, "_reset_parameters", None))


def _can_reset(module: Any) -> bool:
    """Whether every parameter belongs to a part that can draw it again."""
    parts = module.modules()
    return all(_reset(part) or not list(part.parameters(recurse=False)) for part in parts)


def _redrawn(module: Any, seed: int) -> Any:
    """A copy of the module with parameters drawn again."""
    module = copy.deepcopy(module)
    with _seeded(seed):
        for part in module.modules():
            if reset := _reset(part):
                reset()
    return module


def _require_module(what: str, module: Any) -> None:
    if not isinstance(module, _torch().nn.Module):
        raise ValueError(
            f"{what} is {type(module).__name__}, not a torch.nn.Module; other functions are "
            "encoders as they are"
        )


def _check_layers(module: Any, layers: tuple[str, ...]) -> None:
    """Raise ValueError unless these are submodules."""
    known = [name for name, _ in module.named_modules() if name]
    unknown = [name for name in layers if name not in known]
    if unknown:
        raise ValueError(
            f"{type(module).__name__} has no submodule {', '.join(map(repr, unknown))}; choose "
            f"from {listed(known) or 'nothing: it has no submodules'}"
        )


def torch_encoder(
    module: Any,
    *,
    layers: Sequence[str] = (),
    output: Output = None,
    mean: Constant = None,
    std: Constant = None,
    device: Any = None,
    fresh: Callable[[int], Any] | None = None,
    name: str | None = None,
) -> Encoder:
    """A PyTorch module as an encoder.

        torch_encoder(resnet, layers=("layer1", "layer2"), mean=IMAGENET_MEAN, std=IMAGENET_STD)
        torch_encoder(transformers_model, output="pooler_output", mean=0.5, std=0.5)
        torch_encoder(vit, fresh=lambda seed: timm.create_model("vit_tiny_patch16_224"))

    It is called in evaluation mode and without gradients, and is left as it was. Images reach it as
    (N, C, H, W) in the dtype of its parameters; maps come back as (N, H, W, C), anything else as it
    is, 16-bit numbers in float32.

    A random network of the same architecture is a copy whose parts draw their parameters again, by
    reset_parameters, as those of torch.nn do. Where a part has parameters and no such method, such
    as the class token of a transformer, there is none, unless `fresh` makes it. PyTorch's random
    numbers elsewhere stay as they would have been.

    Args:
      module: a torch.nn.Module of images.
      layers: names of submodules whose outputs are wanted, of several outputs the first, in the
        order they are called; a second call of the same gets the name "<name>/2".
      output: which of several things that are returned: a key or field ("last_hidden_state"), an
        index, or a function of what is returned.
      mean: subtracted from images in [0, 1]: a number, one a channel (C,), or one a pixel
        (H, W, C).
      std: by which images are then divided, likewise.
      device: where it runs, and is moved to; where its parameters are if None.
      fresh: from a seed to a module with new random weights; PyTorch's generators are at that seed
        when it is called.
      name: what tables call it; by default that of the module's class.

    Returns:
      An Encoder that is called as it is, with NumPy arrays.

    Raises:
      ImportError: where PyTorch is not installed.
      ValueError: if `module` is no module, for layers it does not have, and bad means or
        deviations; when it is called, if it returns several things or no tensor, or does not call
        one of the layers.
    """
    _require_module("module", module)
    names, constants = tuple(layers), as_constants(mean, std)
    _check_layers(module, names)
    title = type(module).__name__ if name is None else name

    def encoder(module: Any) -> Encoder:
        call = _TorchCall(module, names, output, constants, device)
        return Encoder(title, call.features, call.layers if names else None, jit=False)

    def made(seed: int) -> Encoder:
        if fresh is None:
            return encoder(_redrawn(module, seed))
        with _seeded(seed):
            drawn = fresh(seed)
        _require_module(f"what fresh({seed}) returns", drawn)
        return encoder(drawn)

    has_fresh = fresh is not None or _can_reset(module)
    return encoder(module)._replace(fresh=made if has_fresh else None)
