"""The command line that every experiment shares.

    python -m experiments.NAME [--config=configs/NAME.py:VARIANT] [--config.FIELD=VALUE]
        [--workdir=DIR] [--smoke] [--seeds=0,1,2]
        [--coordinator=HOST:PORT --num_processes=N --process_id=I]

The same command again resumes: finished steps are read from the workdir. On a TPU pod or in a Slurm
job the same command in every process is enough; elsewhere several processes are told where to meet.
The workdir is that of process 0.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags
from rich.console import Console
from rich.table import Table as RichTable

from recon_jax import parallel, report
from recon_jax.report import Table

ROOT = Path(__file__).resolve().parents[1]


def _known_fields(config: ConfigDict, prefix: str = "") -> list[str]:
    fields = []
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            fields += _known_fields(value, f"{prefix}{key}.")
        else:
            fields.append(prefix + key)
    return fields


def _chosen_variant(argv: list[str], name: str) -> str | None:
    """Variant of this experiment's config that was asked for; None for a file of the user's own."""
    for argument in argv:
        flag, _, value = argument.lstrip("-").partition("=")
        if flag == "config":
            path, _, variant = value.partition(":")
            return variant if Path(path).name == f"{name}.py" else None
    return ""


def _refuse_unknown_fields(
    argv: list[str], name: str, get_config: Callable[[str], ConfigDict]
) -> None:
    """ml_collections' own message for an unknown field does not say which ones there are."""
    variant = _chosen_variant(argv, name)
    if variant is None:
        return
    known = _known_fields(get_config(variant))
    for argument in argv:
        field = argument.lstrip("-").split("=")[0]
        if field.startswith("config.") and field.removeprefix("config.") not in known:
            raise ValueError(
                f"unknown config field {field.removeprefix('config.')!r}; choose one of "
                f"{', '.join(known)}"
            )


def prepare_process() -> None:
    """What programs may do and libraries may not: memory kept by malloc, compiled code on disk."""
    parallel.tune_allocator()
    # JAX's own variable wins; XLA compiles a training step in 10 s to a minute.
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        parallel.enable_compilation_cache(Path(caches) / "recon_jax" / "xla")


def _define_placement() -> list[flags.FlagHolder]:
    """The flags that say which process of which run this is."""
    return [
        flags.DEFINE_string("coordinator", None, "HOST:PORT where process 0 of several listens."),
        flags.DEFINE_integer("num_processes", None, "How many processes there are."),
        flags.DEFINE_integer("process_id", None, "Which of them this is, from 0."),
    ]


def start_process(
    coordinator: str | None, num_processes: int | None, process_id: int | None, config: ConfigDict
) -> None:
    """Join the run, say what it is made of, and see to SIGTERM; the first to touch a device.

    Args:
      coordinator: see `parallel.initialize`, as the two that follow.
      num_processes: how many processes there are.
      process_id: which of them this is.
      config: of the experiment; its `mapping`, if it has one, is put into force.
    """
    prepare_process()
    parallel.initialize(coordinator, num_processes, process_id)
    parallel.use_mapping(config.get("mapping", "pmap"))
    if parallel.is_main():
        options = config.get("train") or config.get("data") or {}
        print(parallel.describe(options.get("batch_size")), file=sys.stderr, flush=True)
    if parallel.process_count() == 1:
        # With several processes JAX's handler stays, which tells the others.
        signal.signal(signal.SIGTERM, _stop)


def _stop(number, frame) -> None:
    """What SIGTERM does between training runs; `training.fit` saves first."""
    print("stopped by SIGTERM; the same command resumes", file=sys.stderr)
    sys.exit(0)


