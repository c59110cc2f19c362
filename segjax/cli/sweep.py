"""`segjax sweep EXPERIMENT.py --search name=low..high ... [--trials N] [--out DIR]`."""

import concurrent.futures
import dataclasses
import pathlib
import random
import shlex
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax

from segjax import optional, terminal
from segjax import train as training
from segjax.cli import scripts, sweep_report, sweep_space, sweep_trials
from segjax.errors import UserError

_USAGE = """\
usage: segjax sweep EXPERIMENT.py --search learning_rate=1e-4..1e-2:log width=16,32
                    [--trials 20] [--jobs 1] [--seeds 0 1 2] [--out DIR] [--flag ...]
       segjax sweep EXPERIMENT.py ... --out DIR --resume

segjax sweep EXPERIMENT.py --help lists all flags."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Flags of `segjax sweep` beside those of the experiment.

    Attributes:
        search: Settings to search: name=low..high, name=low..high:log for the
            logarithm, or name=a,b,c.
        trials: Trials in all, with those of before a --resume. If there are fewer
            combinations of values, each is tried once.
        jobs: Trials that are trained side by side.
        seeds: Seeds of each trial, whose value is their mean.
        out: The folder for the runs and the results; by default runs/NAME-sweep-TIME.
        resume: Continue the sweep of --out, also beside another process.
        storage: URL of a database for several machines (postgresql://...); by default
            an SQLite file in --out.
        prune: Stop trials whose metric is below the median of the others' at the same
            update, after the first quarter of the updates and four trials.
        search_seed: Seed of the search itself.
    """

    search: tuple[str, ...]
    trials: int = 20
    jobs: int = 1
    seeds: tuple[int, ...] = (0,)
    out: pathlib.Path | None = None
    resume: bool = False
    storage: str | None = None
    prune: bool = True
    search_seed: int = 0

    def __post_init__(self):
        for name in ("trials", "jobs"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"--{name} needs at least 1, got {getattr(self, name)}."
                )
        if not self.search:
            raise UserError(
                "--search needs settings. Try learning_rate=1e-4..1e-2:log."
            )
        if not self.seeds:
            raise UserError("--seeds needs numbers, got none. Give --seeds 0 1 2.")
        if self.resume and self.out is None:
            raise UserError("--resume needs to know which sweep. Give its --out DIR.")


def main(args: Sequence[str]) -> None:
    """Searches settings of an experiment by training it many times."""
    if not args or args[0].startswith("-"):
        if args and args[0] in ("-h", "--help"):
            print(_USAGE)
            return
        raise UserError(
            "segjax sweep needs an experiment script first. Try segjax sweep "
            "experiments/digits_unet.py --search learning_rate=1e-4..1e-2:log."
        )
    script, flags = pathlib.Path(args[0]), args[1:]
    build = scripts.without_seed(scripts.load(script), script, command="sweep")
    prog = f"segjax sweep {script}"
    keywords, options = scripts.parse(build, SweepOptions, flags, prog=prog)
    space = [sweep_space.parse(text, build) for text in options.search]
    _check_space(space, build, flags, prog)
    optional.require("optuna", extra="sweep", purpose="segjax sweep")
    # The accelerator is for the trials, which are processes of their own.
    jax.config.update("jax_platforms", "cpu")
    fixed = {k: v for k, v in keywords.items() if k not in {d.name for d in space}}
    experiment = _first(build, fixed, space, options, prog)
    folder = options.out or scripts.new_run(f"{script.stem}-sweep")
    config = experiment.config
    study = _study(folder, options, maximize=config.mode == "max", steps=config.steps)
    plan = sweep_trials.Plan(
        study=study,
        space=space,
        command=["train", str(script), *sweep_space.as_flags(build, fixed)],
        build=build,
        folder=folder,
        seeds=options.seeds,
        monitor=config.monitor,
        split=training.evaluation_split(experiment.data.splits),
        prune=options.prune,
    )
    _run(plan, options)
    best = sweep_report.write(plan)
    if best is None:
        raise UserError(
            f"No trial is complete. The output of each is in "
            f"{folder}/trial-*/seed-*.log."
        )
    chosen = sweep_space.as_flags(build, best)
    command = shlex.join(["segjax", *plan.command, *chosen])
    terminal.console().print(f"Train it: {command}", soft_wrap=True, markup=False)


