"""`segjax train`: a script, own data (`--data DIR`), or a run (`--resume RUN`)."""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import jax
import tyro

from segjax import data, interop, model_file, multihost
from segjax import train as training
from segjax.cli import advice, cluster, flags, pictures, process, runs, scripts
from segjax.errors import UserError
from segjax.run_folder import schema

_USAGE = """\
usage: segjax train --data DIR [--run RUN] [--minutes N] [--flag value ...]
       segjax train --auto DIR [...]                  also prints the experiment script
       segjax train EXPERIMENT.py [--run RUN] [--flag value ...]
       segjax train --resume RUN [--flag value ...]

DIR has images/ and masks/, or objects in instances/ or annotations.json. Settings that
are not given are chosen by the data.

segjax train --data DIR --help and segjax train EXPERIMENT.py --help list the flags."""
_DETERMINISTIC = "xla_gpu_deterministic_ops=true"


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
    """Trains an experiment script, or on own data, or continues a run."""
    if args and not args[0].startswith("-"):
        script = pathlib.Path(args[0])
        cluster.join(args)
        return train(
            scripts.load(script), script, args[1:], prog=f"segjax train {script}"
        )
    for flag in ("--data", "--auto"):
        source, rest = flags.split_value(args, flag)
        if source is not None:
            from segjax.cli import own_data

            show_script = flag == "--auto"
            return own_data.main(pathlib.Path(source), rest, show_script=show_script)
    if "--resume" in args:
        return resume(args)
    if {"-h", "--help"} & set(args):
        print(_USAGE)
        return None
    raise UserError(
        "segjax train needs --data DIR, a folder of your images and masks, or an "
        "experiment script. Try segjax train --data DIR."
    )


def train(
    build: scripts.Build, script: pathlib.Path, args: Sequence[str], *, prog: str
) -> None:
    """Builds the experiment from its flags, trains it, and draws samples and report."""
    cluster.join(args)
    keywords, options = scripts.parse(build, TrainOptions, args, prog=prog)
    start(build, script, keywords, options)


def resume(args: Sequence[str]) -> None:
    """Continues a run by its own script and flags: `segjax train --resume RUN ...`.

    Raises:
        ValueError: If no run is given, or its script is not trusted.
    """
    folder, rest = flags.split_value(args, "--resume")
    if folder is None:  # As in `--run RUN --resume`.
        folder, rest = flags.split_value(rest, "--run")
    if folder is None:
        raise UserError(
            "--resume needs to know which run. Try segjax train --resume runs/mine."
        )
    run, prog = pathlib.Path(folder), f"segjax train --resume {folder}"
    manifest = runs.manifest_of(run)
    cluster.join(rest)
    build, keywords, options = runs.parse(
        run, manifest, runs.latest_flags(manifest), TrainOptions, rest, prog=prog
    )
    config, records = manifest["config"], manifest["data"].get("skip_corrupt", 0)
    skips = config.get("skip_nonfinite") == config.get("steps")
    options = dataclasses.replace(
        options,
        run=run,
        resume=True,
        on_nonfinite="skip" if skips else options.on_nonfinite,
        skip_corrupt=options.skip_corrupt or records,
        deterministic=options.deterministic or _DETERMINISTIC in manifest["xla_flags"],
    )
    start(build, run / training.SCRIPT, keywords, options)


def start_written(
    build: scripts.Build,
    text: str,
    keywords: dict[str, Any],
    options: TrainOptions,
    *,
    name: str,
) -> None:
    """Like `start`, with a script that is written into the run folder.

    Args:
        build: Does what the script's function does.
        text: The script.
        keywords: The experiment's flags.
        options: The command's own flags.
        name: What the run folder is called after, without --run.
    """
    folder = options.run or scripts.new_run(name)
    folder = pathlib.Path(multihost.broadcast_from_first(str(folder)))
    script = folder / training.SCRIPT
    options = dataclasses.replace(options, run=folder)
    if options.summary:
        return start(build, script, keywords, options)
    multihost.run_on_first(lambda: training.write_script(folder, text))
    try:
        start(build, script, keywords, options)
    except BaseException:
        if jax.process_index() == 0 and not (folder / "run.json").exists():
            script.unlink(missing_ok=True)  # Nothing was trained: the folder is free.
        raise


def start(
    build: scripts.Build,
    script: pathlib.Path,
    keywords: dict[str, Any],
    options: TrainOptions,
) -> None:
    """Trains with parsed flags, and draws samples and report.

    Args:
        build: The experiment function.
        script: Its file, which is copied into the run folder.
        keywords: The experiment's flags.
        options: The command's own flags.
    """
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
        for line in advice.lines(result, keywords, run):
            print(line, flush=True)


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
    before = scripts.from_json(build, runs.latest_flags(manifest))
    for name, value in keywords.items():
        if name in before and str(before[name]) != str(value):
            flag = name.replace("_", "-")
            print(
                f"note: --{flag} {value}; the run was trained with {before[name]}.",
                file=sys.stderr,
            )
