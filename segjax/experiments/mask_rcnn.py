"""Mask R-CNN on your own images and objects."""

import pathlib

import optax

from segjax import data, interop, losses, metrics, models, train

_CLASS_LAYERS = (
    "params/roi_heads/box/score",
    "params/roi_heads/box/delta",
    "params/roi_heads/mask/logits",
)


def experiment(
    *,
    source: pathlib.Path,
    weights: pathlib.Path | None = None,
    small: bool = False,
    anchors: tuple[int, int, int, int, int] = (32, 64, 128, 256, 512),
    upscale: int = 1,
    steps: int = 2_000,
    batch_size: int = 2,
    size: int = 512,
    max_objects: int = 50,
    learning_rate: float = 2e-4,
    num_workers: int = 0,
    seed: int = 0,
) -> train.Experiment:
    """Builds the run.

    Args:
        source: Folder with images/ and annotations.json or instances/; see above.
        weights: Torchvision's maskrcnn_resnet50_fpn, imported by `segjax import`, as
            initialization; layers that depend on its classes are initialized randomly.
        small: Uses a narrow ResNet-18 from scratch instead.
        anchors: Side of the anchors at each pyramid level, in pixels of the upscaled
            image.
        upscale: Factor by which images are enlarged before the network.
        steps: Optimizer updates in total.
        batch_size: Images per update, over all devices.
        size: Side of the training crops, in pixels.
        max_objects: Slots for the objects of a crop; of more, the largest are kept.
        learning_rate: Peak of the cosine schedule.
        num_workers: Processes that read and decode; 0 reads in threads.
        seed: Seeds initialization, augmentation, sampling and the data order.
    """
    mine = dataset(source)
    rate = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, min(300, steps // 10), steps
    )
    init_from = None
    if weights is not None:
        init_from = interop.init_from(interop.load(weights), exclude=_CLASS_LAYERS)
    return train.Experiment(
        config=train.TrainConfig(
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            eval_every=-(-steps // 10),
            monitor="mask_ap",
        ),
        data=data.Pipeline(
            dataset=mine, size=size, max_objects=max_objects, num_workers=num_workers
        ),
        augment=data.augment.compose(
            data.augment.horizontal_flip,
            data.augment.scale_and_crop(minimum=0.7, maximum=1.5),
            data.augment.color_jitter(),
        ),
        model=mask_rcnn(
            len(mine.classes), anchors, small=small, pretrained=weights is not None
        ).clone(upscale=upscale),
        objective=losses.instance(),
        optimizer=optax.chain(
            optax.clip_by_global_norm(5.0), optax.inject_hyperparams(optax.adamw)(rate)
        ),
        metric=metrics.detections(mine.classes),
        model_inputs=models.mask_rcnn_inputs,
        init_from=init_from,
    )


def dataset(source: pathlib.Path) -> data.Dataset:
    """Reads a folder's instance maps, or else its COCO annotations."""
    has_maps = (source / "instances").is_dir() or (source / "train/instances").is_dir()
    return data.instance_folder(source) if has_maps else data.coco(source)


def mask_rcnn(
    num_classes: int, anchors: tuple[int, ...], *, small: bool, pretrained: bool
) -> models.MaskRCNN:
    """Builds torchvision's network, or a narrow one.

    Args:
        num_classes: C, with background as class 0.
        anchors: Side of the anchors at each pyramid level, in pixels.
        small: Builds the narrow network.
        pretrained: Whether to use torchvision's weights, which require its frozen norm
            and `aligned=False`; otherwise, group norm and `aligned=True` are better.
    """
    sizes = tuple((side,) for side in anchors)
    norm = models.layers.frozen_norm if pretrained else models.layers.group_norm
    if not small:
        return models.MaskRCNN(
            body=models.resnet50(norm=norm),
            rpn=models.RPN(anchor_sizes=sizes),
            roi_heads=models.RoIHeads(num_classes, aligned=not pretrained),
        )
    return models.MaskRCNN(
        body=models.resnet18(width=16, norm=norm),
        fpn=models.FPN(features=64),
        rpn=models.RPN(
            anchor_sizes=sizes,
            pre_nms_top_n_train=256,
            pre_nms_top_n_test=256,
            post_nms_top_n_train=64,
            post_nms_top_n_test=64,
        ),
        roi_heads=models.RoIHeads(
            num_classes,
            box_width=128,
            mask_convs=2,
            mask_width=64,
            batch_size_per_image=32,
            detections_per_img=50,
            aligned=not pretrained,
        ),
    )
