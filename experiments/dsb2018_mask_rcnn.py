"""Mask R-CNN (He et al., 2017, arXiv:1703.06870): instance segmentation of nuclei.

Data Science Bowl 2018, fluorescence images (541 of stage1_train, 53 of stage1_test).

    segjax import resnet50.pth --model resnet50 --out resnet50
    segjax train experiments/dsb2018_mask_rcnn.py --source DIR --weights resnet50

A small network on small crops, from scratch, on a CPU:

    segjax train experiments/dsb2018_mask_rcnn.py --source DIR --small --steps 6600
        --batch-size 4 --size 128 --max-objects 96

Result of the small network, one seed; 2 CPU cores, 68 min (busy machine): over all
nuclei, TP / (TP + FP + FN) at IoU 0.5 is 0.814 on validation, 54 images drawn from
stage1_train, and 0.606 on the 53 images of stage1_test (0.679 as a mean over images);
mask AP is 0.577 and 0.324. The test recall is 0.65 at a precision of 0.90: 869 of the
1,080 missed nuclei are in eleven crowded images of tissue with faint nuclei. For
comparison, StarDist's example notebook has 0.835 on its own split of 380 and 67 images.
The full network needs a GPU and was not run.
"""

import pathlib

import optax

from segjax import cli, data, interop, losses, metrics, models, train


def experiment(
    *,
    source: pathlib.Path,
    weights: pathlib.Path | None = None,
    small: bool = False,
    steps: int = 6_000,
    batch_size: int = 8,
    size: int = 256,
    max_objects: int = 128,
    detections: int = 384,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> train.Experiment:
    """Builds the run.

    Args:
        source: Folder with stage1_train.zip and stage1_test.zip, or unpacked.
        weights: Torchvision's ResNet-50, imported by `segjax import`, as the initial
            backbone.
        small: Uses a narrow ResNet-18 from scratch instead.
        steps: Optimizer updates in total.
        batch_size: Images per update, over all devices.
        size: Side of the training crops, in pixels.
        max_objects: Slots for the nuclei of a crop; of more, the largest are kept.
        detections: Nuclei found in an image at most; one has 375.
        learning_rate: Peak of the cosine schedule.
        seed: Seeds initialization, augmentation, sampling and the data order.
    """
    nuclei = data.dsb2018(source)
    rate = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, min(300, steps // 10), steps
    )
    return train.Experiment(
        config=train.TrainConfig(
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            eval_every=-(-steps // 6),
            monitor="mask_ap",
        ),
        data=data.Pipeline(dataset=nuclei, size=size, max_objects=max_objects),
        augment=data.augment.compose(
            data.augment.horizontal_flip,
            data.augment.rotate90,
            data.augment.scale_and_crop(minimum=0.6, maximum=2.0),
            data.augment.gaussian_blur(sigma=1.0),
            # Microscopes differ more than the images of one microscope.
            data.augment.exposure(minimum=-2.0, maximum=0.5),
        ),
        model=mask_rcnn(
            len(nuclei.classes),
            small=small,
            pretrained=weights is not None,
            detections=detections,
        ),
        objective=losses.instance(),
        optimizer=train.with_ema(
            optax.chain(
                optax.clip_by_global_norm(5.0),
                optax.inject_hyperparams(optax.adamw)(rate),
            ),
            decay=0.998,
        ),
        metric=metrics.detections(nuclei.classes),
        model_inputs=models.mask_rcnn_inputs,
        init_from=None if weights is None else init_backbone(weights),
    )


def mask_rcnn(
    num_classes: int, *, small: bool, pretrained: bool, detections: int
) -> models.MaskRCNN:
    """Builds the network for many nuclei of 8 to 128 pixels, upscaled by two.

    Args:
        num_classes: C, with background as class 0.
        small: Uses a ResNet-18 of half width, narrow heads and fewer proposals in
            training.
        pretrained: Whether the backbone is pretrained, with a frozen norm; otherwise
            it has a trainable one.
        detections: Maximum number of detections per image.
    """
    norm = models.layers.frozen_norm if pretrained else models.layers.group_norm
    body = models.resnet18(width=32, norm=norm) if small else models.resnet50(norm=norm)
    return models.MaskRCNN(
        body=body,
        upscale=2,
        fpn=models.FPN(features=64 if small else 256),
        rpn=models.RPN(
            anchor_sizes=((16,), (32,), (64,), (128,), (256,)),
            pre_nms_top_n_train=512 if small else 2_000,
            post_nms_top_n_train=256 if small else 1_000,
        ),
        roi_heads=models.RoIHeads(
            num_classes,
            box_width=128 if small else 1_024,
            mask_convs=2 if small else 4,
            mask_width=64 if small else 256,
            batch_size_per_image=128 if small else 512,
            detections_per_img=detections,
            aligned=True,
        ),
    )


def init_backbone(weights: pathlib.Path) -> train.InitFrom:
    """Initializes the backbone with an imported ResNet."""
    return interop.init_from(interop.load(weights), into="body")


if __name__ == "__main__":
    cli.run(experiment)
