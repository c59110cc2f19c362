"""Losses that a peer has too; values [B]."""

import numpy as np

from segjax import losses
from tests.peers.scenes import C
from tests.peers.table import Pair
from tests.peers.theirs import first, ids, monai, numbers, smp_losses, torch

DISTANCES = np.float32([[0, 1, 1], [1, 0, 0.4], [1, 0.4, 0]])
ABSENT = ("class only predicted", "class nowhere", "class masked by -inf", "one class")
NO_VOID = "has no mask"
SMP_ABSENT = "a class without true pixels costs 0, however much of it is predicted"
SMP_PREDICTED = dict.fromkeys(("class only predicted", "one class"), SMP_ABSENT)
MASKED = {"class masked by -inf": "NaN: 0 * -inf"}


def _ours(loss, *, targets=None, **options):
    def value(scene):
        given = {"hot": scene.hot, "soft": scene.targets}.get(targets, scene.labels)
        return loss(scene.logits, given, scene.valid, **options)

    return value


def _per_image(function):
    """Peers that reduce over the batch see one image at a time."""

    def value(scene):
        count = len(scene.logits)
        return numbers([function(scene.image(i)) for i in range(count)])

    return value


def _cross_entropy(scene):
    return torch().nn.functional.cross_entropy(
        first(scene.logits), ids(scene.labels), ignore_index=255
    )


def _binary_cross_entropy(scene):
    loss = torch().nn.functional.binary_cross_entropy_with_logits
    return loss(first(scene.logits), first(scene.hot))


def _soft_cross_entropy(scene):
    return torch().nn.functional.cross_entropy(
        first(scene.logits), first(scene.targets)
    )


def _monai(name, *, scale=1.0, targets=None, mean=True, **options):
    def value(scene):
        loss = getattr(monai("losses"), name)(reduction="none", **options)
        given = {"hot": first(scene.hot), "soft": first(scene.targets)}.get(
            targets, ids(scene.labels)[:, None]
        )
        made = numbers(loss(first(scene.logits), given))
        return scale * made.reshape(len(made), -1).mean(-1)

    return value


def _monai_wasserstein(scene):
    loss = monai("losses").GeneralizedWassersteinDiceLoss(
        DISTANCES, reduction="none", smooth_nr=1.0, smooth_dr=1.0
    )
    return numbers(
        loss(first(scene.logits), ids(np.where(scene.valid, scene.labels, 0)))
    )


def _probs(scene):
    return torch().softmax(first(scene.logits), 1)


def _monai_cldice(scene):
    """Class by class, since theirs sums over the classes of an image."""
    loss = monai("losses").SoftclDiceLoss(
        iter_=3, smooth_nr=1.0, smooth_dr=1.0, smooth=1e-9
    )
    probs, hot = _probs(scene), first(scene.hot)
    pairs = [(probs[:, [c]], hot[:, [c]]) for c in range(C)]
    return np.mean([numbers(loss(t, p)) for p, t in pairs])


def _smp(name, *, sigmoid=False, **options):
    def value(scene):
        mode = "multilabel" if sigmoid else "multiclass"
        loss = getattr(smp_losses(), name)(mode, **options)
        given = first(scene.hot) if sigmoid else ids(scene.labels)
        return loss(first(scene.logits), given)

    return _per_image(value)


def _smp_matthews(scene):
    loss, probs, hot = smp_losses().MCCLoss(eps=1e-5), _probs(scene), first(scene.hot)
    return np.mean([numbers(loss(probs[:, c], hot[:, c])) for c in range(C)])


def _smp_hinge(scene):
    loss = smp_losses().LovaszLoss("binary", per_image=True)
    x, hot = first(scene.logits), first(scene.hot)
    return np.mean([numbers(loss(x[:, c], hot[:, c])) for c in range(C)])


