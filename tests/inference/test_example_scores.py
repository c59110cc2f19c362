"""Each example's loss and gradient norm equal those of a batch of one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import inference, losses, models, ops
from segjax.forward import Forward, make_forward
from tests import scenes

OBJECTIVE = losses.semantic(
    ce=(1.0, losses.cross_entropy), dice=(0.5, losses.soft_dice)
)
MODELS = {
    "cnn": models.SimpleCNN(num_classes=3, width=8),
    "unet": models.UNet(num_classes=3, widths=(8, 16), dropout=0.5),
}


def batches(size, count=7):
    pipeline = scenes.experiment(dataset_=scenes.dataset(train=count)).data
    return list(pipeline.eval_batches("train", batch_size=size))


def variables_of(model):
    return jax.jit(model.init)(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))


def scored(model, variables, size):
    score = inference.make_example_scores(make_forward(model), OBJECTIVE)
    return inference.score_examples(jax.jit(score), variables, batches(size))


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]


def truths():
    """Batches of one example, with ids and `valid` on the host."""
    return [make_forward(None).host_truth(row) for row in batches(1)]


@pytest.fixture(scope="module")
def variables(model):
    return variables_of(model)


@pytest.fixture(scope="module")
def scores(model, variables):
    return scored(model, variables, 4)


def test_gradients_are_those_of_one_example_at_a_time(model, variables, scores):
    @jax.jit
    def gradient(params, row):
        def loss(params):
            image = row["image"].astype(jnp.float32) / 255
            logits = model.apply({"params": params}, image)
            ce = losses.cross_entropy(logits, row["label"], row["valid"])
            dice = losses.soft_dice(logits, row["label"], row["valid"])
            return (ce + 0.5 * dice)[0]

        return jax.grad(loss)(params)

    expected = []
    for row in truths():
        leaves = jax.tree.leaves(gradient(variables["params"], row))
        squares = [np.sum(np.asarray(x, np.float64) ** 2) for x in leaves]
        expected.append(np.sqrt(sum(squares)))
    np.testing.assert_allclose(scores["gradient_norm"], expected, rtol=1e-5)
    assert np.std(expected) > 0.01 * np.mean(
        expected
    )  # Otherwise any order would pass.


def test_the_batch_that_an_example_is_in_does_not_matter(model, variables, scores):
    alone = scored(model, variables, 1)
    assert alone.keys() == scores.keys()
    for name, column in alone.items():
        np.testing.assert_allclose(scores[name], column, rtol=1e-5, err_msg=name)


def test_losses_are_those_of_the_objective(model, variables, scores):
    """By hand, on the network's logits; so preprocessing and inputs are honored too."""
    for forward in (
        make_forward(model),
        make_forward(
            model,
            preprocess=ops.normalize((0.4,), (0.3,)),
            model_inputs=lambda batch: {"image": -batch["image"]},
        ),
    ):
        got = inference.score_examples(
            jax.jit(inference.make_example_losses(forward, OBJECTIVE)),
            variables,
            batches(4),
        )
        for row, loss in zip(truths(), got["loss/ce"], strict=True):
            image = row["image"] / np.float32(255)
            if forward.preprocess != ops.UnitRange():
                image = (0.4 - image) / 0.3
            logits = model.apply(variables, image.astype(np.float32))
            ce = losses.cross_entropy(logits, row["label"], row["valid"])
            np.testing.assert_allclose(loss, ce[0], rtol=1e-4)
    np.testing.assert_allclose(
        scores["loss"], scores["loss/ce"] + scores["loss/dice"], rtol=1e-6
    )


def test_a_step_reaches_objectives_that_want_it(variables, model):
    def objective(outputs, batch, *, step):
        return {"ce": jnp.zeros(len(outputs)) + step}

    score = inference.make_example_losses(make_forward(model), objective, step=7)
    assert score(variables, batches(4)[0])["loss"].tolist() == [7] * 4


class Training:
    """Outputs to learn from in training only, which are random."""

    margin = 0

    def apply(self, variables, image, *, train, rngs, mutable=()):
        scale = variables["params"]["scale"]
        if not train:
            return jnp.zeros((len(image), 5)), None
        noise = jax.random.normal(rngs["params"], (len(image),))
        return {"noise": scale * noise}, {}


def no_terms_in_evaluation(outputs, batch):
    return {"noise": outputs["noise"]} if isinstance(outputs, dict) else {}


def test_losses_that_exist_in_training_only_are_fixed_by_the_index():
    forward = Forward(Training())
    for build in (inference.make_example_losses, inference.make_example_scores):
        score = jax.jit(build(forward, no_terms_in_evaluation))
        variables = {"params": {"scale": jnp.float32(2)}}
        alone, together = (
            inference.score_examples(score, variables, batches(size)) for size in (1, 4)
        )
        np.testing.assert_allclose(alone["loss"], together["loss"], rtol=1e-6)
        assert len(set(alone["loss"])) == 7
        key = jax.random.fold_in(jax.random.key(0), 3)
        noise = jax.random.normal(key, (1,))[0]
        np.testing.assert_allclose(alone["loss"][3], 2 * noise, rtol=1e-6)
        if "gradient_norm" in alone:
            np.testing.assert_allclose(alone["gradient_norm"][3], abs(noise), rtol=1e-6)


