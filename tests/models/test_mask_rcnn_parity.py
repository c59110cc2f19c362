"""Mask R-CNN against torchvision's, on the same random weights."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import interop, losses, models

pytestmark = [pytest.mark.parity, pytest.mark.slow]

CLASSES = 5
SHAPE = (160, 160)
SIZES = {
    "maskrcnn_resnet50_fpn": ((96, 128), (128, 128), (160, 96), (90, 120)),
    "maskrcnn_resnet50_fpn_v2": ((90, 120),),
}


@pytest.fixture(scope="module")
def torchvision():
    sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "third_party"))
    from torchvision_cpu import torchvision

    yield torchvision
    sys.path.pop(0)


def prepared(network):
    """Without resizing, and with norms that are not the identity.

    With norms as they start, features grow from block to block until rounding in the
    first convolutions decides which of two boxes is the better one: PyTorch in double
    precision differs as much from PyTorch in single.
    """
    import torch

    network.transform.resize = lambda image, target: (image, target)
    for name, module in network.named_modules():
        if hasattr(module, "running_var"):
            # Residual blocks of the body accumulate, heads do not.
            low, high = (0.3, 0.6) if "body" in name else (0.8, 1.2)
            module.weight.data.uniform_(low, high)
            module.bias.data.normal_(0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    # Scores must differ by more than rounding to have a unique order.
    torch.nn.init.normal_(network.roi_heads.box_predictor.cls_score.weight, std=0.2)
    return network


def imported(model, network):
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    state = {name: x.numpy() for name, x in network.state_dict().items()}
    return shapes, interop.from_torchvision(state, shapes, epsilon=1e-5)


def to_torch(image):
    import torch

    return torch.from_numpy(image).permute(2, 0, 1)


@pytest.mark.parametrize(
    "version", ["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"]
)
def test_detections(torchvision, version, rng):
    import torch

    torch.manual_seed(0)
    network = getattr(torchvision.models.detection, version)(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES,
        rpn_post_nms_top_n_test=50,
        box_score_thresh=0.0,
        box_detections_per_img=20,
    )
    network = prepared(network).eval()
    model = getattr(models, version.replace("maskrcnn", "mask_rcnn"))(CLASSES)
    model = model.clone(
        rpn=model.rpn.clone(post_nms_top_n_test=50),
        roi_heads=model.roi_heads.clone(score_threshold=0.0, detections_per_img=20),
    )
    _, variables = imported(model, network)
    detect = jax.jit(lambda v, image, size: model.apply(v, image, size=size))
    for height, width in SIZES[version]:
        image = rng.uniform(size=(height, width, 3)).astype(np.float32)
        with torch.no_grad():
            (want,) = network([to_torch(image)])
        padded = np.full((1, *SHAPE, 3), 7, np.float32)
        padded[0, :height, :width] = image
        size = np.array([[height, width]], np.int32)
        (got,) = models.instances(detect(variables, padded, size))
        assert len(got["boxes"]) == len(want["boxes"]) == 20
        assert np.diff(want["scores"].numpy()).max() < -1e-6
        np.testing.assert_allclose(got["boxes"], want["boxes"], atol=0.01)
        np.testing.assert_allclose(got["scores"], want["scores"], atol=1e-4)
        np.testing.assert_array_equal(got["classes"], want["labels"])
        np.testing.assert_allclose(got["masks"], want["masks"][:, 0], atol=1e-3)
    assert detect._cache_size() == 1


def objects(size):
    """Three ellipses that proposals of any scale meet."""
    boxes = np.array([[6, 8, 40, 44], [20, 4, 60, 30], [38, 30, 64, 64]], np.float32)
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    masks = [
        ((x - (x0 + x1) / 2) / (x1 - x0)) ** 2 + ((y - (y0 + y1) / 2) / (y1 - y0)) ** 2
        <= 0.25
        for x0, y0, x1, y1 in boxes
    ]
    return boxes, np.array([1, 3, 4], np.int32), np.array(masks)


def test_losses_and_gradients(torchvision, rng):
    import torch

    torch.manual_seed(0)
    detection = torchvision.models.detection
    body = detection.backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=torchvision.ops.FrozenBatchNorm2d,
        trainable_layers=5,
    )
    network = detection.MaskRCNN(
        body,
        num_classes=CLASSES,
        rpn_post_nms_top_n_train=30,
        rpn_batch_size_per_image=10**6,  # Samplers that take all anchors.
        rpn_positive_fraction=1.0,
        box_batch_size_per_image=64,
        box_positive_fraction=1.0,
    )
    network = prepared(network).train()
    size, shape, slots = (64, 64), (96, 128), 6
    image = rng.uniform(size=(*size, 3)).astype(np.float32)
    boxes, classes, masks = objects(size)
    want = network(
        [to_torch(image)],
        [
            {
                "boxes": torch.from_numpy(boxes),
                "labels": torch.from_numpy(classes).long(),
                "masks": torch.from_numpy(masks).byte(),
            }
        ],
    )
    sum(want.values()).backward()

    model = models.mask_rcnn_resnet50_fpn(CLASSES)
    model = model.clone(
        rpn=model.rpn.clone(
            post_nms_top_n_train=30, batch_size_per_image=4000, positive_fraction=1.0
        ),
        roi_heads=model.roi_heads.clone(batch_size_per_image=64, positive_fraction=1.0),
    )
    shapes, variables = imported(model, network)
    batch = {
        "image": np.full((1, *shape, 3), 7, np.float32),
        "size": np.array([size], np.int32),
        "boxes": np.zeros((1, slots, 4), np.float32),
        "classes": np.zeros((1, slots), np.int32),
        "masks": np.ones((1, slots, *shape), bool),
        "object_mask": np.arange(slots)[None] < 3,
        "weight": np.ones(1, np.float32),
    }
    batch["image"][0, : size[0], : size[1]] = image
    batch["boxes"][0, :3], batch["classes"][0, :3] = boxes, classes
    batch["masks"][0, :3, : size[0], : size[1]] = masks

    @jax.jit
    def run(variables):
        def total(params):
            outputs = model.apply(
                variables | {"params": params},
                **models.mask_rcnn_inputs(batch),
                train=True,
                rngs={"dropout": jax.random.key(0)},
            )
            terms = losses.instance()(outputs, batch)
            return sum(jnp.sum(x) for x in terms.values()), (terms, outputs)

        return jax.grad(total, has_aux=True)(variables["params"])

    grads, (got, outputs) = run(variables)
    assert (
        int(jnp.sum(outputs.mask_sampled)) > 3
    )  # Includes proposals, not only true boxes.
    names = {
        "objectness": "loss_objectness",
        "rpn_box": "loss_rpn_box_reg",
        "classifier": "loss_classifier",
        "box": "loss_box_reg",
        "mask": "loss_mask",
    }
    assert got.keys() == names.keys()
    for ours, theirs in names.items():
        np.testing.assert_allclose(got[ours][0], want[theirs].item(), rtol=1e-4)
    theirs = {name: x.numpy() for name, x in network.named_buffers()}
    theirs |= {name: x.grad.numpy() for name, x in network.named_parameters()}
    theirs = interop.from_torchvision(theirs, shapes, epsilon=1e-5)["params"]
    pairs = zip(jax.tree.leaves_with_path(theirs), jax.tree.leaves(grads), strict=True)
    for (path, x), y in pairs:
        assert np.abs(x).max() > 0, path
        np.testing.assert_allclose(
            y, x, atol=1e-3 * np.abs(x).max(), err_msg=jax.tree_util.keystr(path)
        )
