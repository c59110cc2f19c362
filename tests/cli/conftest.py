"""A small experiment script, a run of it, and the command in this process."""

import pathlib
import types

import pytest
from PIL import Image

from segjax import cli
from tests.scenes import examples

SCRIPT = '''"""Scenes: squares and bars."""

import pathlib

import optax

from segjax import cli, data, losses, metrics, models, train


def experiment(
    *,
    source: pathlib.Path,
    steps: int = 30,
    batch_size: int = 8,
    learning_rate: float = 3e-2,
    width: int = 16,
    seed: int = 0,
) -> train.Experiment:
    """Builds the run.

    Args:
        source: Folder with images/ and masks/.
        steps: Optimizer updates in total.
        batch_size: Images per update.
        learning_rate: Of Adam.
        width: Channels of the hidden layer.
        seed: Seeds everything.
    """
    scenes = data.folder(source)
    return train.Experiment(
        config=train.TrainConfig(
            steps=steps, batch_size=batch_size, seed=seed, log_every=5, samples=2
        ),
        data=data.Pipeline(dataset=scenes, size=16),
        model=models.SimpleCNN(num_classes=len(scenes.classes), width=width),
        objective=losses.semantic(ce=(1.0, losses.cross_entropy)),
        optimizer=optax.adam(learning_rate),
        metric=metrics.semantic(scenes.classes),
    )


if __name__ == "__main__":
    cli.run(experiment)
'''


def write_scenes(folder, count=30):
    """Writes scenes as a user's folder: images/, masks/ and classes.txt."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for i, example in enumerate(examples(count)):
        Image.fromarray(example["image"]).save(folder / f"images/{i:02d}.png")
        Image.fromarray(example["label"]).save(folder / f"masks/{i:02d}.png")
    (folder / "classes.txt").write_text("background\nsquare\nbar\n")
    return folder


@pytest.fixture(scope="session")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("scripts") / "scenes.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("source") / "scenes")


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A folder of prepared data, separate from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("prepared")
        patch.setenv("SEGJAX_DATA_DIR", str(folder))
        yield folder


@pytest.fixture
def segjax(capfd, data_dir):
    """Runs the command; returns exit code, standard output and standard error."""

    def call(*args) -> types.SimpleNamespace:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(a) for a in args])
        out, err = capfd.readouterr()
        return types.SimpleNamespace(code=exit_.value.code or 0, out=out, err=err)

    return call


@pytest.fixture(scope="session")
def run(tmp_path_factory, script, source, data_dir) -> pathlib.Path:
    """A finished run, made by the command line."""
    folder = tmp_path_factory.mktemp("runs") / "scenes"
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", str(script), "--source", str(source), "--run", str(folder)])
    assert not exit_.value.code
    return folder


def expect_one_error_line(result, *words, code=2):
    """Asserts the exit code and that the only line has these words."""
    assert result.code == code, result
    lines = [
        line
        for line in result.err.strip().splitlines()
        # Lines about progress and executed scripts.
        if not line.startswith(("Preparing ", "Importing ", "note: executing "))
    ]
    assert len(lines) == 1, result.err
    assert lines[0].startswith("error: ")
    for word in words:
        assert str(word) in lines[0], (word, lines[0])
