"""The jobs for two CPU cores that answer for each of the five papers: a plain table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

TEN = tuple(range(10))
NARROW = {"widths": (8, 16, 32, 64, 128)}


class Job(NamedTuple):
    """One run of one experiment.

    Attributes:
      name: of its workdir and of its record.
      recipe: EXPERIMENT:VARIANT, a module of `experiments` and a variant of its config.
      title: what it asks, and after a colon of which images.
      seeds: unless others are asked for.
      data: of the dataset, which `--data=NAME=SOURCE` replaces; empty if nothing is read from disk.
      changes: to the config, by dotted field.
      figures: of the run that are kept -> name in experiments/figures.
    """

    name: str
    recipe: str
    title: str
    seeds: Sequence[int] = (0, 1, 2)
    data: str = ""
    changes: Mapping[str, Any] = MappingProxyType({})
    figures: Mapping[str, str] = MappingProxyType({})

    @property
    def experiment(self) -> str:
        """The module."""
        return self.recipe.partition(":")[0]

    @property
    def variant(self) -> str:
        """Of the config."""
        return self.recipe.partition(":")[2]


JOBS: Mapping[int, Sequence[Job]] = {
    1: (
        Job(
            "alignment_embedded",
            "alignment:embedded",
            "Alignment and corruptions: Fashion-MNIST",
            seeds=(0,),
            figures={"spectrum": "embedded_spectrum"},
        ),
        Job(
            "alignment_cifar10",
            "alignment:cifar10",
            "Alignment and corruptions: CIFAR-10",
            seeds=(0,),
            data="cifar10",
            figures={"impact": "cifar10_impact"},
        ),
        Job(
            "alignment_imagenette64",
            "alignment:imagenette",
            "Alignment and corruptions: Imagenette, 64 px",
            seeds=(0,),
            data="imagenette",
            changes={
                "data.image_size": 64,
                "folds": 0,
                "corruptions": (("gaussian", 0.5),),
                "sweep.patch_sizes": (1, 4, 8),
            },
        ),
        Job(
            "alignment_imagenette32",
            "alignment:imagenette",
            "Alignment and corruptions: Imagenette, 32 px",
            seeds=(0,),
            data="imagenette",
            changes={"folds": 3},
        ),
        Job(
            "alignment_scenes",
            "alignment:scenes",
            "Background and resolution: drawn scenes",
            changes={"folds": 0},
        ),
        Job(
            "subspace_cifar10",
            "subspace_classification:cifar10_cpu",
            "Top or bottom of the spectrum: CIFAR-10",
            seeds=(0, 1),
            data="cifar10",
            changes={"setups": (("resnet9", NARROW, "crop_flip"), ("mlp", {}, "none"))},
            figures={"accuracy": "cifar10_subspaces"},
        ),
        Job(
            "subspace_tiny_imagenet20",
            "subspace_classification:tiny_imagenet20_cpu",
            "Top or bottom of the spectrum: 20 classes of TinyImageNet",
            seeds=(0, 1),
            data="tiny_imagenet20",
        ),
        Job(
            "subspace_embedded",
            "subspace_classification:embedded",
            "Top or bottom of the spectrum: Fashion-MNIST",
            seeds=(0, 1),
        ),
        Job(
            "learning_order_embedded",
            "learning_order:embedded",
            "In which order modes are learned: Fashion-MNIST",
            seeds=(0, 1),
            changes={"models": (("conv_autoencoder", 3), ("mlp_autoencoder", 3))},
            figures={"learned": "embedded_learning_order"},
        ),
        Job(
            "guidance_embedded",
            "guidance:embedded",
            "Equal reconstructions, different perception: Fashion-MNIST",
            seeds=(0, 1),
            changes={"latent_sizes": (8, 16, 32)},
            figures={"guidance": "guidance"},
        ),
        Job(
            "mask_sweep_embedded",
            "mask_sweep:embedded",
            "Closed form and trained masked autoencoders: Fashion-MNIST",
            figures={"scatter": "mask_sweep"},
        ),
        Job(
            "mask_sweep_cifar10",
            "mask_sweep:cifar10_cpu",
            "Closed form and trained masked autoencoders: CIFAR-10",
            data="cifar10",
            figures={"scatter": "mask_sweep_cifar10"},
        ),
        Job(
            "masked_autoencoder_embedded",
            "masked_autoencoder:embedded",
            "What is read from a masked autoencoder: Fashion-MNIST",
            figures={"reconstructions": "masked_autoencoder"},
        ),
        Job(
            "spectral_targets_embedded",
            "spectral_targets:embedded",
            "The whole image or a part of the spectrum as target: Fashion-MNIST",
            figures={"targets": "spectral_targets"},
        ),
    ),
    2: (
        Job(
            "projector_digits",
            "projector_geometry:digits",
            "Encoder and projector: digits",
            data="digits",
            changes={
                "data.source": "npz:digits.npz",  # of scikit-learn; the config says how to make it
                "data.image_size": 0,
                "data.train_limit": 0,
                "data.test_limit": 0,
            },
        ),
        Job(
            "projector_embedded",
            "projector_geometry:embedded",
            "Encoder and projector: Fashion-MNIST",
            figures={"strength": "projector_strength", "directions": "projector_directions"},
        ),
        Job(
            "projector_cifar10",
            "projector_geometry:cifar10_cpu",
            "Encoder and projector: CIFAR-10",
            data="cifar10",
        ),
        Job("projector_control", "projector_geometry:control", "Encoder and projector: control"),
        Job(
            "projector_vicreg",
            "projector_geometry:vicreg",
            "Encoder and projector: VICReg, Fashion-MNIST",
        ),
        Job(
            "projector_barlow_twins",
            "projector_geometry:barlow_twins",
            "Encoder and projector: Barlow Twins, Fashion-MNIST",
        ),
    ),
    3: (
        Job(
            "local_vae_embedded",
            "local_vae:embedded",
            "What the latent keeps: Fashion-MNIST",
            figures={
                "code_length": "local_vae_code_length",
                "directions": "local_vae_directions",
                "pictures": "local_vae_pictures",
            },
        ),
        Job("local_vae_mnist", "local_vae:mnist_cpu", "What the latent keeps: MNIST", data="mnist"),
        Job(
            "texture_embedded",
            "texture:embedded",
            "Under texture: Fashion-MNIST",
            figures={"texture": "texture", "kl": "texture_kl"},
        ),
        Job(
            "texture_mnist",
            "texture:mnist_cpu",
            "Under texture: MNIST",
            data="mnist",
            figures={"texture": "texture_mnist"},
        ),
        Job(
            "semi_supervised_embedded",
            "semi_supervised:embedded",
            "Are labels saved: Fashion-MNIST",
            figures={"labels": "semi_supervised"},
        ),
    ),
    4: (
        Job(
            "stability_cifar10",
            "diffeo_stability:cifar10_cpu",
            "Deformations and noise: CIFAR-10",
            data="cifar10",
            figures={
                "error": "stability_error",
                "depth": "stability_depth",
                "filters": "stability_filters",
            },
        ),
        Job(
            "stability_embedded",
            "diffeo_stability:embedded",
            "Deformations and noise: Fashion-MNIST",
            figures={"error": "stability_error_embedded"},
        ),
        Job(
            "scale_task1",
            "scale_detection:task1_cpu",
            "Near or far: distance on a circle",
            figures={"depth": "scale_task1"},
        ),
        Job(
            "scale_task2",
            "scale_detection:task2_cpu",
            "Near or far: same block of a circle",
            figures={"depth": "scale_task2"},
        ),
        Job(
            "scale_task2d",
            "scale_detection:task2d_cpu",
            "Near or far: two pixels of an image",
            figures={"depth": "scale_task2d"},
        ),
        Job(
            "depth_laws",
            "depth_laws:default",
            "Depth laws: constant filters",
            figures={"depth_laws": "depth_laws"},
        ),
    ),
    5: (
        Job(
            "feature_capture",
            "feature_capture:default",
            "Captured features: 5 classes",
            seeds=TEN,
            figures={
                "methods": "feature_capture",
                "threshold": "feature_capture_threshold",
                "sensitivity": "feature_capture_sensitivity",
            },
        ),
        Job(
            "feature_capture_k10", "feature_capture:k10", "Captured features: 10 classes", seeds=TEN
        ),
        Job(
            "downstream_transfer",
            "downstream_transfer:default",
            "Classes that share features: short fine-tuning",
            seeds=TEN,
            figures={"transfer": "downstream_transfer"},
        ),
        Job(
            "downstream_transfer_relearning",
            "downstream_transfer:relearning",
            "Classes that share features: long fine-tuning",
            seeds=TEN,
        ),
        Job(
            "pretraining_one_epoch",
            "pretraining_helps:embedded",
            "Pretraining on images: Fashion-MNIST, one epoch of fine-tuning",
            changes={"finetuning.epochs": 1, "regions.center": False},
            figures={"accuracy": "pretraining_one_epoch"},
        ),
        Job(
            "pretraining_embedded",
            "pretraining_helps:embedded",
            "Pretraining on images: Fashion-MNIST",
            figures={"accuracy": "pretraining_helps", "maps": "pretraining_maps"},
        ),
        Job(
            "pretraining_cifar10",
            "pretraining_helps:cifar10_cpu",
            "Pretraining on images: CIFAR-10",
            data="cifar10",
            figures={
                "accuracy": "pretraining_helps_cifar10",
                "maps": "pretraining_maps_cifar10",
            },
        ),
    ),
}
