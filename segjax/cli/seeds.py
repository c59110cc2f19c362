"""`segjax seeds EXPERIMENT.py --seeds 0 1 2 3 [--flag value ...] [--run DIR]`."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from segjax import terminal, viz
from segjax import train as training
from segjax.cli import pictures, process, scripts, seeds_table
from segjax.errors import UserError
from segjax.files import writing


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedsOptions:
    """Flags of `segjax seeds` beside those of the experiment.

    Attributes:
        seeds: The seeds; each determines initialization, augmentation and data order.
        run: The folder for the seeds' run folders; by default runs/NAME-seeds-TIME.
        resume: Continue from the newest step that all seeds of --run have saved.
        deterministic: Equal bits on a GPU too, by XLA's deterministic operations, some
            of which are slower. A CPU needs no flag.
        allow_changes: Resume with other data or another script than those of the run,
            and note both in run.json.
    """

    seeds: tuple[int, ...]
    run: pathlib.Path | None = None
    resume: bool = False
    deterministic: bool = False
    allow_changes: bool = False


def main(args: Sequence[str]) -> None:
    """Trains a script with several seeds, and reports how the results vary."""
    if not args or args[0].startswith("-"):
        if args and args[0] in ("-h", "--help"):
            print(
                "usage: segjax seeds EXPERIMENT.py --seeds 0 1 2 3 [--flag value ...] "
                "[--run DIR] [--resume]\n\n"
                "segjax seeds EXPERIMENT.py --help lists its flags."
            )
            return
        raise UserError(
            "segjax seeds needs an experiment script first. "
            "Try segjax seeds experiments/digits_unet.py --seeds 0 1 2 3."
        )
    script, flags = pathlib.Path(args[0]), args[1:]
    if any(flag.partition("=")[0] == "--seed" for flag in flags):
        raise UserError(
            "segjax seeds takes --seeds, several of them, and got --seed. "
            "Give --seeds 0 1 2 3, or use segjax train."
        )
    build = scripts.load(script)
    prog = f"segjax seeds {script}"
    keywords, options = scripts.parse(
        scripts.without_seed(build, script, command="seeds"),
        SeedsOptions,
        flags,
        prog=prog,
    )
    if not options.seeds:
        raise UserError("--seeds needs numbers, got none. Give --seeds 0 1 2 3.")
    if options.resume and options.run is None:
        raise UserError("--resume needs to know which run. Give its --run DIR.")
    if options.deterministic:
        process.use_deterministic_operations()
    run = options.run or scripts.new_run(f"{script.stem}-seeds")
    experiments = [_built(build, keywords, seed) for seed in options.seeds]
    results = _train(experiments, run, options, keywords, script)
    _report(run, results, experiments[0].config.monitor)


def _built(
    build: scripts.Build, keywords: Mapping[str, Any], seed: int
) -> training.Experiment:
    experiment = scripts.construct(build, {**keywords, "seed": seed})
    if experiment.config.seed != seed:
        raise UserError(
            f"The experiment must train with the seed that it is given, {seed}, and "
            f"has {experiment.config.seed}. Give it to TrainConfig(seed=seed)."
        )
    return experiment


def _train(
    experiments: Sequence[training.Experiment],
    run: pathlib.Path,
    options: SeedsOptions,
    flags: Mapping[str, Any],
    script: pathlib.Path,
) -> list[dict[str, Any]]:
    """Trains, and draws reports and curves, also if training was stopped."""
    folders = {seed: training.seed_folder(run, seed) for seed in options.seeds}
    monitor = experiments[0].config.monitor
    try:
        results = training.train_seeds(
            experiments,
            run=run,
            resume=options.resume,
            flags=flags,
            script=script,
            allow_changes=options.allow_changes,
        )
        drawn = zip(experiments, folders.values(), results, strict=True)
        for experiment, folder, result in drawn:
            pictures.draw_samples(experiment, folder, result["best_step"])
    except (training.NonFiniteError, training.Stopped):
        _draw(run, folders, monitor)  # What was reached is worth a look.
        raise
    _draw(run, folders, monitor)
    return results


def _draw(run: pathlib.Path, folders: Mapping[int, pathlib.Path], monitor: str) -> None:
    """Writes the report of each seed, and RUN/seeds.png of all."""
    with pictures.optional_report():
        for folder in folders.values():
            pictures.write_report(folder)
        runs = {s: viz.read_records(f / "metrics.jsonl") for s, f in folders.items()}
        picture = viz.seed_curves(runs, monitor=monitor)
        if picture is not None:
            writing.write_bytes(run / "seeds.png", picture)


def _report(run: pathlib.Path, results: Sequence[Mapping[str, Any]], monitor: str):
    """Writes RUN/seeds.json, and prints the tables."""
    found = seeds_table.statistics(results)
    split = results[0]["split"]
    training.write_json(
        run / "seeds.json",
        {
            "seeds": [result["seed"] for result in results],
            "split": split,
            "steps": results[0]["steps"],
            "best_steps": [result["best_step"] for result in results],
            "metrics": found,
            "interval": "95 % of the mean over n seeds, Student's t",
            "seconds": results[0]["seconds"],
        },
    )
    console = terminal.console()
    console.print(seeds_table.of_each_seed(results, monitor=monitor))
    console.print(seeds_table.over_seeds(found, split=split))
    for name in ("seeds.json", "seeds.png"):
        if (run / name).exists():
            console.print(f"Written: {run / name}", soft_wrap=True)
