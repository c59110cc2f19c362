"""Commands that are killed at random: nothing half-written, nothing lost, same end.

For each command: an undisturbed run is measured; then processes are killed, by any of
five ways, at a moment or when they have just written something. After each kill all
that has its final name must be whole and all that was there before untouched; now and
then, and in the end, the command is run again and must end as if nothing had been.
"""

import hashlib
import io
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import segjax
from segjax import cli, data, export, interop, model_file
from segjax.cli import scripts
from tests.cli.conftest import write_scenes
from tests.faults.conftest import lines, small_place
from tests.faults.killing import INT, WAYS, Command, contents
from tests.faults.tally import CASES, otherwise
from tests.faults.test_kills import bits, state_of

KILLS = max(3, CASES // 50)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(max(600, 60 * KILLS))]
STEPS = ("--steps", "6", "--batch-size", "4", "--width", "4")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images, a script, prepared data and a run; `env` of processes that use them."""
    folder = tmp_path_factory.mktemp("killed")
    with small_place(folder):
        args = ["train", str(folder / "scenes.py"), "--source", str(folder / "source")]
        with pytest.raises(SystemExit) as exit_:
            cli.main([*args, *STEPS, "--run", str(folder / "run")])
        assert not exit_.value.code
        yield folder


def kill_again_and_again(
    command, tally, kind, check, finish, *, resume=lambda: (), done=lambda: False
):
    """Kills a command `KILLS` times.

    Args:
        command: What to kill.
        tally: Counts kills.
        kind: Their name.
        check: Asserts what holds after a kill.
        finish: Asserts what holds after a run to the end, and puts everything back.
        resume: Flags that a run needs for what one before it has left.
        done: Whether the work was done when the signal came, and need not be repeated.
    """
    rng = np.random.default_rng(int.from_bytes(kind.encode()) % 2**32)
    for first in (True, False):  # The first one compiles.
        whole = command.run()
        assert whole.code == 0, whole.err
        finish(first=first)
    kills = 0
    while kills < KILLS:
        way = list(WAYS)[kills % len(WAYS)]
        ended = command.kill(way, rng, whole, *resume())
        if ended.alive:
            kills += 1
            tally.case(f"kill, {kind}")
            check_words(ended, way)
        check()
        if (was_done := done()) or kills == KILLS or rng.random() < 0.3:
            if not was_done:
                again = command.run(*resume())
                with otherwise("lost"):
                    assert again.code == 0, again.err
            check()
            finish(first=False)
        if ended.alive:
            tally.count("right")


def check_words(ended, way):
    """What a process that was killed says: nothing of Python's, and a true code."""
    signum = WAYS[way][0]
    with otherwise("traceback"):
        assert "Traceback" not in ended.err, ended.err
        assert "Exception ignored" not in ended.err, ended.err
    # It may have done its work when the signal came.
    assert ended.code in (0, -signum, 128 + signum), (way, ended)
    if ended.code == 128 + signum:
        said = [x for x in ended.err.splitlines() if not x.startswith("Preparing ")]
        orderly = f"stopped by {signum.name} at step "
        assert len(said) == 1, ended.err
        assert said[0].startswith(orderly) or (signum, said[0]) == (INT, "interrupted.")


def test_predict_is_killed(place, tmp_path, tally):
    images, run, out = place / "source/images", place / "run", tmp_path / "out"
    earlier = {f"{p.stem}.png": p.read_bytes() for p in sorted(images.iterdir())}
    earlier["notes.txt"] = b"mine"
    inputs = contents(images), contents(run)
    whole = {}

    def put_back():
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        for name, content in earlier.items():
            (out / name).write_bytes(content)

    def check():
        with otherwise("lost"):
            assert (contents(images), contents(run)) == inputs
            assert earlier.keys() <= contents(out).keys()
        for name, content in contents(out, but=(".tmp",)).items():
            with otherwise("half-written"):
                assert content in (earlier.get(name), whole[name])

    def finish(first):
        if first:
            whole.update(contents(out))
            assert len(whole) == 3 * len(inputs[0]) + 2  # Settings, notes.txt.
        assert contents(out) == whole
        put_back()

    put_back()
    command = Command(["predict", run, images, "--out", out], out, {})
    kill_again_and_again(command, tally, "predict", check, finish)


def test_preparing_is_killed(place, tmp_path, tally):
    source, root = place / "source", tmp_path / "prepared"
    shutil.copytree(place / "prepared", root)
    earlier = contents(root)
    other = write_scenes(tmp_path / "other", count=25)
    inputs = contents(source), contents(other)
    whole = {}

    def made():
        """The data sets besides the earlier one."""
        found = [p for p in (root / "folder").iterdir() if any(p.iterdir())]
        return [p for p in found if not (place / "prepared/folder" / p.name).exists()]

    def examples():
        found = data.folder(other, data_dir=root)
        return {
            f"{split} {i} {k}": np.asarray(x).tobytes() if k != "name" else x
            for split, examples in found.splits.items()
            for i, example in enumerate(examples)
            for k, x in example.items()
        }

    def check():
        with otherwise("lost"):
            assert (contents(source), contents(other)) == inputs
            assert earlier.items() <= contents(root).items()
        if made():
            with otherwise("half-written"):
                assert examples() == whole

    def finish(first):
        if first:
            whole.update(examples())
        (folder,) = made()
        assert examples() == whole
        shutil.rmtree(folder)

    args = ["data", "prepare", "folder", "--source", other]
    command = Command(args, root, {"SEGJAX_DATA_DIR": root})
    kill_again_and_again(command, tally, "data prepare", check, finish)
    assert command.run().code == 0  # Which sweeps what those that were killed left.
    assert not list(root.glob(".preparing-*"))


def test_export_is_killed(place, tmp_path, tally):
    run, out = place / "run", tmp_path / "out"
    inputs = contents(run)
    target, earlier = out / "scenes.segjax", tmp_path / "earlier"
    whole = {}

    def put_back():
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        (out / "notes.txt").write_text("mine")
        if earlier.exists():  # A file of another size, which is replaced.
            shutil.copy(earlier, target)

    def check():
        with otherwise("lost"):
            assert contents(run) == inputs
            assert (out / "notes.txt").read_text() == "mine"
        if earlier.exists():
            with otherwise("half-written"):
                made = target.read_bytes()
                assert made in (earlier.read_bytes(), whole["scenes.segjax"])

    def finish(first):
        if first:
            whole.update(contents(out))
            export.save(segjax.load(run), earlier, size=(8, 8))
        assert contents(out) == whole
        put_back()

    put_back()
    command = Command(["export", run, "--out", target], out, {})
    kill_again_and_again(command, tally, "export", check, finish)


def test_import_is_killed(tmp_path, tally):
    checkpoint, out = tmp_path / "resnet18.safetensors", tmp_path / "out"
    write_resnet18(checkpoint)
    digest = hashlib.sha256(checkpoint.read_bytes()).digest()
    whole = {}

    def read():
        return jax.tree.leaves(interop.load(out / "imported"))

    def check():
        with otherwise("lost"):
            assert hashlib.sha256(checkpoint.read_bytes()).digest() == digest
        if (out / "imported").exists():
            with otherwise("half-written"):
                jax.tree.map(np.testing.assert_array_equal, read(), whole["leaves"])

    def finish(first):
        if first:
            whole["leaves"] = read()
        check()
        assert [p.name for p in out.iterdir()] == ["imported"]
        shutil.rmtree(out)

    args = ["import", checkpoint, "--model", "resnet18", "--out", out / "imported"]
    command, done = Command(args, out, {}), (out / "imported").exists
    kill_again_and_again(command, tally, "import", check, finish, done=done)


def write_resnet18(path):
    """A checkpoint of random numbers, by torchvision's names."""
    import safetensors.numpy

    rng, tensors = np.random.default_rng(0), {}

    def add(name, *shape):
        tensors[name] = rng.normal(size=shape).astype(np.float32)

    def add_block(conv, norm, outputs, inputs, side):
        add(f"{conv}.weight", outputs, inputs, side, side)
        for leaf in ("weight", "bias", "running_mean"):
            add(f"{norm}.{leaf}", outputs)
        tensors[f"{norm}.running_var"] = np.ones(outputs, np.float32)

    add_block("conv1", "bn1", 64, 3, 7)
    for i, width in enumerate((64, 128, 256, 512)):
        before = max(64, width // 2)
        for j, inputs in enumerate((before, width)):
            name = f"layer{i + 1}.{j}"
            add_block(f"{name}.conv1", f"{name}.bn1", width, inputs, 3)
            add_block(f"{name}.conv2", f"{name}.bn2", width, width, 3)
        if i:
            name = f"layer{i + 1}.0.downsample"
            add_block(f"{name}.0", f"{name}.1", width, before, 1)
    safetensors.numpy.save_file(tensors, path)


@pytest.mark.parametrize("subcommand", ["train", "seeds"])
def test_training_is_killed(subcommand, place, tmp_path, tally):
    run, whole = tmp_path / "run", tmp_path / "whole"
    inputs = contents(place / "source"), contents(place / "prepared")
    flags = [] if subcommand == "train" else ["--seeds", "0", "1"]
    folders = [""] if subcommand == "train" else ["seed-0", "seed-1"]
    build = scripts.load(place / "scenes.py")
    sizes = {"steps": 6, "batch_size": 4, "width": 4}
    experiment = build(source=place / "source", **sizes)

    def check():
        with otherwise("lost"):
            assert (contents(place / "source"), contents(place / "prepared")) == inputs
        with otherwise("half-written"):
            for path in sorted(run.rglob("*")):
                check_whole(path)

    def finish(first):
        if first:
            run.rename(whole)
        else:
            check_same_end([(run / x, whole / x) for x in folders], experiment)
            shutil.rmtree(run)

    def resume():
        began = [(run / x / "run.json").exists() for x in folders]
        return ["--resume"] if any(began) else []

    args = [
        subcommand,
        place / "scenes.py",
        "--source",
        place / "source",
        *STEPS,
        *flags,
    ]
    command = Command([*args, "--run", run], run, {})
    kill_again_and_again(command, tally, subcommand, check, finish, resume=resume)


def check_whole(path):
    """Of a file of a run folder that has its final name."""
    if path.name == "model.json":
        model_file.read(path.parent)
    elif path.suffix == ".json":
        assert isinstance(json.loads(path.read_text()), dict)
    elif path.suffix == ".png":
        Image.open(io.BytesIO(path.read_bytes())).load()
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>")
    elif path.name == "experiment.py":
        assert path.read_text().rstrip().endswith("cli.run(experiment)")
    elif path.parent.name == "checkpoints" and path.name.isdecimal():
        check_digests(path)


def check_digests(checkpoint):
    """Of a checkpoint, by its own record of them."""
    record = json.loads((checkpoint / "checksums.json").read_text())
    found = {
        str(p.relative_to(checkpoint)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in checkpoint.rglob("*")
        if p.is_file() and p.name != "checksums.json"
    }
    text = json.dumps(record)
    assert all(name in text and digest in text for name, digest in found.items())


def check_same_end(pairs, experiment):
    for run, whole in pairs:
        one, two = (json.loads((r / "result.json").read_text()) for r in (run, whole))
        assert one | {"seconds": 0} == two | {"seconds": 0}
        assert lines(run) == lines(whole)
        for pattern in ("model.json", "variables-*", "samples/*", "experiment.py"):
            files = [
                {p.name: p.read_bytes() for p in r.glob(pattern)} for r in (run, whole)
            ]
            assert files[0] == files[1]
        a, b = (jax.tree.leaves(state_of(r, 6, experiment)) for r in (run, whole))
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(bits(x), bits(y))
        names = [{p.name for p in r.iterdir()} for r in (run, whole)]
        assert names[0] == names[1]
