"""Composes the prediction function of `segjax predict` from its models and flags."""

import functools
from collections.abc import Sequence

from segjax import inference
from segjax.cli import predict_run_files as run_files
from segjax.cli.predict_work import Settings, Work


def make_work(
    models: Sequence[inference.Model],
    settings: Settings,
    *,
    temperatures: Sequence[float] | None,
) -> Work:
    """Composes the functions of the models by the settings."""
    predict = detect = watershed = None
    plans = [model.plan for model in models]
    estimates = [model.temporary_bytes for model in models]
    if models[0].description["task"] == "instance":
        detects = [model.detect for model in models]
        detect = detects[0] if len(models) == 1 else inference.ensemble_objects(detects)
        detect = inference.tta_objects(detect) if settings.tta else detect
    else:
        several = len(models) > 1 and settings.uncertainty
        if len(models) == 1 and temperatures is None:
            predict = models[0].probabilities
        else:
            predict = inference.model_ensemble(
                models, temperatures=temperatures, disagreement=several
            )
            if isinstance(predict, inference.PlannedFn):
                plans = [predict.predictor.plan]
                estimates = [predict.temporary_bytes]
        predict = inference.tta(predict) if settings.tta else predict
        if settings.objects:
            watershed = run_files.watershed_of(models[0])

    def plan(sizes: Sequence[tuple[int, int]]) -> None:
        turned = [(w, h) for h, w in sizes] if settings.tta else []
        for one in plans:
            one([*sizes, *turned])

    return Work(
        models=models,
        predict=predict,
        detect=detect,
        settings=settings,
        plan=plan,
        temporary_bytes=functools.cache(lambda side: max(x(side) for x in estimates)),
        watershed=watershed,
    )
