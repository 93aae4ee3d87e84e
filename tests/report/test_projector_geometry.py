import numpy as np
import pytest
from numpy.testing import assert_allclose

from recon_jax.report import projector_geometry as words

# Means by strength, made up near those of small networks on 8x8 digits.
STRENGTHS = (0.1, 0.3, 0.6)
VALUES = {
    "loss": (2.2, 3.2, 4.8),
    "encoder_rank": (20.8, 16.0, 17.0),
    "projector_rank": (38.4, 12.7, 5.6),
    "encoder_fixed": (0.837, 0.791, 0.833),
    "projector_fixed": (0.892, 0.502, 0.298),
    "encoder_own": (0.06, 0.5, 0.89),
    "projector_own": (0.075, 0.15, 0.35),
    "encoder_probe": (98.3, 98.7, 98.5),
    "projector_probe": (97.9, 97.2, 96.1),
    "encoder_dimension": (9.0, 8.5, 8.8),
    "projector_dimension": (8.0, 6.0, 4.0),
    "local_rank": (26.5, 18.4, 17.7),
    "tangent_alignment": (0.092, 0.116, 0.082),
    "augmentation_alignment": (0.044, 0.034, 0.043),
    "gain": (1.38, 1.67, 1.31),
}


def make_rows(index, seeds=3, size=64, **changes):
    """A run a seed at the index-th strength in which all claims hold, but for the changes."""
    rows = []
    for seed in range(seeds):
        row = {field: values[index] * (1 + 1e-3 * seed) for field, values in VALUES.items()}
        row |= {"collapsed": np.log(511), "seconds": 10.0 + seed, "chance": 0.047}
        number = np.arange(size) * (1 + 0.01 * seed)
        for part, scale in (("encoder", 20.0), ("projector", 20.0 / (1 + 2 * index))):
            row[f"{part}_singular"] = np.exp(-number / scale)
            row[f"{part}_kept"] = 1 / (1 + number / scale)
        rows.append(row | changes)
    return rows


def make(index, seeds=3, projector="2 layers", depth=2, width=128, **changes):
    rows = make_rows(index, seeds, **changes)
    return words.gather(projector, depth, width, STRENGTHS[index], rows)


def make_start(projector="2 layers", depth=2, width=128, seeds=1):
    nothing = dict.fromkeys(("loss", "collapsed", "encoder_own", "projector_own"), np.nan)
    return words.gather(projector, depth, width, None, make_rows(0, seeds, **nothing))


def failed(outcome, runs):
    """The outcome with the loss of a collapsed network in the runs."""
    loss = outcome.loss.copy()
    loss[list(runs)] = 6.21
    return outcome._replace(loss=loss)


def column(table, name):
    return [row[table.columns.index(name)] for row in table.cells()]


def test_seeds_are_gathered():
    item = make(1, gain=np.float32(1.5))
    assert (item.projector, item.depth, item.width, item.at) == ("2 layers", 2, 128, 0.3)
    assert item.label == "2 layers at 0.3"
    assert make_start().label == "2 layers, untrained"
    assert_allclose(item.loss, [3.2, 3.2032, 3.2064])
    assert item.encoder_singular.shape == (3, 64)
    assert_allclose(item.gap, item.encoder_probe - item.projector_probe)
    assert_allclose(item.gain, 1.5)


def test_rows_must_be_complete():
    with pytest.raises(ValueError, match="has no run"):
        words.gather("linear", 1, 128, 0.1, [])
    rows = make_rows(0)
    del rows[1]["gain"], rows[1]["loss"]
    with pytest.raises(ValueError, match=r"run 1 of 'linear' at strength 0.1 lacks loss, gain"):
        words.gather("linear", 1, 128, 0.1, rows)


def test_a_run_is_valid_below_nine_tenths_of_collapse():
    item = make(0)
    limit = 0.9 * np.log(511)
    item = item._replace(loss=np.array([limit - 1e-9, limit, np.nan]))
    assert words.valid_runs(item).tolist() == [True, False, False]
    unknown = item._replace(collapsed=np.full(3, np.nan), loss=np.array([100.0, np.inf, np.nan]))
    assert words.valid_runs(unknown).tolist() == [True, False, False]
    start = make_start(seeds=2)
    assert words.valid_runs(start).tolist() == [True, True]
    assert words.is_valid(start)
    assert not words.is_valid(item)


def test_outcomes_of_a_projector_are_sorted():
    outcomes = [make(2), make_start(), make(0), make(1, projector="linear", depth=1)]
    assert [item.strength for item in words.trained(outcomes, "2 layers")] == [0.1, 0.6]
    assert words.untrained(outcomes, "2 layers") is outcomes[1]
    assert words.untrained(outcomes, "linear") is None


