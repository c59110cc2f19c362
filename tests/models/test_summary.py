from segjax import models
from segjax.models import layers


def test_simple_cnn_by_hand():
    summary = models.summarize(models.SimpleCNN(num_classes=2), (1, 8, 8, 3))
    # Of 3 * 8 taps along each side, 2 fall on padding: 22**2 products per filter.
    products = 22**2 * (3 * 16 + 16 * 2)
    biases_and_relu = 64 * (16 + 16 + 2)
    assert summary.flops == 2 * products + biases_and_relu
    assert summary.parameters == 738
    assert summary.by_module == {"conv": 448, "head": 290}
    assert summary.state == 0


def test_running_averages_are_state():
    model = models.UNet(2, widths=(4, 8), norm=layers.batch_norm)
    summary = models.summarize(model, (1, 8, 8, 3))
    # A mean and a variance for each channel of two convolutions a block.
    assert summary.state == 2 * 2 * (4 + 8 + 4)
    assert sum(summary.by_module.values()) == summary.parameters


def test_text():
    text = str(models.summarize(models.SimpleCNN(num_classes=2), (1, 8, 8, 3)))
    assert "738" in text
    assert "0.1 MFLOPs forward, image 1x8x8x3" in text
    assert "\x1b" not in text


def test_paper_sized_models_need_no_memory():
    summary = models.summarize(models.FCN(num_classes=21), (1, 500, 500, 3))
    # VGG-16's convolutions at 512x512, by the layer list of the paper.
    pixels, inputs, flops = 512 * 512, 3, 0
    for width, convs in zip((64, 128, 256, 512, 512), (2, 2, 3, 3, 3), strict=True):
        for _ in range(convs):
            flops += 2 * 9 * pixels * inputs * width
            inputs = width
        pixels //= 4
    flops += 2 * pixels * 4096 * (49 * 512 + 4096 + 21)
    # The program omits products with padding, and adds biases.
    assert 0.85 * flops < summary.flops < 1.05 * flops
