"""Packages of the extras, imported where they are used."""

import importlib
from typing import Any

from segjax.errors import UserError


class MissingPackageError(UserError):
    """A package of an extra is not installed; the message says how to install it."""


def require(
    module: str, *, extra: str, purpose: str, package: str | None = None
) -> Any:
    """Imports a module of an optional package.

    Args:
        module: Full name of the module, such as `pycocotools.mask`.
        extra: The extra of segjax that installs it.
        purpose: What needs it, for the message: `COCO annotations`.
        package: Name to install, where it is not that of the top-level module.

    Returns:
        The module.

    Raises:
        MissingPackageError: If the package is not installed.
    """
    top = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != top:
            raise  # The package is there, and lacks one of its own.
        raise MissingPackageError(
            f'{package or top} is needed for {purpose}. pip install "segjax[{extra}]".'
        ) from None