def test_an_objective_without_terms_is_an_error():
    score = inference.make_example_losses(Forward(Training()), lambda *_: {})
    with pytest.raises(ValueError, match="at least one term, got none"):
        score({"params": {"scale": jnp.float32(2)}}, batches(1)[0])


def test_gradient_norm_by_hand():
    # Logits are a bias of 0 for two classes: p = 1/2. Where all labels are 0, the
    # gradient of the cross entropy is p - (1, 0) = (-1/2, 1/2), of length sqrt(1/2);
    # where half of them are, it is 0.
    class Bias:
        def apply(self, variables, image, *, train, rngs):
            bias = variables["params"]["bias"]
            return jnp.zeros((*image.shape[:3], 2)) + bias[None, None, None, :]

    label = np.zeros((2, 4, 4), np.uint8)
    label[1, :2] = 1
    label[:, :, 3] = 255  # Ignored.
    score = inference.make_example_scores(
        make_forward(Bias()), losses.semantic(ce=(1.0, losses.cross_entropy))
    )
    batch = {
        "image": np.zeros((2, 4, 4, 3), np.uint8),
        "label": label,
        "weight": np.ones(2, np.float32),
        "index": np.arange(2, dtype=np.int32),
    }
    got = score({"params": {"bias": jnp.zeros(2)}}, batch)
    np.testing.assert_allclose(got["gradient_norm"], [np.sqrt(0.5), 0], atol=1e-6)
    np.testing.assert_allclose(got["loss"], [np.log(2)] * 2, rtol=1e-6)


def test_padding_is_left_out_and_the_order_is_the_split_s(scores):
    assert any((batch["weight"] == 0).any() for batch in batches(4))
    np.testing.assert_array_equal(scores["index"], np.arange(7))
    shuffled = inference.score_examples(
        lambda _, batch: {"loss": batch["index"] * 2.0},
        {},
        [
            {"index": np.array([3, 0, -1]), "weight": np.array([1.0, 1.0, 0.0])},
            {"index": np.array([-1, 2, 1]), "weight": np.array([0.0, 1.0, 1.0])},
        ],
    )
    np.testing.assert_array_equal(shuffled["index"], [0, 1, 2, 3])
    np.testing.assert_array_equal(shuffled["loss"], [0, 2, 4, 6])


def test_no_example_is_an_error():
    with pytest.raises(ValueError, match="at least one example"):
        inference.score_examples(lambda *_: {}, {}, [])


def test_batch_norm_has_losses_but_no_gradients():
    model = models.UNet(num_classes=3, widths=(4, 8), norm=models.layers.batch_norm)
    variables = variables_of(model)
    assert inference.has_batch_statistics(variables)
    with pytest.raises(ValueError, match="not defined by the example alone"):
        scored(model, variables, 4)
    score = inference.make_example_losses(make_forward(model), OBJECTIVE)
    got = inference.score_examples(jax.jit(score), variables, batches(4))
    assert got.keys() == {"index", "loss", "loss/ce", "loss/dice"}
    np.testing.assert_allclose(got["loss"], got["loss/ce"] + got["loss/dice"])


def test_ranked_puts_what_is_not_finite_first_and_ties_in_order():
    order = inference.ranked(np.array([1.0, 3.0, np.nan, 1.0, np.inf, 2.0]))
    np.testing.assert_array_equal(order, [2, 4, 1, 5, 0, 3])


def test_detectors_are_traced_in_batches_too():
    """As on an accelerator, where `inspect` scores several images at once."""
    norm = models.layers.group_norm
    model = models.MaskRCNN(
        body=models.resnet18(width=8, norm=norm),
        fpn=models.FPN(features=8),
        rpn=models.RPN(
            anchor_sizes=((8,), (14,), (20,), (28,), (40,)),
            pre_nms_top_n_train=8,
            post_nms_top_n_train=8,
            batch_size_per_image=8,
        ),
        roi_heads=models.RoIHeads(
            2, box_width=8, mask_convs=1, mask_width=8, batch_size_per_image=4
        ),
    )
    image = np.zeros((1, 32, 32, 3), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    rows = 3
    batch = {
        "image": np.zeros((rows, 32, 32, 3), np.uint8),
        "size": np.full((rows, 2), 32, np.int32),
        "boxes": np.zeros((rows, 2, 4), np.float32),
        "classes": np.zeros((rows, 2), np.int32),
        "masks": np.zeros((rows, 2, 32, 32), bool),
        "object_mask": np.zeros((rows, 2), bool),
        "weight": np.ones(rows, np.float32),
        "index": np.arange(rows, dtype=np.int32),
    }
    forward = make_forward(model, model_inputs=models.mask_rcnn_inputs)
    score = inference.make_example_scores(forward, losses.instance())
    scores = jax.eval_shape(score, variables, batch)
    assert {x.shape for x in scores.values()} == {(rows,)}
    assert {"loss", "loss/mask", "gradient_norm"} <= scores.keys()
