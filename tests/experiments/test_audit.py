import json
import shutil
import sys

import jax
import pytest
from audit_cases import AUTOENCODER, FUNCTION, NETWORK, TRAINED, entry_of, small

from configs import audit as recipe
from experiments import audit, audit_entries, audit_runs, trained
from recon_jax.audit import AuditReport, Comparison


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    """A module of a user's own."""
    (tmp_path / "my_functions.py").write_text(FUNCTION)
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_functions"
    sys.modules.pop("my_functions", None)


def test_defaults_are_filled_in():
    entry = entry_of("net", "random", {"model": "mlp"})
    assert entry.options == {**audit_entries.NETWORK, "model": "mlp"}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (("net", "random"), r"encoders holds \('net', 'random'\)"),
        ("net", "encoders holds 'net'"),
        (("net", "drawn", {}), "kind of net must be one of train, random, checkpoint, weights"),
        (("net", "random", {}), "net needs model"),
        (
            ("net", "random", {"model": "mlp", "depth": 3}),
            "net has no option depth; 'random' takes",
        ),
        (("net", "train", {"model": "mlp"}), "net needs objective"),
        (("net", "random", {"model": "mlq"}), "model must be one of mlp, lenet"),
        (("net", "random", {"model": "mlp", "pool": "max"}), "pool must be one of none, mean"),
        (("net", "random", {"model": "mlp", "normalize": "zca"}), "normalize must be one of none"),
        (("net", "train", {**NETWORK, "objective": "contrast"}), "objective must be one of"),
        (("net", "train", {**NETWORK, "objective": "denoising"}), "corruption goes with"),
        (("net", "train", {**NETWORK, "objective": "reconstruction"}), "give an autoencoder"),
        (
            ("net", "train", {**AUTOENCODER, "objective": "classification"}),
            "model='mlp_autoencoder' is not for the objective classification; give a classifier",
        ),
        (
            ("net", "train", {**NETWORK, "objective": "classification", "normalize": "channels"}),
            "what is trained here sees pixels",
        ),
        (
            ("net", "train", {**NETWORK, "objective": "classification", "changes": {"rate": 1}}),
            "net changes rate, which train has not",
        ),
        (("net", "checkpoint", {**NETWORK, "run": "nowhere"}), "run='nowhere' is not the folder"),
        (("net", "weights", {"path": "no.safetensors"}), "there is no such file"),
        (("net", "weights", {"path": "x", "family": "clip"}), "family must be one of classifier"),
        (("net", "python", {"function": "my_functions"}), "is no module:name"),
        (("net", "python", {"function": "no_such:encode"}), "'no_such' cannot be imported"),
        (
            ("net", "python", {"function": "my_functions:decode"}),
            "'my_functions:decode' is not a function; my_functions has Nested, encode",
        ),
        (("net", "python", {"function": "my_functions:number"}), "is not a function"),
    ],
)
def test_bad_entries_are_refused_before_data_is_read(tmp_path, monkeypatch, item, message):
    def forbidden(*args, **kwargs):
        raise AssertionError("opened data in spite of a bad config")

    monkeypatch.setattr(trained, "open_splits", forbidden)
    with pytest.raises(ValueError, match=message):
        audit.run(small(item), tmp_path, [0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoders": ()}, "encoders must be one or more of different names"),
        ({"encoders": (TRAINED, TRAINED)}, "encoders must be one or more of different names"),
        ({"audit.draws": 0}, "audit.draws must be at least 1, got 0"),
        ({"audit.measures": ("rank",)}, "audit.measures must be one of spectrum"),
        ({"audit.baselines": ("oracle",)}, "audit.baselines must be one of pixels"),
        ({"audit.strengths": (0.5, 2.0)}, r"audit.strengths must lie in \(0, 1\], got 2.0"),
        ({"audit.shots": 0}, "audit.shots must be at least 1"),
        ({"train.optimizer": "adamax"}, "train.optimizer must be one of"),
    ],
)
def test_bad_config_is_refused_before_data_is_read(tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(trained, "open_splits", None)
    with pytest.raises(ValueError, match=message):
        audit.run(small(**changes), tmp_path, [0])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            ("net", "random", {**NETWORK, "layer": "dense9"}),
            "net, layer='dense9' must be one of hidden1, logits",
        ),
        (
            ("net", "random", {**AUTOENCODER, "layer": ""}),
            "layer='' must be one of latent, reconstruction",
        ),
        (("net", "random", {**NETWORK, "options": {"deep": 3}}), "has no option deep"),
        (
            ("net", "train", {**TRAINED[2], "changes": {"batch_size": 500}}),
            r"net, train.batch_size=500 is more than the 60 training images",
        ),
        (
            (
                "net",
                "train",
                {**AUTOENCODER, "objective": "denoising", "corruption": ("patch_subset", 0.5, 3)},
            ),
            "3",
        ),
    ],
)
def test_what_does_not_fit_the_images_is_refused_before_training(tmp_path, item, message):
    with pytest.raises(ValueError, match=message):
        audit.run(small(item), tmp_path, [0])
    assert not (tmp_path / "runs").exists()


