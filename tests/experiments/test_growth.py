import pathlib

import pytest
from rich.console import Console

BENCHMARKS = pathlib.Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.fixture
def growth(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import growth

    return growth


@pytest.fixture
def work(growth):
    import growth_work

    return growth_work


def test_slope_is_of_the_last_two_doublings(growth):
    assert growth.slope([1, 2, 4, 8], [9, 2, 8, 32]) == pytest.approx(2)
    # By hand: a fall and a rise by 2 cancel; the middle has no weight.
    assert growth.slope([1, 2, 4], [2, 1, 2]) == pytest.approx(0)


def test_growth_that_is_not_due_is_marked(growth, work):
    def make(value):
        return work.Point(lambda: None, value**2)

    axis = work.Axis("a loss", "classes", 9, 1, (2, 4, 8), make)
    found = growth.measure(axis, rounds=2, seconds=0.0)
    assert found["bytes"] == [4, 16, 64]
    memory = found["exponents"]["memory"]
    assert memory == {"expected": 1, "measured": pytest.approx(2), "worse": True}
    assert not found["exponents"]["time"]["worse"]  # 9 would be due.
    assert [len(times) for times in found["times"]] == [2, 2, 2]
    console = Console(record=True, width=120)
    growth.show([found], console)
    text = console.export_text()
    assert "! 2.00, 1" in text
    assert "a loss" in text


def test_each_axis_doubles_one_quantity(growth, work):
    for small in (growth.CPU, growth.GPU):
        found = list(work.axes(small))
        assert {axis.over for axis in found} == {
            "image side",
            "batch",
            "width",
            "classes",
            "objects",
            "regions",
        }
        assert len({(axis.what, axis.over) for axis in found}) == len(found)
        for axis in found:
            assert len(axis.values) >= growth.FITTED + 1
            ratios = {b / a for a, b in zip(axis.values, axis.values[1:], strict=False)}
            assert ratios == {2}


def test_memory_of_a_loss_is_linear_in_pixels(work):
    axis = next(a for a in work.axes(work.Small(size=16)) if "soft_dice" in a.what)
    few, many = (axis.make(size) for size in axis.values[:2])
    few.run()
    assert many.bytes == pytest.approx(4 * few.bytes, rel=0.05)


@pytest.mark.slow
def test_objects_are_measured_on_the_host(work):
    small = work.Small(size=16, batch=1, objects=2)
    point = work.detection_metric(small)
    point.run()
    assert point.bytes > 32 * 32  # A mask at least.
