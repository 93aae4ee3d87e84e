"""Collectives by hand-written HLO, and of programs compiled for simulated devices."""

import json
from pathlib import Path

import pytest

from recon_jax.sizing import Collective, find_collectives, ring_bytes

WORKER = Path(__file__).parent / "workers" / "four_devices.py"

HLO = """
  %all-reduce.3 = (f32[10,20]{1,0}, f32[]) all-reduce(%a, %b), channel_id=1, to_apply=%add
  %all-gather.1 = bf16[8,16]{1,0:T(8,128)(2,1)} all-gather(%c), dimensions={0}
  %reduce-scatter = f32[4]{0} reduce-scatter(%d), dimensions={0}, to_apply=%add
  %all-gather-start = (u8[2,3]{1,0}, u8[8,3]{1,0}) all-gather-start(%e), dimensions={0}
  %all-gather-done = u8[8,3]{1,0} all-gather-done(%all-gather-start)
  %all-reduce-start = s32[7]{0} all-reduce-start(%f), to_apply=%add
  ROOT %fusion = f32[99]{0} fusion(%all-reduce.3), kind=kLoop
"""


def test_hand_written_hlo():
    assert find_collectives(HLO, 4) == [
        Collective("all-reduce", 804),
        Collective("all-gather", 256),
        Collective("reduce-scatter", 64),
        Collective("all-gather", 24),
        Collective("all-reduce", 28),
    ]


def test_a_type_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="unknown type 'f8e9' in HLO; known are pred, s8") as error:
        find_collectives("%x = f8e9[3] all-reduce(%a)", 2)
    assert "f32" in str(error.value)


def test_bytes_around_a_ring():
    reduced, gathered = Collective("all-reduce", 1000), Collective("all-gather", 1000)
    assert ring_bytes([reduced], 4) == 1500
    assert ring_bytes([gathered], 4) == 750
    assert ring_bytes([reduced, gathered, gathered], 2) == 2000
    assert ring_bytes([reduced], 1) == 0
    with pytest.raises(ValueError, match="at least 1 device, got 0"):
        ring_bytes([reduced], 0)


def test_programs_compiled_for_4_devices(run_workers, tmp_path):
    run_workers(WORKER, [tmp_path / "found.json"])
    found = json.loads((tmp_path / "found.json").read_text())
    # A step sends the gradient and nothing else but the number of images and sums of metrics.
    assert {kind for kind, _ in found["step"]} == {"all-reduce"}
    sent = sum(size for _, size in found["step"])
    assert 0 < sent - found["gradient"] <= 64
    assert found["gather"] == [["all-gather", 4 * 6 * 5 * 4]]
    assert found["scatter"] == [["reduce-scatter", 8 * 5 * 4]]
