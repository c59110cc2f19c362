"""`segjax export RUN --out FILE`."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Literal

from segjax import export, inference
from segjax.cli import flags, runs, usage
from segjax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Flags of `segjax export`.

    Attributes:
        out: The file to write.
        format: stablehlo runs with JAX; onnx is for semantic models, needs --size, and
            is compared with onnxruntime before it is written.
        size: HEIGHT WIDTH of the images, for models that cannot be exported for all
            sizes.
        batch_size: Images per call; any number unless given.
        trust: Execute the run's experiment.py if the model needs its code. Models made
            of segjax's own parts need none.
    """

    out: pathlib.Path
    format: Literal["stablehlo", "onnx"] = "stablehlo"
    size: tuple[int, int] | None = None
    batch_size: int | None = None
    trust: bool = False


def main(args: Sequence[str]) -> None:
    """Writes a run's model as one file that runs without segjax."""
    usage.print_if_asked(args, "segjax export RUN", ExportOptions)
    folder = runs.folder_argument(args, "export")
    prog = f"segjax export {folder}"
    options: ExportOptions = flags.read(ExportOptions, args[1:], prog=prog)
    _check_out(options)
    model = runs.load_model(folder, trust=options.trust)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.format == "onnx":
        _save_onnx(model, options)
    else:
        export.save(
            model, options.out, size=options.size, batch_size=options.batch_size
        )
    print(f"Written: {options.out} ({options.out.stat().st_size / 1e6:.1f} MB)")


def _save_onnx(model: inference.Model, options: ExportOptions) -> None:
    if options.size is None:
        raise UserError(
            f"--format onnx needs --size HEIGHT WIDTH, multiples of "
            f"{model.description['multiple']}."
        )
    rows = 1 if options.batch_size is None else options.batch_size
    worst = export.save_onnx(model, options.out, size=options.size, batch_size=rows)
    print(f"Probabilities differ from JAX's by at most {worst:.1e} in onnxruntime.")


def _check_out(options: ExportOptions) -> None:
    """Raises a ValueError if the file is a folder, or another file than a model."""
    path = options.out
    if options.format == "onnx" and path.suffix != ".onnx":
        raise UserError(f"--out of --format onnx needs the suffix .onnx, got {path}.")
    is_ours = path.is_file() if options.format == "onnx" else export.is_artifact(path)
    if path.exists() and not is_ours:
        raise UserError(
            f"{path} exists and is not an exported model, so it is not replaced. Give "
            f"--out another name."
        )
