"""What is claimed of the jobs whose own reports decide nothing, by job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

from experiments.reproduce_claims import Rule, ahead, at_most, no_better, positive, within

IN_FIGURES = "in figures, no number"
ABSTRACT = "stated, no number known here"


def _alignment(noise: str, mask: str) -> list[Rule]:
    impact = "impact | where corruption = {} | columns K = {}"
    return [
        within(
            f"Gaussian noise never helps, K = {rank}",
            impact.format(noise, rank),
            -0.005,
            0.005,
            "never beneficial",
        )
        for rank in (16, 64, 256)
    ] + [
        within(
            f"masked patches help, K = {rank}",
            impact.format(mask, rank),
            0,
            inf,
            "depends on the dataset; " + IN_FIGURES,
        )
        for rank in (16, 64, 256)
    ]


def _subspace(column: str, name: str, paper: str = "55 against 45, TinyImageNet") -> Rule:
    where = f"accuracy | where images = {{}} | columns {column}"
    claim = f"{name} classifies better from the bottom 20% than from the top 90%"
    return ahead(claim, where.format("bottom 20%"), where.format("top 90%"), paper)


def _scenes(rank: int) -> list[Rule]:
    where = "compare | where source = image_size={}, background_amplitude={} | columns K = " + str(
        rank
    )
    return [
        ahead(
            f"alignment falls with background, 32 px, K = {rank}",
            where.format(32, "0.0"),
            where.format(32, "1.0"),
            IN_FIGURES,
        ),
        ahead(
            f"alignment falls with resolution, background 0.5, K = {rank}",
            where.format(16, "0.5"),
            where.format(32, "0.5"),
            IN_FIGURES,
        ),
    ]


def _learning(network: str) -> list[Rule]:
    arrival = f"perception | where features = {network} | columns {{}} at (epoch)"
    return [
        within(
            f"modes are learned in the predicted order, {network}",
            f"order | where autoencoder = {network} | columns rank correlation",
            0.9,
            1,
        ),
        ahead(
            f"perception comes later than reconstruction, {network}",
            arrival.format("perception"),
            arrival.format("reconstruction"),
            "last",
        ),
    ]


def _guidance(latents: int) -> list[Rule]:
    where = f"guidance | where latents = {latents} | where g = {{}} | columns {{}}"
    return [
        ahead(
            f"guidance of 0.001 raises the probe, {latents} latents",
            where.format(0.001, "linear probe"),
            where.format(0, "linear probe"),
            ABSTRACT,
        ),
        within(
            f"guidance of 0.001 changes the error by at most 2%, {latents} latents",
            where.format(0.001, "Δ MSE (%)"),
            -2,
            2,
            ABSTRACT,
        ),
        within(
            f"guidance of 0.01, the paper's, changes it by at most 2%, {latents} latents",
            where.format(0.01, "Δ MSE (%)"),
            -2,
            2,
            "the same error; " + ABSTRACT,
        ),
    ]


def _mask_sweep() -> list[Rule]:
    where = "corruptions | where corruption = {} | columns {}"
    agree = "agreement | where read-out = {} | where among = {} | where K = {} | columns {}"
    chosen = "64 (chosen beforehand)"
    rules = []
    for read_out in ("linear probe", "kNN"):
        for group in ("all", "dropping patches"):
            spots = (
                agree.format(read_out, group, chosen, name) for name in ("Spearman", "95% interval")
            )
            rules.append(
                positive(f"alignment predicts the {read_out}, corruptions: {group}", *spots)
            )
    for read_out in ("linear probe (%)", "kNN (%)"):
        best, none = (
            where.format(name, read_out)
            for name in ("patch_subset(0.75, 4x4), 48 of 64 hidden", "none")
        )
        noise = where.format("gaussian(1)", read_out)
        rules.append(
            no_better(f"Gaussian noise has no benefit, {read_out[:-4]}", noise, none, "none")
        )
        rules.append(ahead(f"hidden patches help, {read_out[:-4]}", best, none))
    return rules


def _readouts() -> list[Rule]:
    where = "readouts | where read-out = {} | columns {}"
    papers = {
        "fine-tuned": "83.6 against 82.3, ImageNet",
        "linear probe, logistic regression": "",
        "nearest neighbours": "",
    }
    return [
        ahead(
            f"pretraining helps: {name}",
            where.format(name, "pretrained"),
            where.format(name, "without"),
            paper,
        )
        for name, paper in papers.items()
    ]


def _targets() -> list[Rule]:
    where = "targets | where target = {} | columns {}"
    learned = (where.format("bottom 25%", "error (% of target)"), 90.0)
    papers = {
        "fine-tuned": "third party, CIFAR-10: 90.2 against 88.5",
        "linear probe": "third party, CIFAR-10: 63.8 against 61.5",
    }
    return [
        ahead(
            f"the bottom 25% is a better target than the image, {name}",
            where.format("bottom 25%", name),
            where.format("original", name),
            paper,
            learned,
        )
        for name, paper in papers.items()
    ]


def _decoders() -> list[Rule]:
    where = "decoders | where decoder = {} | columns {}"
    factorised, local, full = "factorised", "local, h = 1", "full"
    rules = [
        ahead(
            "a local decoder takes nats out of the latent",
            where.format(factorised, "KL (nats)"),
            where.format(local, "KL (nats)"),
            ABSTRACT,
        )
    ]
    for name in ("linear probe", "kNN"):
        rules.append(
            ahead(
                f"a local decoder leaves a better latent than a factorised one, {name}",
                where.format(local, name),
                where.format(factorised, name),
                ABSTRACT,
            )
        )
        rules.append(
            ahead(
                f"a local decoder leaves a better latent than a full one, {name}",
                where.format(local, name),
                where.format(full, name),
            )
        )
    return rules


def _texture() -> list[Rule]:
    where = "texture | where strength = {} | where decoder = {} | columns {}"
    rules = []
    for strength in ("0", "0.07", "0.15"):
        for name in ("linear probe", "kNN"):
            local = where.format(strength, "local, h = 1", name)
            rules.append(
                ahead(
                    f"local beats factorised at texture {strength}, {name}",
                    local,
                    where.format(strength, "factorised", name),
                )
            )
            rules.append(
                ahead(
                    f"local beats full at texture {strength}, {name}",
                    local,
                    where.format(strength, "full", name),
                )
            )
    return rules


def _labels() -> list[Rule]:
    where = "semi_supervised | where labels a class = {} | where method = {} | columns accuracy"
    local = "M2, local, h = 1"
    return [
        ahead(
            f"M2 with a local decoder beats {name}, {shots} labels a class",
            where.format(shots, local),
            where.format(shots, other),
            ABSTRACT if other == "supervised only" else "",
        )
        for shots in (10, 30)
        for name, other in (
            ("the classifier alone", "supervised only"),
            ("one with a factorised decoder", "M2, factorised"),
        )
    ]


def _depth_laws() -> list[Rule]:
    exponent = (
        "exponents | where network = 1-D, stride 1, F = 2, N = 1024 "
        "| where quantity = {} | columns {}"
    )
    return [
        at_most("D is the exact sum", "agreement | columns D, largest relative difference", 1e-6),
        at_most(
            "G is the exact sum, to 2%", "agreement | columns G, largest difference (%)", 2.0
        ),
        within(
            "D falls as 1 / k, layers 32 to 128, F = 2, to 10%",
            exponent.format("D", "measured"),
            -1.1,
            -0.9,
            "exponent -1",
        ),
        within(
            "G grows as the root of k there, to 10%",
            exponent.format("G", "measured"),
            0.45,
            0.55,
            "exponent 1/2",
        ),
        within(
            "G grows as the root of k in the exact sums of layers 512 to 2048, to 10%",
            exponent.format("G", "exact, many sites"),
            0.45,
            0.55,
            "exponent 1/2",
        ),
    ]  # fmt: skip


RULES: Mapping[str, Sequence[Rule]] = {
    "alignment_embedded": _alignment("gaussian(0.5)", "patch_mask(0.75, 4x4)"),
    "alignment_cifar10": _alignment("gaussian(0.5)", "patch_mask(0.75, 4x4)"),
    "alignment_imagenette32": _alignment("gaussian(0.5)", "patch_mask(0.75, 4x4)"),
    "alignment_scenes": _scenes(64),
    "subspace_cifar10": [
        _subspace("resnet9, crop_flip", "ResNet9"),
        _subspace("mlp", "MLP", ABSTRACT),
    ],
    "subspace_tiny_imagenet20": [_subspace("resnet9, crop_flip", "ResNet9")],
    "subspace_embedded": [
        _subspace("resnet9, crop_flip", "ResNet9"),
        _subspace("mlp", "MLP", ABSTRACT),
    ],
    "learning_order_embedded": [
        *_learning("convolutional, depth 3"),
        *_learning("MLP, depth 3"),
    ],
    "guidance_embedded": [*_guidance(8), *_guidance(16), *_guidance(32)],
    "mask_sweep_embedded": _mask_sweep(),
    "mask_sweep_cifar10": _mask_sweep(),
    "masked_autoencoder_embedded": _readouts(),
    "spectral_targets_embedded": _targets(),
    "local_vae_embedded": _decoders(),
    "local_vae_mnist": _decoders(),
    "texture_embedded": _texture(),
    "texture_mnist": _texture(),
    "semi_supervised_embedded": _labels(),
    "depth_laws": _depth_laws(),
}
