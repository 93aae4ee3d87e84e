import importlib
import json
import os
import re
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from experiments import reproduce, reproduce_pages, reproduce_runs, scale_runs
from experiments.reproduce_jobs import JOBS, Job
from recon_jax import report
from recon_jax.report import recorded

ROOT = Path(__file__).resolve().parents[2]
EVERY = [job for jobs in reproduce_runs.ALL.values() for job in jobs]
QUICK = Job("quick", "depth_laws:default", "Depth laws: constant filters", (0, 1))
LOST = Job("lost", "texture:mnist_cpu", "Texture: a dataset that is not here", data="mnist")


def test_names_are_unique():
    names = [job.name for job in EVERY]
    assert len(set(names)) == len(names)


def test_every_job_has_a_valid_config_large_and_small():
    for job in EVERY:
        experiment = importlib.import_module(f"experiments.{job.experiment}")
        validate = getattr(experiment, "validate", scale_runs.validate)
        config = reproduce_runs.config_of(job, {}, smoke=False)
        small = reproduce_runs.config_of(job, {}, smoke=True)
        assert config.name == job.variant
        assert config != small
        validate(config)
        validate(small)


def test_unknown_variants_are_refused():
    with pytest.raises(ValueError, match="unknown variant 'large'"):
        reproduce_runs.config_of(QUICK._replace(recipe="depth_laws:large"), {}, smoke=False)


# That of ml_collections, which loads the config file.
@pytest.mark.filterwarnings("ignore:.*load_module:DeprecationWarning")
@pytest.mark.parametrize("job", [job for job in EVERY if job.changes], ids=lambda job: job.name)
def test_the_command_line_makes_the_same_config(job, monkeypatch):
    datasets = {job.data: "npz:some.npz"} if job.data else {}
    arguments = reproduce_runs.arguments_of(job, datasets, [0], smoke=False)
    # ml_collections reads the overrides of fields from here.
    monkeypatch.setattr(sys, "argv", ["reproduce", *arguments[:-1]])
    monkeypatch.chdir(ROOT)
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file("config", None, flag_values=values)
    values(sys.argv)
    expected = reproduce_runs.config_of(job, datasets, smoke=False)
    assert config.value.to_dict() == expected.to_dict()


def test_a_smoke_run_has_each_experiment_once_and_prefers_no_download():
    chosen = [job for paper in JOBS for job in reproduce_runs.jobs_of(paper, smoke=True)]
    assert [job.experiment for job in chosen] == list(dict.fromkeys(j.experiment for j in chosen))
    assert {job.experiment for job in chosen} == {j.experiment for js in JOBS.values() for j in js}
    assert not any(job.data for job in chosen)
    assert all(
        job.name.endswith(("_full", "_deep")) for job in reproduce_runs.jobs_of(4, full=True)
    )


# The command


def fake_run(command, log):
    """As an experiment: leaves config, results and a table in its workdir."""
    job = next(j for j in (QUICK, LOST) if f"experiments.{j.experiment}" in command)
    workdir = Path(command[-1].removeprefix("--workdir="))
    seeds = next(a for a in command if a.startswith("--seeds=")).removeprefix("--seeds=").split(",")
    config = reproduce_runs.config_of(job, {}, "--smoke" in command)
    report.write_json(workdir / "config.json", config.to_dict())
    (workdir / "tables").mkdir(exist_ok=True)
    rows = [["it helps", "more than 2", "3 ± 1", "holds"]]
    columns = ["claim", "rule", "measured", "holds"]
    report.write_table(workdir / "tables", report.Table("claims", "Claims", columns, rows))
    report.write_table(workdir / "tables", report.Table("depths", "D", ["D"], [["1 ± 0"]]))
    facts = report.provenance() | {"command": "python -m x", "wall_seconds": 1.0, "setting": "s"}
    report.write_json(workdir / "results.json", facts | {"seeds": [int(seed) for seed in seeds]})
    return 0


def refuse(command, log):
    raise AssertionError("ran a job that was finished")


@pytest.fixture
def two_jobs(monkeypatch):
    monkeypatch.setitem(reproduce_runs.JOBS, 4, (QUICK, LOST))
    monkeypatch.setattr(reproduce_runs, "run_process", fake_run)


def arguments(tmp_path, *more):
    return ["--paper=4", f"--workdir={tmp_path}", *more]


def test_a_dry_run_says_what_would_run_and_runs_nothing(two_jobs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reproduce_runs, "run_process", refuse)
    assert reproduce.main(arguments(tmp_path, "--dry-run")) == 0
    text = capsys.readouterr().out
    assert "depth_laws:default" in text
    assert "tfds:mnist" in text
    assert "0 done, 1 to run, 1 skipped" in text
    assert not any(tmp_path.iterdir())


