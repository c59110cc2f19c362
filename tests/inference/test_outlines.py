"""Run lengths, polygons and measurements, against pycocotools and scikit-image."""

import itertools

import numpy as np
import pycocotools.mask
import pytest
import skimage.draw
import skimage.measure

from segjax.inference import measure, outlines
from segjax.inference import objects as objects_lib


def random_masks():
    rng = np.random.default_rng(0)
    for size in ((1, 1), (1, 7), (6, 1), (9, 12), (30, 20)):
        for density in (0.1, 0.5, 0.9, 1.0):
            yield rng.random(size) < density
    yield np.zeros((4, 5), bool)


def cropped(mask):
    found = objects_lib.from_masks(mask[None])
    return found.masks[0], found.corners[0]


def test_run_lengths_equal_pycocotools():
    for mask in random_masks():
        want = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        got = outlines.run_lengths(*cropped(mask), mask.shape)
        assert got == want["counts"].decode()


def even_odd(rings, height, width):
    """Rasterizes rings by counting crossings left of each pixel's center."""
    crossings = np.zeros((height, width), int)
    for ring in rings:
        for (x0, y0), (x1, y1) in itertools.pairwise(ring):
            if x0 == x1:
                crossings[min(y0, y1) : max(y0, y1), x0:] += 1
    return crossings % 2 == 1


def area(ring):
    x, y = np.array(ring).T
    return np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2


def test_polygons_cover_exactly_the_mask():
    for mask in random_masks():
        made = outlines.polygons(*cropped(mask))
        assert len(made) == skimage.measure.label(mask, connectivity=1).max()
        rings = [ring for polygon in made for ring in polygon]
        np.testing.assert_array_equal(even_odd(rings, *mask.shape), mask)
        assert sum(map(area, rings)) == mask.sum()
        for outer, *holes in made:
            assert area(outer) > 0
            assert all(area(hole) < 0 for hole in holes)
        for ring in rings:
            assert ring[0] == ring[-1]
            turns = np.diff(np.sign(np.diff(ring, axis=0)), axis=0)
            assert (turns != 0).any(1).all()  # Only corners.


def test_a_hole_belongs_to_its_polygon():
    mask = np.zeros((7, 12), bool)
    mask[1:6, 1:6] = True
    mask[3, 3] = False
    mask[2:4, 8:10] = True
    ring, other = outlines.polygons(*cropped(mask))
    assert len(ring) == 2
    assert sorted(map(tuple, ring[1][:-1])) == [(3, 3), (3, 4), (4, 3), (4, 4)]
    assert sorted(map(tuple, other[0][:-1])) == [(8, 2), (8, 4), (10, 2), (10, 4)]


def test_perimeters_equal_scikit_image():
    disk = np.zeros((40, 40), bool)
    disk[skimage.draw.disk((20, 20), 14)] = True
    for mask in (disk, *random_masks()):
        want = skimage.measure.perimeter(mask)
        assert measure.perimeter(mask) == pytest.approx(want)


def test_measurements_equal_scikit_image():
    rng = np.random.default_rng(0)
    ids = skimage.measure.label(rng.random((20, 30)) < 0.6, connectivity=1)
    image = rng.integers(0, 255, (20, 30, 2)).astype(np.uint8)
    found = objects_lib.from_ids(ids)
    rows = measure.annotations(found, image=image)
    wanted = skimage.measure.regionprops(ids, image)
    for row, want in zip(rows, wanted, strict=True):
        assert row["area"] == want.area
        y0, x0, y1, x1 = want.bbox
        assert row["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        center = [want.centroid[1] + 0.5, want.centroid[0] + 0.5]
        np.testing.assert_allclose(row["centroid"], center, atol=1e-3)
        np.testing.assert_allclose(
            row["mean_intensity"], want.intensity_mean, atol=1e-3
        )
        decoded = pycocotools.mask.decode(
            {"size": [20, 30], "counts": row["segmentation"]["counts"].encode()}
        )
        np.testing.assert_array_equal(decoded, ids == row["id"])


def test_geojson_and_table():
    ids = np.zeros((8, 9), int)
    ids[1:3, 2:5] = 1
    ids[5, 5] = ids[6, 6] = 2
    found = objects_lib.from_ids(ids, classes={1: 1, 2: 2})
    rows = measure.annotations(found, image=np.full((8, 9, 1), 7, np.uint8))
    made = measure.geojson(found, rows, ("a", "b", "c"))
    one, two = made["features"]
    assert one["geometry"]["type"] == "Polygon"
    corners = [[2, 1], [5, 1], [5, 3], [2, 3]]
    assert sorted(one["geometry"]["coordinates"][0][:-1]) == sorted(corners)
    assert two["geometry"]["type"] == "MultiPolygon"
    assert one["properties"] == {"class": "b", "score": 1.0, "area": 6}
    image = {"id": 1, "file_name": "x.png", "height": 8, "width": 9}
    dataset = measure.coco([image], rows, ("a", "b", "c"))
    header, lines = measure.table(dataset, channels=1)
    assert dict(zip(header, lines[0], strict=True)) == {
        **{"image": "x.png", "object": 1, "class": "b", "score": 1.0, "area": 6},
        **{"centroid_x": 3.5, "centroid_y": 2.0, "x0": 2, "y0": 1, "x1": 5, "y1": 3},
        **{"perimeter": rows[0]["perimeter"], "mean_intensity": 7.0},
    }


def test_objects_without_pixels():
    found = objects_lib.from_masks(np.zeros((1, 4, 5), bool))
    rows = measure.annotations(found, image=np.zeros((4, 5, 3), np.uint8))
    assert rows[0]["area"] == 0
    assert measure.geojson(found, rows, ("a", "b"))["features"] == []
    image = {"id": 1, "file_name": "x.png", "height": 4, "width": 5}
    header, (line,) = measure.table(measure.coco([image], rows, ("a", "b")), channels=3)
    assert len(header) == len(line)
