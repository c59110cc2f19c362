"""`segjax train EXPERIMENT.py [--flag value ...] [--run DIR] [--resume]`."""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import jax
import tyro

from segjax import data, interop, model_file, multihost
from segjax import train as training
from segjax.cli import cluster, pictures, process, runs, scripts
from segjax.errors import UserError
from segjax.run_folder import schema


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Flags of `segjax train` beside those of the experiment.

    Attributes:
        run: The run folder; by default runs/NAME-TIME.
        resume: Continue from the last checkpoint of --run.
        init_from: Another run; training starts from the variables of its model.
        init_exclude: Prefixes of variables that are initialized instead, such as
            params/head for other classes.
        summary: Print the model's parameters and FLOPs, and do not train.
        distributed: Train with several processes: without values under Slurm, Open MPI,
            Kubernetes or Cloud TPU, else with the address of process 0, the number of
            processes, and the number of this one, from 0.
        deterministic: Equal bits on a GPU too, by XLA's deterministic operations, some
            of which are slower. A CPU needs no flag.
        on_nonfinite: If a loss or gradient is not finite: stop the run, or skip the
            update and count it.
        skip_corrupt: The number of unreadable training records that may be skipped;
            each is printed and listed in result.json.
        allow_changes: Resume with other data or another script than those of the run,
            and note both in run.json.
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
    """Trains an experiment script."""
    if not args or args[0].startswith("-"):
        if args and args[0] in ("-h", "--help"):
            print(
                "usage: segjax train EXPERIMENT.py [--flag value ...] [--run DIR] "
                "[--resume]\n\nsegjax train EXPERIMENT.py --help lists its flags."
            )
            return
        raise UserError(
            "segjax train needs an experiment script first. "
            "Try segjax train experiments/digits_unet.py."
        )
    script = pathlib.Path(args[0])
    cluster.join(args)
    train(scripts.load(script), script, args[1:], prog=f"segjax train {script}")


def train(
    build: scripts.Build, script: pathlib.Path, args: Sequence[str], *, prog: str
) -> None:
    """Builds the experiment from its flags, trains it, and draws samples and report."""
    cluster.join(args)
    keywords, options = scripts.parse(build, TrainOptions, args, prog=prog)
    if options.resume and options.run is None:
        raise UserError("--resume needs to know which run. Give its --run DIR.")
    if options.deterministic:
        process.use_deterministic_operations()
    experiment = _with_options(scripts.construct(build, keywords), options)
    if options.summary:
        print(runs.summary(experiment))
        return
    # All processes of a run, or the one: the first draws, prints and names the folder.
    run = pathlib.Path(
        multihost.broadcast_from_first(str(options.run or scripts.new_run(script.stem)))
    )
    first = jax.process_index() == 0
    if options.resume and first:
        _print_changed_flags(run, build, keywords)
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
    """Applies the command's own flags to the experiment."""
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
            raise UserError(
                f"--skip-corrupt needs an experiment whose data is a data.Pipeline, "
                f"got {type(experiment.data).__name__}. Leave the flag out."
            )
        pipeline = dataclasses.replace(
            experiment.data, skip_corrupt=options.skip_corrupt
        )
        experiment = dataclasses.replace(experiment, data=pipeline)
    return experiment


def _print_changed_flags(
    run: pathlib.Path, build: scripts.Build, keywords: dict[str, Any]
) -> None:
    """Prints on standard error which flags differ from those of the first start."""
    path = run / "run.json"
    if not path.exists():
        return
    manifest = schema.read(path, schema.Manifest)
    before = scripts.from_json(build, manifest["flags"])
    for name, value in keywords.items():
        if name in before and str(before[name]) != str(value):
            flag = name.replace("_", "-")
            print(
                f"note: --{flag} {value}; the run began with {before[name]}.",
                file=sys.stderr,
            )
