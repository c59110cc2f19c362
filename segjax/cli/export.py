"""`segjax export RUN --out FILE`."""

import dataclasses
import pathlib
from collections.abc import Sequence

from segjax import export
from segjax.cli import flags, runs
from segjax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Flags of `segjax export`.

    Attributes:
        out: The file to write.
        size: HEIGHT WIDTH of the images, for models that cannot be exported for all
            sizes.
        batch_size: Images per call; any number unless given.
        trust: Execute the run's experiment.py if the model needs its code. Models made
            of segjax's own parts need none.
    """

    out: pathlib.Path
    size: tuple[int, int] | None = None
    batch_size: int | None = None
    trust: bool = False


def main(args: Sequence[str]) -> None:
    """Writes a run's model as one file that runs without segjax."""
    folder = runs.folder_argument(args, "export")
    prog = f"segjax export {folder}"
    options: ExportOptions = flags.read(ExportOptions, args[1:], prog=prog)
    _check_out(options.out)
    model = runs.load_model(folder, trust=options.trust)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    export.save(model, options.out, size=options.size, batch_size=options.batch_size)
    print(f"Written: {options.out} ({options.out.stat().st_size / 1e6:.1f} MB)")


def _check_out(path: pathlib.Path) -> None:
    """Raises a ValueError if the file is a folder, or another file than a model."""
    if path.exists() and not export.is_artifact(path):
        raise UserError(
            f"{path} exists and is not an exported model, so it is not replaced. Give "
            f"--out another name."
        )
