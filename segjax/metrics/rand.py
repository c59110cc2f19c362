"""The Rand score of the ISBI 2012 challenge."""

import numpy as np

from segjax.metrics.contingency import Ids, contingency
from segjax.metrics.rows import PerImage
from segjax.typing import Batch


def v_rand(
    predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray
) -> dict[str, float]:
    """Foreground-restricted Rand scores of one image, on the host.

    Over the pixels that lie in an object of truth, with p_ij the share that lies in
    truth i and prediction j, t_i the share in truth i and s_j that in prediction j,

        split = sum p_ij**2 / sum t_i**2
        merge = sum p_ij**2 / sum s_j**2
        v_rand = 2 * sum p_ij**2 / (sum t_i**2 + sum s_j**2)

    A pixel predicted to be of no object is an object of its own.

    Args:
        predicted: [H, W] ids, 0 for none.
        truth: [H, W] ids, 0 for none; such pixels are left out.
        valid: [H, W] True where a pixel counts.

    Returns:
        `v_rand`, `v_rand_split`, `v_rand_merge`, each in (0, 1]; NaN where truth has
        no object. Where no object is predicted, by the formula: all pixels apart.

    Reference:
        Arganda-Carreras et al., Crowdsourcing the creation of image segmentation
        algorithms for connectomics, Frontiers in Neuroanatomy 9:142, 2015. The
        challenge also thins the boundaries and takes the best threshold of the
        probability map; both are the caller's.
    """
    table = contingency(predicted, truth, valid & (np.asarray(truth) > 0))
    if not len(table.pixels):
        return dict.fromkeys(("v_rand", "v_rand_split", "v_rand_merge"), float("nan"))
    joined = table.predicted > 0
    alone = int(table.pixels[~joined].sum())  # Each one squared is 1.

    def squares(sizes):
        return float(np.sum(np.array(list(sizes), np.float64) ** 2))

    both = squares(table.pixels[joined]) + alone
    t = squares(table.truth_sizes.values())
    s = squares(table.predicted_sizes.values()) + alone
    return {
        "v_rand": 2 * both / (s + t),
        "v_rand_split": both / t,
        "v_rand_merge": both / s,
    }


def rand_scores(
    predicted: Ids, truth: Ids, valid: np.ndarray, batch: Batch
) -> PerImage:
    """`v_rand_per_image` and its parts for one batch, on the host.

    Args:
        predicted: [B, H, W] ids, 0 for none.
        truth: [B, H, W] ids, 0 for none.
        valid: [B, H, W] True where a pixel counts.
        batch: Has `index` and `weight`, both [B].
    """
    images = zip(predicted, truth, valid, strict=True)
    scores = [v_rand(*image) for image in images]
    names = ("v_rand", "v_rand_split", "v_rand_merge")
    columns = {f"{k}_per_image": np.array([s[k] for s in scores]) for k in names}
    return PerImage.from_batch(columns, batch)