def test_jobs_by_name_may_be_of_either_size(tmp_path, capsys):
    jobs = "--jobs=scale_task1,scale_task2_full"
    assert reproduce.main(arguments(tmp_path, jobs, "--dry-run")) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert lines[0].split()[1:3] == ["scale_task1", "scale_detection:task1_cpu"]
    assert "11 min" in lines[0]
    assert lines[1].split()[1:3] == ["scale_task2_full", "scale_detection:task2"]
    assert lines[1].split()[4:7] == ["accelerator", "not", "estimated"]
    assert lines[2] == "0 done, 2 to run, 11 min where it was measured, 0 skipped"


def test_a_pretraining_is_estimated_by_the_capacity_table(capsys):
    jobs = "--jobs=masked_autoencoder_imagenet_full"
    assert reproduce.main(["--paper=1", "--dry-run", jobs]) == 0
    # 1,600 epochs of 1,281,167 images in batches of 4,096, at 97.5 ms a step.
    assert f"{1600 * 1_281_167 / 4096 * 0.0975 / 3600:.1f} h of pretr" in capsys.readouterr().out


def test_finished_jobs_are_kept_and_others_reported(two_jobs, tmp_path, monkeypatch, capsys):
    assert reproduce.main(arguments(tmp_path)) == 0
    folder = tmp_path / "paper4"
    text = (folder / "report.md").read_text()
    assert "1 hold, 0 do not, 0 not decidable" in text
    assert "| 1 ± 0 |" in text
    assert "Not here: Texture: a dataset that is not here (tfds:mnist" in text
    assert "<table>" in (folder / "report.html").read_text()
    # Nothing of the rest is run again; other seeds are.
    monkeypatch.setattr(reproduce_runs, "run_process", refuse)
    assert reproduce.main(arguments(tmp_path)) == 0
    assert "1 done, 0 to run, 1 skipped" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="ran a job"):
        reproduce.main(arguments(tmp_path, "--seeds=3"))


def test_a_job_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(reproduce_runs.JOBS, 4, (QUICK._replace(name="bad"), QUICK))

    def run(command, log):
        log.write_text("a trace\nValueError: no such thing\n")
        return 1 if "paper4/bad" in command[-1] else fake_run(command, log)

    monkeypatch.setattr(reproduce_runs, "run_process", run)
    assert reproduce.main(arguments(tmp_path)) == 1
    text = capsys.readouterr().out
    assert "bad: failed with exit code 1" in text
    assert "    ValueError: no such thing" in text
    assert "quick: done" in text
    assert "(did not finish)" in (tmp_path / "paper4" / "report.md").read_text()


def test_a_job_that_leaves_no_results_has_failed(two_jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce_runs, "run_process", lambda command, log: log.touch() or 0)
    assert reproduce.main(arguments(tmp_path)) == 1


def test_results_count_if_config_and_seeds_are_theirs(two_jobs, tmp_path):
    reproduce.main(arguments(tmp_path))
    workdir = tmp_path / "paper4" / "quick"
    config = reproduce_runs.config_of(QUICK, {}, smoke=False)
    assert reproduce_runs.is_finished(workdir, config, [0, 1])
    assert not reproduce_runs.is_finished(workdir, config, [0])
    smoke = reproduce_runs.config_of(QUICK, {}, smoke=True)
    assert not reproduce_runs.is_finished(workdir, smoke, [0, 1])
    # Begun again, and not at its end yet.
    later = time.time() + 10
    os.utime(workdir / "config.json", (later, later))
    assert not reproduce_runs.is_finished(workdir, config, [0, 1])
    (workdir / "config.json").write_text("{")
    assert not reproduce_runs.is_finished(workdir, config, [0, 1])


def test_a_signal_goes_on_to_the_experiment(tmp_path):
    before = signal.signal(signal.SIGALRM, reproduce_runs._stop)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    start = time.perf_counter()
    try:
        with pytest.raises(SystemExit, match="the same command resumes"):
            reproduce_runs.run_process(["sleep", "60"], tmp_path / "log.txt")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--paper=6", "--paper must be all, or of 1, 2, 3, 4, 5; got '6'"),
        ("--seeds=a", "--seeds must be whole numbers"),
        ("--data=mnist", "--data must be NAME=SOURCE"),
        ("--data=cats=npz:x", "with NAME one of cifar10"),
        ("--paper=2 --jobs=depth_laws", "--jobs has ['depth_laws']; choose of projector_digits"),
        ("--smoke --record", "those of --smoke are none"),
    ],
)
def test_bad_flags_are_refused(flag, message, capsys):
    with pytest.raises(SystemExit) as error:
        reproduce.main(flag.split())
    assert error.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_one_job_from_the_command_to_the_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(reproduce_runs.JOBS, 4, (QUICK,))
    assert reproduce.main(arguments(tmp_path, "--smoke", "--seeds=0")) == 0
    text = (tmp_path / "paper4" / "report.md").read_text()
    assert "A smoke run" in text
    assert "--config=configs/depth_laws.py:default --seeds=0 --smoke" in text
    monkeypatch.setattr(reproduce_runs, "run_process", refuse)
    assert reproduce.main(arguments(tmp_path, "--smoke", "--seeds=0")) == 0
    assert "1 done, 0 to run" in capsys.readouterr().out


