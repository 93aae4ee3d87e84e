"""Collectives of a compiled program, read from its HLO, and what they send over a ring."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

ITEM_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "s32": 4, "u32": 4, "s64": 8, "u64": 8,
    "f16": 2, "bf16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16,
}  # fmt: skip
# Bytes that a device of n sends around a ring, over the bytes of the whole array: an all-reduce is
# a reduce-scatter and an all-gather, of n - 1 hops of 1 / n each.
RING_PASSES = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 1, "all-to-all": 1}

_INSTRUCTION = re.compile(
    rf"= (?P<shape>\(.*?\)|\S+) (?P<kind>{'|'.join(RING_PASSES)})(?P<start>-start)?\("
)
_SHAPE = re.compile(r"([a-z]\w*)\[([\d,]*)\]")


class Collective(NamedTuple):
    """One collective operation.

    Attributes:
      kind: a key of `RING_PASSES`.
      size: bytes of the whole array: what is reduced, or what is gathered.
    """

    kind: str
    size: int


def _shape_bytes(dtype: str, sides: str) -> int:
    if dtype not in ITEM_BYTES:
        raise ValueError(f"unknown type {dtype!r} in HLO; known are {', '.join(ITEM_BYTES)}")
    size = ITEM_BYTES[dtype]
    for side in filter(None, sides.split(",")):
        size *= int(side)
    return size


def find_collectives(hlo: str, count: int) -> list[Collective]:
    """Collectives in the text of a compiled program, `jax.jit(f).lower(...).compile().as_text()`.

    Each is counted once, also one inside a loop.

    Args:
      hlo: the text.
      count: number of devices n; a reduce-scatter returns 1 / n of its array.

    Raises:
      ValueError: for a type of array that is not known.
    """
    found = []
    for match in _INSTRUCTION.finditer(hlo):
        kind = match["kind"]
        sizes = [_shape_bytes(*shape) for shape in _SHAPE.findall(match["shape"])]
        if match["start"] and kind == "all-gather":
            sizes = sizes[len(sizes) // 2 :]  # operands come before the results
        found.append(Collective(kind, sum(sizes) * (count if kind == "reduce-scatter" else 1)))
    return found


def ring_bytes(collectives: Iterable[Collective], count: int) -> float:
    """Bytes that each of n devices sends: 2 (n - 1) / n of an all-reduced array, half if gathered.

    Args:
      collectives: of one step.
      count: number of devices n.

    Raises:
      ValueError: if there is no device.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1 device, got {count}")
    passes = sum(RING_PASSES[kind] * size for kind, size in collectives)
    return passes * (count - 1) / count
