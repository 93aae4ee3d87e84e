"""The roofline: time from what a program does and what a device can do, and what bounds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Device(NamedTuple):
    """One device of a machine, by its peak rates.

    Attributes:
      kind: its name.
      count: devices that work together, at least 1.
      flops: FLOP/s for every kind of arithmetic, such as {"bfloat16": 275e12}.
      memory: bytes.
      memory_bandwidth: bytes/s between the device and its memory.
      link_bandwidth: bytes/s that a device sends to the others while it receives as many.
      overlaps: whether memory and network are used while the device computes, as accelerators do
        by asynchronous copies; if not, the times add up.
    """

    kind: str
    count: int
    flops: Mapping[str, float]
    memory: float
    memory_bandwidth: float
    link_bandwidth: float
    overlaps: bool = True


class Cost(NamedTuple):
    """What one step costs one device.

    Attributes:
      flops: FLOPs for every kind of arithmetic, by the names of `Device.flops`.
      traffic: bytes moved between the device and its memory.
      network: bytes a device sends, see `ring_bytes`.
      memory: bytes held.
    """

    flops: Mapping[str, float]
    traffic: float
    network: float = 0.0
    memory: float = 0.0


class Prediction(NamedTuple):
    """Seconds of one step at peak rates.

    Attributes:
      compute: of the arithmetic alone.
      memory: of the memory traffic alone.
      network: of the collectives alone.
      seconds: of the step.
      serial: of the step if nothing overlaps, compute + memory + network.
      bound: what takes longest: "compute", "memory" or "network".
    """

    compute: float
    memory: float
    network: float
    seconds: float
    serial: float
    bound: str


def predict(cost: Cost, device: Device) -> Prediction:
    """Seconds of a step: max(compute, memory, network), or their sum where nothing overlaps.

    compute = sum over kinds of FLOPs / rate, memory = traffic / memory bandwidth, network = bytes
    sent / link bandwidth.

    Args:
      cost: of one step on one device.
      device: that executes it.

    Raises:
      ValueError: if the device has no rate for a kind of arithmetic, or a rate is not above 0.

    Source: Williams, Waterman & Patterson 2009, "Roofline: an insightful visual performance model".
    """
    missing = sorted(set(cost.flops) - set(device.flops))
    if missing:
        raise ValueError(
            f"device {device.kind} has no rate for {', '.join(missing)}; it has "
            f"{', '.join(device.flops)}"
        )
    rates = {
        **device.flops,
        "memory_bandwidth": device.memory_bandwidth,
        "link_bandwidth": device.link_bandwidth,
    }
    for name, rate in rates.items():
        if not rate > 0:
            raise ValueError(f"{name} of device {device.kind} must be above 0, got {rate}")
    parts = {
        "compute": sum(count / device.flops[kind] for kind, count in cost.flops.items()),
        "memory": cost.traffic / device.memory_bandwidth,
        "network": cost.network / device.link_bandwidth,
    }
    bound = max(parts, key=parts.__getitem__)
    serial = sum(parts.values())
    return Prediction(
        **parts, seconds=parts[bound] if device.overlaps else serial, serial=serial, bound=bound
    )