def _check_space(
    space: Sequence[sweep_space.Dimension],
    build: Callable,
    flags: Sequence[str],
    prog: str,
) -> None:
    """Lets the experiment's flags refuse what they do not take, before any training."""
    names = [d.name for d in space]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--search has {name} twice. Give each setting once.")
        flag = f"--{name.replace('_', '-')}"
        if any(f.partition("=")[0] in (flag, f"--no-{flag[2:]}") for f in flags):
            raise UserError(f"--search has {name}, and {flag} too. Leave one out.")
    for dimension in space:
        for value in dimension.ends():
            given = sweep_space.as_flags(build, {dimension.name: value})
            scripts.parse(build, SweepOptions, [*flags, *given], prog=prog)


def _first(build, fixed, space, options, prog) -> training.Experiment:
    """Builds one of the experiments: for its metric, and to prepare the data once."""
    args = sweep_space.as_flags(build, fixed | {d.name: d.ends()[0] for d in space})
    own = ["--search", *options.search]
    keywords, _ = scripts.parse(build, SweepOptions, [*own, *args], prog=prog)
    return scripts.construct(build, {**keywords, "seed": options.seeds[0]})


def _study(
    folder: pathlib.Path, options: SweepOptions, *, maximize: bool, steps: int
) -> Any:
    """Opens the sweep's database.

    Raises:
        ValueError: If it exists and shall not be resumed, or the other way round.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file = folder / sweep_report.DATABASE
    known = options.storage is not None or file.exists()
    if options.resume and not known:
        raise UserError(f"--resume needs a sweep; {folder} has no {file.name}.")
    if not options.resume and file.exists():
        raise UserError(
            f"{folder} has a sweep already. Continue it by --resume, or choose "
            f"another --out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.RDBStorage(
        options.storage or f"sqlite:///{file.absolute()}",
        # SQLite's writers wait for each other.
        engine_kwargs={} if options.storage else {"connect_args": {"timeout": 100}},
    )
    # The first evaluations say little about the last.
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=steps // 4)
    return optuna.create_study(
        storage=storage,
        study_name=folder.name if options.storage else "sweep",
        direction="maximize" if maximize else "minimize",
        pruner=pruner if options.prune else optuna.pruners.NopPruner(),
        load_if_exists=True,
    )


def _run(plan: sweep_trials.Plan, options: SweepOptions) -> None:
    """Trains trials in `jobs` threads, each with a process, until there are all."""
    console = terminal.console()
    console.print(
        f"Each trial writes its runs and their output to {plan.folder}/trial-NUMBER.",
        soft_wrap=True,
        markup=False,
    )
    asking = threading.Lock()
    unfinished = sweep_trials.abandoned(plan) if options.resume else []

    grid = sweep_space.grid(plan.space, options.trials)
    random.Random(options.search_seed).shuffle(grid)
    count = len(grid) or options.trials

    def work() -> None:
        while not plan.stopped.is_set():
            with asking:
                number = len(plan.study.get_trials(deepcopy=False))
                if not unfinished and number >= count:
                    return
                if unfinished:
                    trial = sweep_trials.resumed(plan.study, unfinished.pop(0))
                else:
                    if grid:
                        plan.study.enqueue_trial(grid[number])
                    trial = plan.study.ask()
                plan.study.sampler = _sampler(trial.number, options)
                settings = {d.name: d.suggest(trial) for d in plan.space}
            said = sweep_trials.train(plan, trial, settings)
            console.print(said, soft_wrap=True, markup=False)

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        running = [pool.submit(work) for _ in range(options.jobs)]
        try:
            for one in concurrent.futures.as_completed(running):
                one.result()
        except BaseException as error:
            plan.stopped.set()
            if not isinstance(error, Exception):  # Ctrl-C.
                print(
                    f"stopping; continue with --out {plan.folder} --resume.",
                    file=sys.stderr,
                )
            raise


def _sampler(number: int, options: SweepOptions) -> Any:
    """A sampler of one trial: a resumed sweep draws what it would have drawn."""
    import optuna

    return optuna.samplers.TPESampler(
        seed=options.search_seed + 7919 * number, constant_liar=options.jobs > 1
    )
