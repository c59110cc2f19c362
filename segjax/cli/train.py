"""`segjax train EXPERIMENT.py [--flag value ...] [--run DIR] [--resume]`."""

import dataclasses
import datetime
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import jax
import tyro

from segjax import data, interop, model_file, run_files
from segjax import train as training
from segjax.cli import cluster, pictures, process, runs, scripts
from segjax.train import agree


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Flags of `segjax train` beside those of the experiment.

    Attributes:
        run: Folder that the run writes; runs/NAME-TIME unless given.
        resume: Go on from the last checkpoint of --run.
        init_from: Another run, whose model's variables training begins with.
        init_exclude: Beginnings of the paths of variables to leave fresh, such as
            params/head where there are other classes.
        summary: Print the model's parameters and FLOPs, and train nothing.
        distributed: Train with other processes: alone where Slurm, Open MPI,
            Kubernetes or Cloud TPU started them, else with the address of process 0,
            the number of processes, and this one's, from 0.
        deterministic: Equal bits on a GPU too: XLA's deterministic operations, which
            are slower where sums were racing. A CPU needs no flag.
        on_nonfinite: Where a loss or gradient is not finite: stop the run, or skip
            the update and count it.
        skip_corrupt: Unreadable training records to leave out, each of which is told
            and listed in result.json; one more ends the run.
        allow_changes: Resume with other data or another script than those that the
            run had, and note both in run.json.
    """

    run: pathlib.Path | None = None
    resume: bool = False
    init_from: pathlib.Path | None = None
    init_exclude: tuple[str, ...] = ()
    summary: bool = False
    # Read by cluster.join before the script is imported; here for --help.
    distributed: Annotated[
        tuple[str, ...] | None, tyro.conf.arg(metavar="[HOST:PORT COUNT RANK]")
    ] = None
    deterministic: bool = False
    on_nonfinite: Literal["stop", "skip"] = "stop"
    skip_corrupt: int = 0
    allow_changes: bool = False


def main(args: Sequence[str]) -> None:
    """Loads the script named first and trains it."""
    if not args or args[0].startswith("-"):
        if args and args[0] in ("-h", "--help"):
            print(
                "usage: segjax train EXPERIMENT.py [--flag value ...] [--run DIR] "
                "[--resume]\n\nsegjax train EXPERIMENT.py --help lists its flags."
            )
            return
        raise ValueError(
            "segjax train needs an experiment script first. "
            "Try segjax train experiments/digits_unet.py."
        )
    script = pathlib.Path(args[0])
    cluster.join(args)
    train(scripts.load(script), script, args[1:], prog=f"segjax train {script}")


def train(
    build: scripts.Build, script: pathlib.Path, args: Sequence[str], *, prog: str
) -> None:
    """Builds the experiment from its flags, trains it, and draws what came out."""
    cluster.join(args)
    keywords, options = scripts.parse(build, TrainOptions, args, prog=prog)
    if options.resume and options.run is None:
        raise ValueError("--resume needs to know which run. Give its --run DIR.")
    if options.deterministic:
        process.use_deterministic_operations()
    experiment = _with_options(build(**keywords), options)
    if options.summary:
        print(runs.summary(experiment))
        return
    # All processes of a run, or the one: the first draws, prints and names the folder.
    run = pathlib.Path(agree.of_the_first(str(options.run or _new_run(script))))
    first = jax.process_index() == 0
    if options.resume and first:
        _say_changes(run, build, keywords)
    try:
        result = training.train(
            experiment,
            run=run,
            resume=options.resume,
            flags=keywords,
            script=script,
            allow_changes=options.allow_changes,
        )
        pictures.draw_samples(experiment, run, result["best_step"])
    except (training.NonFiniteError, training.Stopped):
        if first:
            with pictures.optional_report():  # What was reached is worth a look.
                pictures.write_report(run)
        raise
    if first:
        with pictures.optional_report():
            print(f"Report: {pictures.write_report(run)}", flush=True)


def _with_options(
    experiment: training.Experiment, options: TrainOptions
) -> training.Experiment:
    """The experiment with what the command's own flags say of it."""
    if options.on_nonfinite == "skip":
        config = experiment.config
        config = dataclasses.replace(config, skip_nonfinite=config.steps)
        experiment = dataclasses.replace(experiment, config=config)
    if options.init_from is not None:
        _, variables = model_file.read(options.init_from)
        start = interop.init_from(variables, exclude=options.init_exclude)
        experiment = dataclasses.replace(experiment, init_from=start)
    if options.skip_corrupt:
        if not isinstance(experiment.data, data.Pipeline):
            raise ValueError(
                f"--skip-corrupt needs an experiment whose data is a data.Pipeline, "
                f"got {type(experiment.data).__name__}. Leave the flag out."
            )
        pipeline = dataclasses.replace(
            experiment.data, skip_corrupt=options.skip_corrupt
        )
        experiment = dataclasses.replace(experiment, data=pipeline)
    return experiment


def _new_run(script: pathlib.Path) -> pathlib.Path:
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return pathlib.Path("runs") / f"{script.stem}-{time}"


def _say_changes(
    run: pathlib.Path, build: scripts.Build, keywords: dict[str, Any]
) -> None:
    """Says on standard error which flags differ from those the run began with."""
    path = run / "run.json"
    if not path.exists():
        return
    manifest = run_files.read(path, run_files.Manifest)
    before = scripts.from_json(build, manifest["flags"])
    for name, value in keywords.items():
        if name in before and str(before[name]) != str(value):
            flag = name.replace("_", "-")
            print(
                f"note: --{flag} {value}; the run began with {before[name]}.",
                file=sys.stderr,
            )