def main(
    name: str,
    get_config: Callable[[str], ConfigDict],
    run: Callable[[ConfigDict, Path, list[int]], object],
    smoke: Callable[[ConfigDict], ConfigDict],
) -> None:
    """Parse flags and run an experiment; bad input ends with one clear line and exit code 2.

    Args:
      name: of the experiment and of its config file.
      get_config: variant -> config, from that file.
      run: (config, workdir, seeds) -> anything.
      smoke: shrinks a config to under a minute on two CPU cores, on the same code path.
    """
    try:
        # Before the flag is defined: ml_collections looks the overrides up at once.
        _refuse_unknown_fields(sys.argv[1:], name, get_config)
        config_flag = config_flags.DEFINE_config_file(
            "config", str(ROOT / "configs" / f"{name}.py"), "Config file, with :VARIANT."
        )
        workdir = flags.DEFINE_string("workdir", None, "Where results go; results/NAME/VARIANT.")
        smoke_flag = flags.DEFINE_bool("smoke", False, "Shrink to under a minute.")
        seeds = flags.DEFINE_list("seeds", ["0"], "Seeds to repeat with, such as 0,1,2.")
        placement = _define_placement()
        app.define_help_flags()
        arguments = flags.FLAGS(sys.argv)[1:]
        if arguments:
            raise ValueError(f"unexpected arguments {arguments}; flags start with --")
        if not all(seed.isdigit() for seed in seeds.value) or not seeds.value:
            raise ValueError(f"seeds must be whole numbers such as 0,1,2, got {seeds.value}")
        config = config_flag.value
        config = smoke(config) if smoke_flag.value else config
        start_process(*(flag.value for flag in placement), config)
        folder = config.name + ("-smoke" if smoke_flag.value else "")
        path = Path(workdir.value or Path("results") / name / folder)
        logging.set_verbosity(logging.WARNING)
        run(config, path, [int(seed) for seed in seeds.value])
    except (ValueError, OSError, flags.Error) as error:
        # A config file's own error arrives as the last line of a trace.
        message = str(error)
        if "Error whilst parsing config file" in message:
            message = message.strip().splitlines()[-1].removeprefix("ValueError: ")
        print(f"experiments.{name}: error: {message}", file=sys.stderr)
        if parallel.process_count() > 1:
            parallel.end_process(2)
        sys.exit(2)


def begin(config: ConfigDict, workdir: Path) -> Path:
    """The workdir, made if it is not there, with the config in it.

    Raises:
      ValueError: if it cannot be written.
    """
    workdir = report.prepare_workdir(workdir)
    report.write_json(workdir / "config.json", config.to_dict())
    return workdir


def command_of(name: str) -> str:
    """The command line of this process, as a shell reads it."""
    return " ".join(["python", "-m", f"experiments.{name}", *map(_quoted, sys.argv[1:])])


def _quoted(word: str) -> str:
    """As `shlex.quote`, but strings within the word stay readable."""
    plain = "'" in word and not set(word) & set('"$`\\!')
    return f'"{word}"' if plain else shlex.quote(word)


def facts_of(name: str, seeds: Sequence[int], start: float) -> dict[str, Any]:
    """What results.json says of how a run came about: versions, device, command, seeds, seconds.

    Args:
      name: of the experiment.
      seeds: of the run.
      start: when it began, by `time.perf_counter`.
    """
    return report.provenance() | {
        "command": command_of(name),
        "seeds": list(seeds),
        "wall_seconds": round(time.perf_counter() - start, 1),
    }


def publish(
    workdir: Path,
    title: str,
    sections: Sequence[report.Section],
    tables: Sequence[Table],
    results: Mapping[str, Any],
    facts: Mapping[str, Any],
    shown: int | None = None,
) -> dict[str, Any]:
    """Write tables/, results.json and report.html, and print the findings.

    Args:
      workdir: of the run.
      title: of the report.
      sections: of the report.
      tables: all of them.
      results: with "summary", findings in words, and "setting".
      facts: from `facts_of`.
      shown: how many of the tables are printed; all if not given.

    Returns:
      What results.json holds.
    """
    for table in tables:
        report.write_table(workdir / "tables", table)
    content = {**results, **facts}
    report.write_json(workdir / "results.json", content)
    file = workdir / "report.html"
    setting = {**facts, "setting": results["setting"]}
    report.write_report(file, title, results["summary"], sections, setting)
    show(tables[:shown], results["summary"], file)
    return content


def show(tables: Sequence[Table], summary: Sequence[str], path: Path) -> None:
    """Print tables, findings and the path of the full report, in process 0 alone."""
    if not parallel.is_main():
        return
    # Where there is no terminal, nothing says how wide a line may be.
    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in tables:
        shown = RichTable(*table.columns, title=table.title, title_justify="left")
        for row in table.cells():
            shown.add_row(*row)
        console.print(shown)
    for line in summary:
        console.print(f"- {line}", highlight=False)
    console.print(f"Report: {path}", highlight=False, soft_wrap=True)
