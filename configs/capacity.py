"""Recipe: how much memory, arithmetic, traffic and time the heavy jobs take on a machine, on paper.

    python -m experiments.capacity                                    # all accelerators, one table
    python -m experiments.capacity --config=configs/capacity.py:v4-32
    python -m experiments.capacity --config=configs/capacity.py:cpu   # predicted against measured

Variants: accelerators, v4-8, v4-16, v4-32, v4-64, v4-128, h100x8, cpu. v4-N has N TensorCores, two
a chip, and a chip is one JAX device. Tracing takes two to three minutes and needs no accelerator;
`cpu` measures the peak rates of this machine and reduced jobs, in about three.

Another machine: `--config.devices='(("mine", "h100", 16, 1),)'`; another chip: the fields of
`--config.chips.h100`.
"""

from ml_collections import ConfigDict

from configs.variants import named_config

# Peak rates of one chip, as published. FLOP/s by precision: "float32" is a product at JAX's
# precision "highest".
CHIPS = {
    # Jouppi et al. 2023 (arXiv 2304.01433) and cloud.google.com/tpu/docs/v4: 275 TFLOP/s,
    # 32 GiB, 1228 GB/s, six links of 50 GB/s each way. float32 takes six passes in bfloat16.
    "v4": {
        "bfloat16": 275e12,
        "float32": 275e12 / 6,
        "memory": 32 * 2.0**30,
        "memory_bandwidth": 1228e9,
        "link_bandwidth": 50e9,
        # JAX's eigh on TPU is spectral divide and conquer by polar decompositions (QDWH).
        "eigh": "qdwh",
    },
    # NVIDIA H100 Tensor Core GPU data sheet, SXM: 989 TFLOP/s dense bfloat16, 67 TFLOP/s float32
    # outside the tensor cores, 80 GB, 3.35 TB/s, NVLink 900 GB/s for both directions together.
    "h100": {
        "bfloat16": 989e12,
        "float32": 67e12,
        "memory": 80e9,
        "memory_bandwidth": 3.35e12,
        "link_bandwidth": 450e9,
        "eigh": "tridiagonal",
    },
}

# Kind -> chip, devices, links a device can send on at once. Slices below 4 x 4 x 4 are no tori: a
# chip at a corner of the mesh has one link a dimension.
DEVICES = {
    "v4-8": ("v4", 4, 2),  # 2 x 2 x 1
    "v4-16": ("v4", 8, 3),  # 2 x 2 x 2
    "v4-32": ("v4", 16, 3),  # 2 x 2 x 4
    "v4-64": ("v4", 32, 3),  # 2 x 4 x 4
    "v4-128": ("v4", 64, 6),  # 4 x 4 x 4, a torus
    "h100x8": ("h100", 8, 1),
}
VARIANTS = ("accelerators", *DEVICES, "cpu")


def get_config(variant: str = "") -> ConfigDict:
    config = named_config(variant, VARIANTS, "accelerators")
    config.measure = config.name == "cpu"
    kinds = {"accelerators": tuple(DEVICES), "cpu": ()}.get(config.name, (config.name,))
    config.devices = tuple((kind, *DEVICES[kind]) for kind in kinds)
    config.chips = ConfigDict(CHIPS)

    # ImageNet, 1,281,167 training images. Sides whose scatter fits one device are accumulated by
    # each device on its own images; of larger ones each device holds some rows.
    config.moments = ConfigDict()
    config.moments.num_images = 1_281_167
    config.moments.num_classes = 1000
    config.moments.whole_side = 64  # D = 12,288
    config.moments.sharded_side = 224  # D = 150,528
    config.moments.batch_size = 4096  # over all devices

    config.eigh = ConfigDict()
    config.eigh.sizes = (3072, 12_288)

    config.resnet50 = ConfigDict()
    config.resnet50.depth = 50
    config.resnet50.image_size = 224
    config.resnet50.num_classes = 1000
    config.resnet50.batch_size = 1024
    config.resnet50.dtype = "bfloat16"

    config.mae = ConfigDict()
    config.mae.name = "ViT-B MAE"
    config.mae.width = 768
    config.mae.depth = 12
    config.mae.heads = 12
    config.mae.image_size = 224
    config.mae.patch_size = 16
    config.mae.mask_ratio = 0.75
    config.mae.decoder_depth = 8
    config.mae.batch_size = 4096
    config.mae.dtype = "bfloat16"

    # What `cpu` measures instead: the same programs, small, in float32.
    config.rounds = 5  # of peaks and jobs, interleaved; medians count
    config.peaks = ConfigDict()
    config.peaks.product_size = 2048  # rows and columns of a matrix product
    config.peaks.array_size = 2**26  # numbers in an array of the memory kernel
    config.peaks.eigh_size = 1536
    if config.name == "cpu":
        config.moments.whole_side = 32
        config.moments.batch_size = 2048
        config.eigh.sizes = (2048,)
        config.resnet50.image_size = 128
        config.resnet50.batch_size = 8
        config.resnet50.dtype = "float32"
        config.mae.name = "ViT-S MAE"
        config.mae.width = 384
        config.mae.heads = 6
        config.mae.image_size = 64
        config.mae.patch_size = 8
        config.mae.decoder_depth = 4
        config.mae.batch_size = 32
        config.mae.dtype = "float32"
    return config
