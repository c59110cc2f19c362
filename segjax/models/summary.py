"""Size and cost of a model, without running it."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table


@dataclasses.dataclass(frozen=True)
class Summary:
    """Size and cost of a model; `str()` is a table.

    Attributes:
        name: The model's class.
        image_shape: (B, H, W, 3), the input that `flops` is for.
        parameters: Number of trained parameters.
        by_module: Parameters per top-level module, in the order of the parameter
            tree; they sum to `parameters`.
        state: Number of values that are not trained, such as running averages.
        flops: Floating-point operations of one forward pass, a multiply-add counts as
            two; None if the backend does not report it.
    """

    name: str
    image_shape: tuple[int, ...]
    parameters: int
    by_module: Mapping[str, int]
    state: int
    flops: float | None

    def __str__(self) -> str:
        """A table of modules, with the totals below."""
        table = Table("module", title=self.name)
        table.add_column("parameters", justify="right")
        for module, count in self.by_module.items():
            table.add_row(module, f"{count:,}")
        table.add_section()
        table.add_row("all", f"{self.parameters:,}")
        if self.state:
            table.add_row("state", f"{self.state:,}")
        # A fixed width, so that the text does not depend on the terminal.
        console = Console(width=80, color_system=None)
        with console.capture() as capture:
            console.print(table)
        return f"{capture.get().rstrip()}\n{self._cost()}"

    def _cost(self) -> str:
        size = "x".join(str(n) for n in self.image_shape)
        if self.flops is None:
            return f"operations unknown on this backend, image {size}"
        unit, scale = ("G", 1e9) if self.flops >= 1e9 else ("M", 1e6)
        return f"{self.flops / scale:,.1f} {unit}FLOPs forward, image {size}"


def summarize(model: nn.Module, image_shape: Sequence[int]) -> Summary:
    """Counts parameters and operations from shapes alone.

    The program is traced and lowered, but not compiled or run, so this takes at most a
    few seconds and no memory. The operations are those before compiler optimizations;
    products with zeros of padding are not counted.

    Args:
        model: A module that takes float32 images.
        image_shape: (B, H, W, 3).

    Returns:
        The summary of `model(image, train=False)`.
    """
    image = jax.ShapeDtypeStruct(tuple(image_shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    forward = jax.jit(functools.partial(model.apply, train=False))
    # For a TPU, because XLA does not count what another library computes on a CPU.
    lowered = forward.trace(variables, image).lower(lowering_platforms=("tpu",))
    cost: Any = lowered.cost_analysis()
    by_module = {k: _count(v) for k, v in variables["params"].items()}
    parameters = sum(by_module.values())
    return Summary(
        name=type(model).__name__,
        image_shape=tuple(image_shape),
        parameters=parameters,
        by_module=by_module,
        state=_count(variables) - parameters,
        flops=cost.get("flops") if cost else None,
    )


def _count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
