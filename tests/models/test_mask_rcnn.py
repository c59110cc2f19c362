"""Mask R-CNN in one compiled shape: any number of objects, any size of image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses, models

H, W, N, CLASSES = 96, 96, 8, 4
SIZES = ((64, 64), (96, 64), (90, 80))
OBJECTIVE = losses.instance_per_image()
TERMS = ["box", "classifier", "mask", "objectness", "rpn_box"]


def tiny():
    """A tiny model whose samplers do not take everything."""
    return models.MaskRCNN(
        models.RoIHeads(
            CLASSES,
            box_width=16,
            mask_convs=1,
            mask_width=8,
            score_threshold=0.0,
            detections_per_img=6,
            batch_size_per_image=16,
        ),
        body=models.ResNet((1, 1, 1, 1), models.BasicBlock, 4),
        fpn=models.FPN(8),
        rpn=models.RPN(
            convs=2,
            anchor_sizes=((8,), (16,), (32,), (64,), (128,)),
            pre_nms_top_n_train=40,
            pre_nms_top_n_test=40,
            post_nms_top_n_train=20,
            post_nms_top_n_test=10,
            batch_size_per_image=32,
        ),
    )


@pytest.fixture(scope="module")
def variables():
    """Drawn in NumPy, without zeros."""
    rng = np.random.default_rng(3)

    def draw(path, x):
        if path[-1].key == "scale":
            return rng.uniform(0.5, 1.0, x.shape).astype(np.float32)
        std = 0.1 if x.ndim == 1 else (2 / np.prod(x.shape[:-1])) ** 0.5
        return rng.normal(scale=std, size=x.shape).astype(np.float32)

    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = jax.eval_shape(tiny().init, jax.random.key(0), image)
    return jax.tree.map_with_path(draw, shapes)


def scene(size, objects, *, shape=(H, W), slots=N, seed=0):
    """A batch of one image with ellipses, and garbage in the padding."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(size=(*size, 3)).astype(np.float32)
    batch = {
        "image": np.full((1, *shape, 3), 5, np.float32),
        "size": np.array([size], np.int32),
        "boxes": np.full((1, slots, 4), 3, np.float32),
        "classes": np.full((1, slots), 99, np.int32),
        "masks": np.ones((1, slots, *shape), bool),
        "object_mask": np.zeros((1, slots), bool),
        "weight": np.ones(1, np.float32),
    }
    batch["image"][0, : size[0], : size[1]] = image
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    for i in range(objects):
        low = rng.uniform(0, np.array(size[::-1]) - 30).round()
        high = low + rng.uniform(12, 30, size=2).round()
        (cx, cy), (rx, ry) = (low + high) / 2, (high - low) / 2
        batch["boxes"][0, i] = [*low, *high]
        batch["masks"][0, i] = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1
        batch["classes"][0, i] = 1 + i % (CLASSES - 1)
        batch["object_mask"][0, i] = True
    return batch


@pytest.fixture(scope="module")
def train():
    """Compiled: (variables, batch) -> losses and gradients."""

    def total(params, rest, batch):
        outputs = tiny().apply(
            {"params": params, **rest},
            **models.mask_rcnn_inputs(batch),
            train=True,
            rngs={"dropout": jax.random.key(1)},
        )
        terms = OBJECTIVE(outputs, batch)
        return sum(jnp.sum(x) for x in terms.values()), terms

    @jax.jit
    def run(variables, batch):
        params, rest = variables["params"], {"frozen": variables["frozen"]}
        grads, terms = jax.grad(total, has_aux=True)(params, rest, batch)
        return terms, grads

    return run


@pytest.fixture(scope="module")
def detect():
    """Compiled: (variables, image, size) -> detections."""
    return jax.jit(lambda v, image, size: tiny().apply(v, image, size=size))


def assert_close(got, want, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), got, want)


@pytest.mark.slow
def test_one_compilation_and_finite_for_any_scene(train, detect, variables):
    before = train._cache_size(), detect._cache_size()
    for size in SIZES:
        for objects in (0, 1, 7, N):
            batch = scene(size, objects)
            terms, grads = train(variables, batch)
            assert sorted(terms) == TERMS
            for x in jax.tree.leaves((terms, grads)):
                assert np.isfinite(x).all()
            # Without objects there are no box and mask losses.
            for name in ("box", "mask", "rpn_box"):
                assert (terms[name][0] > 0) == (objects > 0)
        outputs = detect(variables, batch["image"], batch["size"])
        boxes = np.asarray(outputs.boxes)[np.asarray(outputs.object_mask)]
        assert len(boxes) == 6
        assert boxes.min() >= 0
        assert (np.max(boxes, axis=0) <= [size[1], size[0]] * 2).all()
    after = train._cache_size(), detect._cache_size()
    assert (after[0] - before[0], after[1] - before[1]) in ((1, 1), (0, 0))