# Committed results


@pytest.fixture
def copy(tmp_path):
    """What the pages are made of, with a README of nothing but its block."""
    for part in (reproduce_pages.RESULTS, reproduce_pages.GUIDE):
        shutil.copytree(ROOT / part, tmp_path / part)
    (tmp_path / reproduce_pages.FIGURES).mkdir()
    (tmp_path / "README.md").write_text("<!-- results:begin -->\n<!-- results:end -->\n")
    reproduce_pages.write(tmp_path)
    return tmp_path


def test_committed_pages_and_readme_are_what_the_results_say():
    assert reproduce.check(ROOT) == []


def test_every_record_says_what_was_run():
    for name, record in reproduce_pages.read_records(ROOT).items():
        if record is None:  # at full size
            continue
        assert re.fullmatch("[0-9a-f]{12}(-dirty)?", record.git_revision), name
        assert record.command.startswith("python -m experiments."), name
        assert shlex.split(record.command), name
        assert record.config, name
        assert record.device, name
        assert record.tables, name
        assert record.source in (recorded.FROM_RUN, recorded.FROM_TABLE), name


def test_a_changed_cell_is_noticed(copy, capsys):
    assert reproduce.main(["--check"], copy) == 0
    folder = copy / reproduce_pages.RESULTS / "paper1" / "subspace_cifar10"
    found = recorded.read_record(folder)
    path = folder / "accuracy.csv"
    path.write_text(path.read_text().replace("60.8 ± 0.7", "70.8 ± 0.7"))
    assert reproduce.main(["--check"], copy) == 1
    assert "accuracy.csv is not the one that was recorded" in capsys.readouterr().out
    # With its digest put right, the pages differ, and the claim that was made of it.
    table = found.table("accuracy")
    rows = [[cell.replace("60.8 ± 0.7", "70.8 ± 0.7") for cell in row] for row in table.rows]
    recorded.write_record(folder, found._replace(tables=[table._replace(rows=rows)]))
    assert reproduce.main(["--check"], copy) == 1
    text = capsys.readouterr().out
    assert "-| bottom 20% | 3,054 | 20.1 | 60.8 ± 0.7" in text
    assert "+| bottom 20% | 3,054 | 20.1 | 70.8 ± 0.7" in text
    assert "README.md (regenerated)" in text
    assert "claims of subspace_cifar10 are not what" in text
    assert [path.name for path in reproduce_pages.write(copy)] == ["paper1.md", "README.md"]


def test_a_damaged_record_is_reported(copy, capsys):
    path = copy / reproduce_pages.RESULTS / "paper4" / "depth_laws" / "record.json"
    path.write_text(path.read_text()[:100])
    assert reproduce.main(["--check"], copy) == 1
    assert "depth_laws/record.json is damaged" in capsys.readouterr().out
    assert reproduce.main(["--dry-run", "--paper=4"], copy) == 2


def test_finished_runs_are_recorded(two_jobs, copy, tmp_path, monkeypatch, capsys):
    job = QUICK._replace(name="depth_laws_deep", figures={"depth": "a_figure"})
    monkeypatch.setitem(reproduce_runs.JOBS, 4, (job,))
    runs = tmp_path / "runs"
    assert reproduce.main(arguments(runs, "--record"), copy) == 2
    assert "no finished run in" in capsys.readouterr().err
    assert reproduce.main(arguments(runs), copy) == 0
    workdir = runs / "paper4" / job.name
    (workdir / "figures").mkdir()
    (workdir / "figures" / "depth.png").write_bytes(b"picture")
    (workdir / "attempts.json").write_text(json.dumps({"seconds": 4321.0}))
    assert reproduce.main(arguments(runs, "--record"), copy) == 0
    text = capsys.readouterr().out
    assert "recorded depth_laws_deep: 1 hold, 0 do not, 0 not decidable" in text
    assert "wrote" in text  # the count of claims in README.md
    found = reproduce_pages.read_records(copy)[job.name]
    assert (found.seconds, found.seeds) == (4321.0, [0, 1])
    assert [table.name for table in found.tables] == ["depths"]
    assert found.figures == [("experiments/figures/a_figure.png", QUICK.title)]
    assert (copy / reproduce_pages.FIGURES / "a_figure.png").read_bytes() == b"picture"
    assert reproduce.check(copy) == []
