"""`segjax train --data DIR`: an experiment of the package, with settings from DIR."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax

from segjax import experiments, models, multihost, planning
from segjax import train as training
from segjax.cli import cluster, flags, own_plans, own_script, scripts, train
from segjax.data.builders import pairing, sources
from segjax.errors import UserError

_MASKS = set(pairing.SEMANTIC.masks) - {"annotations"}  # Which may hold COCO's files.
_COCO = ("annotations.json", "_annotations.coco.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions(train.TrainOptions):
    """Flags of `segjax train --data DIR` beside those of the experiment.

    Attributes:
        minutes: Time on this machine for which --steps are suggested.
        task: Label every pixel, or find objects; needed if DIR has files for both.
    """

    minutes: float = 10.0
    task: Literal["semantic", "instance"] | None = None

    def __post_init__(self):
        if self.minutes <= 0:
            raise UserError(f"--minutes must be above 0, got {self.minutes:g}.")


def main(source: pathlib.Path, args: Sequence[str], *, show_script: bool) -> None:
    """Trains on a folder of images and masks or objects.

    Args:
        source: The folder, or a zip of it.
        args: The other flags.
        show_script: Whether to print the experiment script.
    """
    cluster.join(args)
    source = sources.existing(source, "a folder with images/ and masks/ or objects")
    prog = f"segjax train --data {source}"
    task = task_of(source, args)
    module = experiments.mask_rcnn if task == "instance" else experiments.unet
    build = module.experiment
    defaults: dict[str, Any] = {"source": source}
    asked = scripts.parse(build, DataOptions, args, prog=prog, defaults=defaults)
    plan = own_plans.detector if task == "instance" else own_plans.semantic
    chosen = {name: x for name, x in asked[0].items() if name in _given(args)}
    planned, lines = plan(asked[0], chosen)
    defaults |= _in_all_processes(planned)
    keywords, options = scripts.parse(
        build, DataOptions, args, prog=prog, defaults=defaults
    )
    if "steps" not in chosen:
        keywords["steps"] = _steps(build, keywords, options.minutes)
    about = "given" if "steps" in chosen else f"about {options.minutes:g} minutes here"
    lines.append(
        ("Time", f"{keywords['steps']:,} updates, {about}", "--minutes, --steps")
    )
    if jax.process_index() == 0:
        own_plans.print_lines(lines)
    text = own_script.render(build, keywords, lines)
    if show_script and jax.process_index() == 0:
        print(text)
    train.start_written(build, text, keywords, options, name=source.stem)


def task_of(source: pathlib.Path, args: Sequence[str]) -> str:
    """Returns "instance" or "semantic", from the flag or from the files."""
    tree = (
        sources.Folder(source) if source.is_dir() else sources.Zip(source, source.stem)
    )
    places = ["", *tree.folders("")]
    folders = {x.rpartition("/")[2] for place in places for x in tree.folders(place)}
    files = {x.rpartition("/")[2] for place in places for x in tree.files(place)}
    has_coco = any(x in _COCO or x.startswith("instances_") for x in files)
    objects, masks = has_coco or "instances" in folders, bool(folders & _MASKS)
    chosen = flags.split_value(args, "--task")[0]
    if chosen is None and objects and masks:
        raise UserError(
            f"{source} has masks and objects: needed to know which to learn. Give "
            f"--task semantic (a class for every pixel) or --task instance (objects)."
        )
    found = "instance" if objects else "semantic"
    return chosen if chosen in ("semantic", "instance") else found


def _given(args: Sequence[str]) -> set[str]:
    """Returns the names of the flags on the command line."""
    names = (arg.partition("=")[0] for arg in args if arg.startswith("--"))
    return {name.removeprefix("--").replace("-", "_") for name in names}


def _in_all_processes(planned: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the first process's settings; lists become tuples again."""
    shared = multihost.broadcast_from_first(dict(planned))
    return {k: tuple(v) if isinstance(v, list) else v for k, v in shared.items()}


def _steps(build: scripts.Build, keywords: Mapping[str, Any], minutes: float) -> int:
    """Returns how many updates fit into the time, estimated from operations."""
    experiment = scripts.construct(build, keywords)
    batch, side = keywords["batch_size"], keywords["size"]
    channels = training.data_spec(experiment.data)["image"][1][-1]
    cost = models.summarize(experiment.model, (batch, side, side, channels)).flops
    rate = planning.flops_per_second() * jax.device_count()
    update = planning.update_seconds(
        cost or 0.0,
        pixels=batch * side**2,
        flops_per_second=rate,
    )
    steps = planning.steps_within(60 * minutes, update=update)
    return multihost.broadcast_from_first(steps)