SOFT = {"include_background": True, "softmax": True, "to_onehot_y": True}
SMOOTH = {"smooth_nr": 1.0, "smooth_dr": 1.0}
PAIRS = [
    Pair(
        "losses.cross_entropy",
        _ours(losses.cross_entropy),
        "torch cross_entropy",
        _per_image(_cross_entropy),
    ),
    Pair(
        "losses.sigmoid_cross_entropy",
        _ours(losses.sigmoid_cross_entropy, targets="hot"),
        "torch binary_cross_entropy_with_logits",
        _per_image(_binary_cross_entropy),
        {"void": NO_VOID, **MASKED},
    ),
    Pair(
        "losses.soft_label_cross_entropy",
        _ours(losses.soft_label_cross_entropy, targets="soft"),
        "torch cross_entropy of probabilities",
        _per_image(_soft_cross_entropy),
        {"void": NO_VOID},
    ),
    Pair(
        "losses.focal",
        _ours(losses.focal),
        "MONAI FocalLoss(use_softmax), times C",
        _monai("FocalLoss", use_softmax=True, to_onehot_y=True, scale=C),
        {"void": NO_VOID, **MASKED},
    ),
    Pair(
        "losses.sigmoid_focal",
        _ours(losses.sigmoid_focal, targets="hot"),
        "smp FocalLoss(multilabel, alpha=0.25)",
        _smp("FocalLoss", sigmoid=True, alpha=0.25),
        {"void": NO_VOID, **MASKED},
    ),
    Pair(
        "losses.soft_dice",
        _ours(losses.soft_dice),
        "MONAI DiceLoss",
        _monai("DiceLoss", ignore_index=255, **SOFT, **SMOOTH),
    ),
    Pair(
        "losses.soft_dice",
        _ours(losses.soft_dice),
        "smp DiceLoss, smooth halved",
        _smp("DiceLoss", smooth=0.5, ignore_index=255),
        SMP_PREDICTED,
    ),
    Pair(
        "losses.sigmoid_dice",
        _ours(losses.sigmoid_dice, targets="hot"),
        "MONAI DiceLoss(sigmoid)",
        _monai("DiceLoss", targets="hot", sigmoid=True, **SMOOTH),
        {"void": NO_VOID},
    ),
    Pair(
        "losses.soft_label_dice",
        _ours(losses.soft_label_dice, targets="soft"),
        "MONAI DiceLoss(soft_label)",
        _monai("DiceLoss", targets="soft", softmax=True, soft_label=True, **SMOOTH),
        {"void": NO_VOID},
    ),
    Pair(
        "losses.generalized_dice",
        _ours(losses.generalized_dice),
        "MONAI GeneralizedDiceLoss",
        _monai("GeneralizedDiceLoss", **SOFT, smooth_nr=0.0, smooth_dr=0.0),
        {"void": NO_VOID},
    ),
    Pair(
        "losses.jaccard",
        _ours(losses.jaccard),
        "MONAI DiceLoss(jaccard), smooth doubled",
        _monai(
            *("DiceLoss",),
            jaccard=True,
            ignore_index=255,
            smooth_nr=2.0,
            smooth_dr=2.0,
            **SOFT,
        ),
    ),
    Pair(
        "losses.jaccard",
        _ours(losses.jaccard),
        "smp JaccardLoss",
        _smp("JaccardLoss", smooth=1.0),
        {"void": NO_VOID, **SMP_PREDICTED},
    ),
    Pair(
        "losses.tversky",
        _ours(losses.tversky),
        "MONAI TverskyLoss",
        _monai("TverskyLoss", alpha=0.3, beta=0.7, ignore_index=255, **SOFT, **SMOOTH),
    ),
    Pair(
        "losses.sigmoid_tversky",
        _ours(losses.sigmoid_tversky, targets="hot"),
        "MONAI TverskyLoss(sigmoid)",
        _monai(
            "TverskyLoss", targets="hot", sigmoid=True, alpha=0.3, beta=0.7, **SMOOTH
        ),
        {"void": NO_VOID},
    ),
    Pair(
        "losses.focal_tversky",
        _ours(losses.focal_tversky, gamma=1 / 0.75),
        "smp TverskyLoss(gamma=0.75)",
        _smp(
            *("TverskyLoss",),
            alpha=0.3,
            beta=0.7,
            gamma=0.75,
            smooth=1.0,
            ignore_index=255,
        ),
        {"": "the mean over classes to the power gamma, not the mean of the powers"},
    ),
    Pair(
        "losses.matthews",
        _ours(losses.matthews, smooth=1e-5),
        "smp MCCLoss, class by class",
        _per_image(_smp_matthews),
        {
            "void": NO_VOID,
            **dict.fromkeys(ABSENT, "eps on all four counts: 1 for 0 / 0"),
        },
    ),
    Pair(
        "losses.lovasz_softmax",
        _ours(losses.lovasz_softmax),
        "smp LovaszLoss",
        _smp("LovaszLoss", per_image=True, ignore_index=255),
    ),
    Pair(
        "losses.sigmoid_lovasz_hinge",
        _ours(losses.sigmoid_lovasz_hinge, targets="hot"),
        "smp LovaszLoss(binary), class by class",
        _per_image(_smp_hinge),
        {"void": NO_VOID},
    ),
    Pair(
        "losses.hausdorff",
        _ours(losses.hausdorff),
        "MONAI HausdorffDTLoss",
        _monai("HausdorffDTLoss", **SOFT),
        {"void": NO_VOID},
    ),
    Pair(
        "losses.soft_cldice",
        _ours(losses.soft_cldice),
        "MONAI SoftclDiceLoss, class by class",
        _per_image(_monai_cldice),
        {"void": NO_VOID},
    ),
    Pair(
        "losses.wasserstein_dice",
        _ours(losses.wasserstein_dice, distances=DISTANCES),
        "MONAI GeneralizedWassersteinDiceLoss",
        _monai_wasserstein,
        {"void": NO_VOID},
    ),
]

TABLE = {}
for pair in PAIRS:
    TABLE.setdefault(pair.name, []).append(pair)
