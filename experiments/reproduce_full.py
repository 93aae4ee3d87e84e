"""The jobs of `experiments.reproduce --full`: each paper at full size, for accelerators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.reproduce_jobs import Job

FULL: Mapping[int, Sequence[Job]] = {
    1: (
        Job(
            "subspace_tiny_imagenet_full",
            "subspace_classification:tiny_imagenet",
            "Top or bottom of the spectrum: TinyImageNet",
            data="tiny_imagenet",
        ),
        Job(
            "subspace_cifar10_full",
            "subspace_classification:cifar10",
            "Top or bottom of the spectrum: CIFAR-10",
            data="cifar10",
        ),
        Job(
            "learning_order_cifar10_full",
            "learning_order:cifar10",
            "In which order modes are learned: CIFAR-10",
            data="cifar10",
        ),
        Job(
            "guidance_imagenette_full",
            "guidance:imagenette",
            "Equal reconstructions, different perception: Imagenette",
            data="imagenette",
        ),
        Job(
            "mask_sweep_cifar10_full",
            "mask_sweep:cifar10",
            "Closed form and trained masked autoencoders: CIFAR-10",
            data="cifar10",
        ),
        Job(
            "masked_autoencoder_imagenet_full",
            "masked_autoencoder:imagenet_1600",
            "What is read from a masked autoencoder: ImageNet",
            seeds=(0,),
            data="imagenet",
        ),
        Job(
            "spectral_targets_cifar10_full",
            "spectral_targets:cifar10",
            "The whole image or a part of the spectrum as target: CIFAR-10",
            data="cifar10",
        ),
    ),
    2: (
        Job(
            "projector_cifar10_full",
            "projector_geometry:cifar10",
            "Encoder and projector: CIFAR-10",
            data="cifar10",
        ),
        Job(
            "projector_cifar100_full",
            "projector_geometry:cifar100",
            "Encoder and projector: CIFAR-100",
            data="cifar100",
        ),
    ),
    3: (
        Job(
            "local_vae_mnist_full", "local_vae:mnist", "What the latent keeps: MNIST", data="mnist"
        ),
        Job(
            "local_vae_cifar10_full",
            "local_vae:cifar10",
            "What the latent keeps: CIFAR-10",
            data="cifar10",
        ),
        Job("texture_mnist_full", "texture:mnist", "Under texture: MNIST", data="mnist"),
        Job(
            "semi_supervised_mnist_full",
            "semi_supervised:mnist",
            "Are labels saved: MNIST",
            data="mnist",
        ),
        Job(
            "semi_supervised_svhn_full",
            "semi_supervised:svhn",
            "Are labels saved: SVHN",
            data="svhn",
        ),
    ),
    4: (
        Job(
            "stability_cifar10_full",
            "diffeo_stability:cifar10",
            "Deformations and noise: CIFAR-10",
            data="cifar10",
        ),
        Job("scale_task1_full", "scale_detection:task1", "Near or far: distance on a circle"),
        Job("scale_task2_full", "scale_detection:task2", "Near or far: same block of a circle"),
        Job("scale_task2d_full", "scale_detection:task2d", "Near or far: two pixels of an image"),
        Job("depth_laws_deep", "depth_laws:deep", "Depth laws: constant filters, deeper"),
    ),
    5: (
        Job(
            "pretraining_cifar10_full",
            "pretraining_helps:cifar10",
            "Pretraining on images: CIFAR-10",
            data="cifar10",
        ),
    ),
}
