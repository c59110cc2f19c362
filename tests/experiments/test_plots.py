import json
import pathlib

import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
BENCHMARKS = ROOT / "experiments" / "benchmarks"
RESULTS = BENCHMARKS / "results"


@pytest.fixture
def plots(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import plots

    return plots


def panel(expected: float, measured: float, worse: bool, over: str) -> dict:
    exponent = {"expected": expected, "measured": measured, "worse": worse}
    fine = {"expected": 1, "measured": 1.0, "worse": False}
    return {
        "what": "a loss",
        "over": over,
        "values": [1, 2, 4, 8],
        "seconds": [1.0, 2.0, 4.0, 12.0],
        "bytes": [5, 10, 20, 40],
        "exponents": {"time": exponent, "memory": fine},
        "points_of_the_exponents": 3,
    }


def test_every_system_and_network_has_its_bar(plots):
    machines = plots.load(RESULTS, "throughput")
    panels = plots.speed(machines).axes
    assert len(panels) == len(machines)
    for axes, found in zip(panels, machines.values(), strict=True):
        results = found["results"]
        due = sorted(
            one["images_a_second"] / r["systems"]["torch"]["images_a_second"]
            for r in results
            for one in r["systems"].values()
        )
        bars = sorted(bar.get_width() for bars in axes.containers for bar in bars)
        assert bars == pytest.approx(due)
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert len(set(labels)) == len(results)
        assert found["date"] in axes.get_title("left")
        assert axes.get_xlim()[1] > max(due)  # No bar is cut off.


def test_systems_and_networks_without_a_name_are_drawn_too(plots):
    task = {"network": "new", "mode": "other", "batch": 1, "size": 8, "dtype": "int8"}
    systems = {"torch": {"images_a_second": 4.0}, "rival": {"images_a_second": 8.0}}
    found = {
        "date": "2026-01-01",
        "devices": ["cuda:0 A GPU", "cuda:1 A GPU"],
        "versions": {"jax": "1"},
        "results": [{"task": task, "systems": systems}],
    }
    (axes,) = plots.speed({"2-a-gpu": found}).axes
    widths = {bars.get_label(): bars[0].get_width() for bars in axes.containers}
    assert widths == {"PyTorch, channels last": 1.0, "rival": 2.0}
    assert axes.get_yticklabels()[0].get_text().startswith("new, other")
    assert axes.get_title("left").startswith("2 x A GPU")


def test_growth_marks_what_is_more_than_due(plots):
    found = {
        "date": "2026-01-01",
        "devices": ["cpu:0 cpu"],
        "cores": 2,
        "cpu": "A CPU",
        "versions": {"jax": "1"},
        "results": [panel(1, 1.29, False, "batch"), panel(1, 1.31, True, "width")],
    }
    one, other, *rest = plots.growth(found).axes
    assert other._left_title.get_color() == plots.panels.VERMILLION
    assert one._left_title.get_color() == plots.panels.INK
    assert not any(axes.axison for axes in rest)
    time, due, memory, _ = one.lines
    assert time.get_ydata().tolist() == [1, 2, 4, 12]
    assert list(due.get_ydata()) == [2, 8]
    assert memory.get_ydata().tolist() == [1, 2, 4, 8]


def test_nothing_measured_is_one_line(plots, tmp_path):
    with pytest.raises(SystemExit) as ended:
        plots.main(results=tmp_path, out=tmp_path)
    assert str(ended.value).startswith("error: plots need throughput-MACHINE.json")
    assert "throughput.py first" in str(ended.value)
    assert "\n" not in str(ended.value)


def test_pictures_are_drawn_from_the_committed_results(plots):
    pictures = {"speed.png": plots.load(RESULTS, "throughput")}
    for machine, found in plots.load(RESULTS, "growth").items():
        pictures[f"growth-{machine}.png"] = found
    for name, found in pictures.items():
        with Image.open(ROOT / "docs" / name) as picture:
            source = picture.text["Source"]
        assert source == plots.digest(found), f"{name}: run plots.py"
        assert (ROOT / "docs" / name).stat().st_size < 150_000
    assert "(speed.png)" in (ROOT / "docs/speed.md").read_text(encoding="utf-8")


def test_command_writes_pictures(plots, tmp_path):
    text = (RESULTS / "throughput-cpu-2-cores.json").read_text(encoding="utf-8")
    found = json.loads(text)
    (tmp_path / "throughput-here.json").write_text(text, encoding="utf-8")
    found["results"] = [panel(2, 2.0, False, "image side")]
    (tmp_path / "growth-here.json").write_text(json.dumps(found), encoding="utf-8")
    plots.main(results=tmp_path, out=tmp_path)
    for name in ("speed.png", "growth-here.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
