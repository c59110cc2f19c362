import html.parser

import numpy as np
import pytest

from segjax import viz

PALETTE = viz.palette(3)
CLASSES = ("background", "square", "bar")


def card(number=0, size=(16, 16)):
    image = np.full((*size, 3), 100, np.uint8)
    truth, prediction = np.zeros(size, int), np.zeros(size, int)
    truth[4:12, 4:12] = 1
    prediction[4:12, 4:12] = 2
    picture = viz.panels(
        image, truth, prediction, palette=PALETTE, valid=np.ones(size, bool)
    )
    return viz.Card(title=f"{number}. <scene>", note="loss 1.5", picture=picture)


def test_panels_show_the_image_the_truth_and_the_prediction():
    picture = card().picture
    assert picture.shape[0] == 128
    left, middle, right = (picture[:, x : x + 128] for x in (0, 132, 264))
    assert (left == 100).all()
    for panel, class_id in ((middle, 1), (right, 2)):
        np.testing.assert_array_equal(panel[32, 64], PALETTE[class_id])  # Outline.
        mixed = np.round(0.55 * 100 + 0.45 * PALETTE[class_id].astype(float))
        np.testing.assert_allclose(panel[64, 64], mixed, atol=1)
        np.testing.assert_array_equal(panel[8, 8], [100, 100, 100])


@pytest.mark.parametrize(
    ("size", "height", "width"),
    [
        ((16, 16), 128, 128),
        ((360, 480), 192, 256),
        ((8, 200), 8, 200),
        ((1, 1), 128, 128),
    ],
)
def test_panels_of_any_size(size, height, width):
    picture = card(size=size).picture
    assert picture.shape == (height, 3 * width + 8, 3)


def test_ignored_pixels_are_not_tinted():
    image = np.full((128, 128, 3), 100, np.uint8)
    label = np.ones((128, 128), int)
    valid = np.zeros((128, 128), bool)
    picture = viz.panels(image, label, label * 0, palette=PALETTE, valid=valid)
    assert (picture[:, 132:260] == 100).all()


def test_sheet_holds_every_card_in_rows_of_three():
    cards = [card(i, (16, 16 + 4 * (i % 2))) for i in range(7)]
    sheet = viz.inspection_sheet(cards, CLASSES, palette=PALETTE)
    few = viz.inspection_sheet(cards[:3], CLASSES, palette=PALETTE)
    assert sheet.shape[1] == few.shape[1]
    one_row = few.shape[0] - 26 - 28  # Without legend and margins.
    assert sheet.shape[0] == 3 * one_row + 26 + 28
    with pytest.raises(ValueError, match="at least one card"):
        viz.inspection_sheet([], CLASSES, palette=PALETTE)


class _Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.sources, self.text, self.open = [], "", []

    def handle_starttag(self, tag, attrs):
        self.sources += [v for k, v in attrs if k in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_page_is_whole_offline_and_escaped(tmp_path):
    path = tmp_path / "page.html"
    viz.write_inspection(
        path,
        [card(i) for i in range(5)],
        CLASSES,
        palette=PALETTE,
        title="run & split",
        facts=[("shown", "5 of 30")],
    )
    page = _Page()
    page.feed(path.read_text())
    assert not page.open
    assert len(page.sources) == 5
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    for words in ("run & split", "4. <scene>", "loss 1.5", "5 of 30", "bar"):
        assert words in page.text
