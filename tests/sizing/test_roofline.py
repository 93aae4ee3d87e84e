import pytest

from recon_jax.sizing import Cost, Device, predict

DEVICE = Device(
    kind="chip",
    count=4,
    flops={"bfloat16": 100.0, "float32": 20.0},
    memory=1000.0,
    memory_bandwidth=10.0,
    link_bandwidth=5.0,
)


def test_times_and_bound_by_hand():
    found = predict(Cost({"bfloat16": 300, "float32": 40}, traffic=20, network=15), DEVICE)
    assert (found.compute, found.memory, found.network) == (5, 2, 3)
    assert (found.seconds, found.bound, found.serial) == (5, "compute", 10)


@pytest.mark.parametrize(
    ("traffic", "network", "bound", "seconds"),
    [(70, 15, "memory", 7), (20, 45, "network", 9), (20, 15, "compute", 5)],
)
def test_the_slowest_part_is_the_bound(traffic, network, bound, seconds):
    found = predict(Cost({"bfloat16": 500}, traffic, network), DEVICE)
    assert (found.bound, found.seconds) == (bound, seconds)


def test_without_overlap_the_parts_add_up():
    found = predict(Cost({"float32": 20}, 20, 15), DEVICE._replace(overlaps=False))
    assert found.seconds == found.serial == 6
    assert found.bound == "network"


def test_a_rate_that_is_missing_or_zero_is_refused():
    with pytest.raises(ValueError, match="no rate for float64; it has bfloat16, float32"):
        predict(Cost({"float64": 1}, 1), DEVICE)
    with pytest.raises(ValueError, match="memory_bandwidth of device chip must be above 0, got 0"):
        predict(Cost({}, 1), DEVICE._replace(memory_bandwidth=0.0))