@pytest.mark.slow
def test_padding_changes_no_loss_and_no_gradient(train, variables):
    batch = scene((90, 80), 3)
    terms, grads = train(variables, batch)
    # Empty slots are ignored.
    other = batch | {
        "boxes": np.where(batch["object_mask"][..., None], batch["boxes"], 40)
    }
    assert_close(train(variables, other), (terms, grads), rtol=1e-6)
    more = scene((90, 80), 3, shape=(128, 160), slots=N + 5)
    more_terms, more_grads = train(variables, more)
    assert_close(more_terms, terms, rtol=1e-4)
    for x, y in zip(jax.tree.leaves(more_grads), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-3 * np.abs(y).max() + 1e-7)


@pytest.mark.slow
def test_padding_and_neighbors_change_no_detection(detect, variables):
    scenes = [scene(size, 2, shape=(128, 160), seed=i) for i, size in enumerate(SIZES)]
    image, size = (np.concatenate([s[k] for s in scenes]) for k in ("image", "size"))
    together = models.instances(detect(variables, image, size))
    for i, (got, size) in enumerate(zip(together, SIZES, strict=True)):
        alone = scene(size, 2, seed=i)
        (want,) = models.instances(detect(variables, alone["image"], alone["size"]))
        assert len(want["boxes"]) == 6
        assert want["masks"].shape == (6, *size)
        assert_close(got, want, atol=1e-3)


def scene_and_twice_as_large():
    batch = scene((45, 40), 3, shape=(48, 48))
    larger = batch | {
        "image": np.repeat(np.repeat(batch["image"], 2, 1), 2, 2),
        "masks": np.repeat(np.repeat(batch["masks"], 2, 2), 2, 3),
        "boxes": batch["boxes"] * 2,
        "size": batch["size"] * 2,
    }
    return batch, larger


def test_upscale_detections_equal_those_of_a_larger_image(detect, variables):
    """Boxes are in pixels of the given image."""
    batch, larger = scene_and_twice_as_large()
    want = detect(variables, larger["image"], larger["size"])
    double = tiny().clone(upscale=2)
    got = jax.jit(lambda v, x, n: double.apply(v, x, size=n))(
        variables, batch["image"], batch["size"]
    )
    assert np.asarray(want.object_mask).sum() == 6
    np.testing.assert_array_equal(got.size, [[45, 40]])
    want = want.replace(boxes=want.boxes / 2, size=got.size)
    assert_close(got, want, atol=1e-5)
    (found,) = models.instances(got)
    assert found["masks"].shape == (6, 45, 40)


@pytest.mark.slow
def test_upscale_losses_equal_those_of_a_larger_image(train, variables):
    batch, larger = scene_and_twice_as_large()
    terms, _ = train(variables, larger)
    outputs = jax.jit(
        lambda v, batch: (
            tiny()
            .clone(upscale=2)
            .apply(
                v,
                **models.mask_rcnn_inputs(batch),
                train=True,
                rngs={"dropout": jax.random.key(1)},
            )
        )
    )(variables, batch)
    assert_close(OBJECTIVE(outputs, batch), terms, rtol=1e-5)


def test_default_size_is_that_of_the_array():
    image = jax.ShapeDtypeStruct((2, 90, 70, 3), jnp.float32)
    outputs = jax.eval_shape(
        lambda x: tiny().init_with_output(jax.random.key(0), x)[0], image
    )
    shapes = jax.tree.map(lambda x: x.shape, outputs)
    assert shapes == models.Detections(
        boxes=(2, 6, 4),
        scores=(2, 6),
        classes=(2, 6),
        masks=(2, 6, 28, 28),
        object_mask=(2, 6),
        size=(2, 2),
    )


def test_init_in_evaluation_has_all_parameters(variables):
    batch = scene((64, 64), 1)
    shapes = jax.eval_shape(
        lambda: tiny().init(
            {"params": jax.random.key(0), "dropout": jax.random.key(1)},
            **models.mask_rcnn_inputs(batch),
            train=True,
        )
    )
    assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(
        lambda x: x.shape, variables
    )


def test_training_needs_targets():
    with pytest.raises(ValueError, match="needs targets in training, got none"):
        jax.eval_shape(
            lambda: tiny().init(
                {"params": jax.random.key(0), "dropout": jax.random.key(1)},
                jnp.zeros((1, 64, 64, 3)),
                train=True,
            )
        )


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (((32,), (64,)), "anchor_sizes for 5 levels, got 2"),
        (((32,), (64, 90)), "same number of anchor sizes on every level"),
    ],
)
def test_anchor_sizes_fit_the_pyramid(sizes, message):
    model = tiny().clone(rpn=models.RPN(anchor_sizes=sizes))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