def test_depths_are_compared_at_one_hidden_width():
    others = [("wide", 3, 512), ("3 layers", 3, 128), ("linear", 1, 64), ("also 2", 2, 128)]
    outcomes = [make(i) for i in (2, 0)]
    outcomes += [
        make(i, projector=name, depth=depth, width=width)
        for name, depth, width in others
        for i in range(3)
    ]
    outcomes = [failed(item, [0]) if item.label == "3 layers at 0.1" else item for item in outcomes]
    found = words.by_depth([make_start(), *outcomes], "2 layers")
    # At 0.3 the base was not trained.
    assert {strength: [item.projector for item in group] for strength, group in found.items()} == {
        0.1: ["linear", "2 layers"],
        0.3: ["linear", "3 layers"],
        0.6: ["linear", "2 layers", "3 layers"],
    }
    assert list(found) == [0.1, 0.3, 0.6]
    assert words.by_depth(outcomes[:2], "2 layers") == {}


def test_table_of_what_is_kept():
    outcomes = [make_start(), make(0), failed(make(1), [2]), failed(make(2), range(3))]
    table = words.kept_table(outcomes, "our setting")
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert column(table, "strength") == ["untrained", "0.1", "0.3", "0.6"]
    assert column(table, "valid") == ["yes", "yes", "no (2 of 3)", "no"]
    two = 16 * np.array([1, 1.001])
    middle = f"{two.mean():.1f} ± {two.std(ddof=1):.1f}"
    assert column(table, "rank H") == ["20.8", "20.8 ± 0.0", middle, "-"]
    # Of failed runs only the loss is told, and no other's average holds it.
    assert column(table, "loss") == ["-", "2.20 ± 0.00", "3.20 ± 0.00", "6.21 ± 0.00"]
    assert set(table.cells()[3][3:-3]) == {"-"}
    assert column(table, "seconds a run") == ["10", "11", "10", "-"]
    assert set(column(table, "paper")) == {"not published here"}
    assert table.note.endswith("our setting")
    assert "2205.06926" in table.note


def test_every_measure_stands_in_its_column():
    number = {field: float(place) for place, field in enumerate(words.MEASURED[:18], 1)}
    item = words.gather("linear", 1, 128, 0.5, [make_rows(0, 1)[0] | number])
    item = item._replace(collapsed=np.array([100.0]))
    kept, local = words.kept_table([item], ""), words.geometry_table([item], "")
    told = dict(zip(kept.columns, kept.rows[0], strict=True))
    told |= dict(zip(local.columns, local.rows[0], strict=True))
    expected = {
        "loss": item.loss,
        "probe H (%)": item.encoder_probe,
        "probe Z (%)": item.projector_probe,
        "gap (points)": item.encoder_probe - item.projector_probe,
        "non-invariance H, fixed strength": item.encoder_fixed,
        "non-invariance Z, fixed strength": item.projector_fixed,
        "non-invariance H, own strength": item.encoder_own,
        "non-invariance Z, own strength": item.projector_own,
        "rank H": item.encoder_rank,
        "rank Z": item.projector_rank,
        "rank A": item.local_rank,
        "alignment, tangent": item.tangent_alignment,
        "alignment, augmentation": item.augmentation_alignment,
        "chance": item.chance,
        "gain tangent / augmentation": item.gain,
        "intrinsic dimension H": item.encoder_dimension,
        "intrinsic dimension Z": item.projector_dimension,
    }
    for name, value in expected.items():
        assert float(told[name]) == value[0], name


def test_failed_measures_are_counted():
    item = make(0)
    gain, dimension = np.array([1.0, np.nan, 1.2]), np.full(3, np.nan)
    kept = item.projector_kept.copy()
    kept[2, 5] = np.nan
    item = item._replace(gain=gain, encoder_dimension=dimension, projector_kept=kept)
    table = words.geometry_table([item], "")
    assert column(table, "gain tangent / augmentation") == ["1.10 ± 0.14 (2 of 3)"]
    assert column(table, "intrinsic dimension H") == ["-"]
    assert words.failed_measures([make_start(), make(1), item]) == (
        "Not finite: encoder dimension of 2 layers at 0.1 (3 of 3 runs), gain of 2 layers at 0.1 "
        "(1 of 3 runs), projector kept of 2 layers at 0.1 (1 of 3 runs)."
    )
    # What a run whose pretext failed measures is not asked for.
    assert words.failed_measures([failed(item._replace(encoder_dimension=gain), [1, 2])]) == ""
    assert words.failed_measures([make_start(), make(1)]) == ""
