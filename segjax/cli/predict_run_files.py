"""Files of a run folder that `segjax predict` reads beside the model."""

import json
import pathlib
from typing import Any

from segjax import inference
from segjax.errors import UserError
from segjax.files import reading

INSTANCES = "instances.json"
"""Settings of a run's watershed, chosen on validation."""


def watershed_of(model: inference.Model) -> dict[str, Any] | None:
    """Reads RUN/instances.json, if there is one."""
    path = model.folder / INSTANCES
    if not path.exists():
        return None
    need = "interior, foreground, class and settings"
    content = reading.parse_json(
        reading.read_bytes(path), str(path), need=need, fix="remove it, or make it anew"
    )
    try:
        count = len(model.classes)
        inference.Watershed(**content["settings"])
        chosen = [*content["interior"], *content["foreground"], content["class"]]
        if not all(type(k) is int and 0 <= k < count for k in chosen):
            raise ValueError("a class is out of range")
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({' '.join(str(error).split())}): needed {need}; "
            f"remove it, or make it anew."
        ) from error
    return content


def temperature_of(folder: pathlib.Path) -> float:
    """Reads the temperature of RUN/calibration.json."""
    path = folder / "calibration.json"
    if not path.exists():
        raise UserError(
            f"{path} is missing: needed the run's temperature; fit it by segjax "
            f"calibrate {folder}."
        )
    try:
        value = json.loads(reading.read_bytes(path))["temperature"]
        return float(value)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path} is damaged: needed a temperature; run segjax calibrate {folder}."
        ) from error