# Their entries name files of the user's own.
NOT_THERE = ("python", "checkpoint", "published")


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_every_variant_is_valid(variant):
    config = recipe.get_config(variant)
    if variant in NOT_THERE:
        with pytest.raises(ValueError, match=r"my_module|is not the folder|no such file"):
            audit.validate(config)
        return
    audit.validate(config)
    audit.validate(audit.smoke(config))


def test_an_unknown_variant_lists_the_known_ones():
    with pytest.raises(ValueError, match="choose one of embedded, cifar10_cpu"):
        recipe.get_config("svhn")


def test_models_get_what_they_need_of_the_images():
    classifier = audit_entries.make_model(entry_of("a", "random", NETWORK), (8, 8, 1), 7, "float32")
    assert classifier.num_classes == 7
    item = ("a", "random", AUTOENCODER)
    assert audit_entries.make_model(entry_of(*item), (8, 9, 2), 7, "float32").image_shape == (
        8,
        9,
        2,
    )
    options = {**NETWORK["options"], "num_classes": 3}
    entry = entry_of("a", "random", {**NETWORK, "options": options})
    assert audit_entries.make_model(entry, (8, 8, 1), 7, "float32").num_classes == 3


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A network trained here, one read from its run, and a function, of two seeds."""
    workdir = tmp_path_factory.mktemp("finished")
    (workdir / "my_functions.py").write_text(FUNCTION)
    masked = {**AUTOENCODER, "objective": "denoising", "corruption": ("patch_subset", 0.5, 2)}
    with jax.enable_x64(False), pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(workdir)
        first = audit.run(small(TRAINED, ("masked", "train", masked)), workdir, [0, 1])
        items = (
            ("again", "checkpoint", {**NETWORK, "run": str(workdir / "runs" / "net-seed1")}),
            ("mine", "python", {"function": "my_functions:Nested.encode"}),
        )
        second = audit.run(small(*items), workdir / "second", [0])
    sys.modules.pop("my_functions", None)
    return workdir, first, second


@pytest.mark.slow
def test_every_output_is_there(finished):
    workdir, results, _ = finished
    for name in ("report.html", "results.json", "config.json", "metrics.jsonl",
                 "tables/overview.md", "tables/geometry.csv"):  # fmt: skip
        assert (workdir / name).stat().st_size > 100
    names = ["net, seed 0", "net, seed 1", "masked, seed 0", "masked, seed 1"]
    runs = sorted(path.name for path in (workdir / "runs").iterdir())
    assert runs == ["masked-seed0", "masked-seed1", "net-seed0", "net-seed1"]
    comparison = Comparison.from_dict(json.loads((workdir / "results.json").read_text())["audit"])
    assert [item.name for item in comparison.encoders] == names
    assert [item.dimension for item in comparison.encoders] == [6, 6, 4, 4]
    assert [item.name for item in comparison.baselines] == ["pixels"]
    assert results["summary"][0].startswith("Effective rank: ")
    assert "Trained here: 1 epochs" in results["setting"]
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["audit"] for line in lines] == [name for name in names for _ in range(2)]


@pytest.mark.slow
def test_a_run_read_again_is_the_network_that_was_trained(finished):
    _, first, second = finished
    comparison = Comparison.from_dict(second["audit"])
    trained_here = Comparison.from_dict(first["audit"]).encoders[1]
    again, mine = comparison.encoders
    assert (again.name, mine.name) == ("again", "mine")
    assert again.geometry == trained_here.geometry
    assert not mine.compiled
    assert mine.dimension == 10
    assert "step 3" in second["setting"]
    assert comparison.warnings == ()


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_numbers(finished, tmp_path, monkeypatch):
    workdir, first, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    calls = []
    monkeypatch.setattr(audit_runs.audit, "audit", lambda *args, **kwargs: calls.append(args))
    masked = {**AUTOENCODER, "objective": "denoising", "corruption": ("patch_subset", 0.5, 2)}
    with jax.enable_x64(False):
        again = audit.run(small(TRAINED, ("masked", "train", masked)), copy, [0, 1])
    assert calls == []  # finished audits are read
    assert again["audit"] == first["audit"]
    assert again["summary"] == first["summary"]
    assert (copy / "metrics.jsonl").read_bytes() == (workdir / "metrics.jsonl").read_bytes()


def test_a_single_encoder_is_no_comparison(tmp_path):
    item = ("mine", "python", {"function": "my_functions:encode"})
    with jax.enable_x64(False):
        results = audit.run(small(item), tmp_path, [0, 1])
    found = AuditReport.from_dict(results["audit"])
    assert found.encoder.name == "mine"
    assert results["summary"][0].startswith("mine: fills")
    # What the function depends on is not known, so that nothing of it is kept.
    assert list((tmp_path / "cache").glob("audit-*")) == []
