import contextlib
import itertools
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import PIL.Image
import pytest

from segjax.data import folder, staging
from segjax.data.dataset import Dataset
from segjax.data.pipeline import Pipeline
from segjax.data.reading import ReaderDiedError


def example(number):
    image = np.full((6, 6, 3), number, np.uint8)
    image[..., 1:] = np.mgrid[:6, :6].transpose(1, 2, 0)
    return {"image": image, "label": image[..., 1] % 3, "name": f"e{number}"}


class Broken(list):
    """Examples, some of which cannot be read, for different reasons."""

    bad = ()

    def __getitem__(self, number):
        if number not in self.bad:
            return super().__getitem__(number)
        if number % 2:
            raise RuntimeError(f"hash mismatch in\nchunk {number}")
        return super().__getitem__(number) | {"label": np.zeros((5, 6), np.uint8)}


def pipeline(bad=(), count=10, kind=Broken, **options):
    examples = kind(example(i) for i in range(count))
    data = Dataset("fake", ("a", "b", "c"), {"train": examples}, "f")
    examples.bad = bad
    return Pipeline(**{"dataset": data, "size": 4} | options)


def take(pipe, count, **options):
    options = {"batch_size": 4, "seed": 1} | options
    with contextlib.closing(pipe.train_batches(**options)) as stream:
        return list(itertools.islice(stream, count))


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for name in x:
            assert x[name].dtype == y[name].dtype
            np.testing.assert_array_equal(x[name], y[name], err_msg=name)


def without(batches, bad):
    """The batches that are expected if some records are broken."""
    for batch in batches:
        rows = np.isin(batch["image"][:, 0, 0, 0], bad)
        for name, value in {"image": 0, "label": 255, "weight": 0}.items():
            batch[name] = batch[name].copy()
            batch[name][rows] = value
    return batches


BAD = (4, 7)


@pytest.fixture(scope="module")
def expected():
    return without(take(pipeline(), 9), BAD)


def test_by_default_an_unreadable_record_is_an_error():
    with pytest.raises(ValueError, match="--skip-corrupt N") as error:
        take(pipeline([7]), 9)
    message = str(error.value)
    assert message.startswith(
        "record 7 of 'train' cannot be read: hash mismatch in chunk 7. "
    )
    assert "\n" not in message


def test_a_wrong_shape_is_named_with_its_name():
    with pytest.raises(
        ValueError,
        match=r"record 4 of 'train' .*: e4 needs .*\(6, 6, 3\) and label \(5, 6\)",
    ):
        take(pipeline([4]), 9)


def test_broken_rows_become_padding(expected, capsys):
    pipe = pipeline(BAD, skip_corrupt=2)
    batches = take(pipe, 9)
    assert_same(batches, expected)
    skipped = np.concatenate([b["weight"] for b in batches]) == 0
    assert skipped[:30].sum() == 6  # Two records in each of three epochs.
    # Each once, for any number of epochs.
    assert sorted(e.number for e in pipe.skipped) == [4, 7]
    lines = capsys.readouterr().err.splitlines()
    assert sorted(
        re.findall(r"^skipped: record (\d) of 'train'", "\n".join(lines), re.M)
    )
    assert len(lines) == 2
    assert "hash mismatch in chunk 7" in "".join(lines)
    assert "(2 of 2 allowed)" in lines[1]


@pytest.mark.parametrize("first_batch", [1, 2, 5])
def test_resume_skips_the_same_records(expected, first_batch):
    rest = take(pipeline(BAD, skip_corrupt=2), 9 - first_batch, first_batch=first_batch)
    assert_same(rest, expected[first_batch:])


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_skip_the_same_records(expected, rank):
    mine = take(pipeline(BAD, skip_corrupt=2), 9, process_index=rank, process_count=2)
    half = len(expected[0]["weight"]) // 2
    rows = slice(rank * half, (rank + 1) * half)
    assert_same(mine, [{k: x[rows] for k, x in b.items()} for b in expected])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_skip_the_same_records(expected, workers):
    pipe = pipeline(BAD, skip_corrupt=2, num_workers=workers)
    assert_same(take(pipe, 8, first_batch=1), expected[1:])
    assert sorted(e.number for e in pipe.skipped) == [4, 7]
    assert all("\n" not in e.reason for e in pipe.skipped)


def test_too_many_unreadable_records_are_an_error():
    pipe = pipeline((1, 3, 5), skip_corrupt=2)
    with pytest.raises(ValueError, match=r"^3 records of 'train' .* allows 2") as error:
        take(pipe, 9)
    assert sorted(re.findall(r"[135](?=[,;])", str(error.value))) == ["1", "3", "5"]


def test_a_size_is_found_where_the_first_record_is_broken():
    pipe = pipeline((0, 1), skip_corrupt=2, size=None)
    (batch,) = take(pipe, 1)
    assert batch["image"].shape == (4, 6, 6, 3)
    with pytest.raises(ValueError, match="record 0 of 'train'"):
        take(pipeline((0,), size=None), 1)
    with pytest.raises(ValueError, match="no record of 'train' can be read"):
        take(pipeline(range(10), skip_corrupt=10), 1)


def test_evaluation_skips_no_record():
    pipe = pipeline([7], skip_corrupt=5)
    with pytest.raises(ValueError, match=r"record 7 of 'train' .* chunk 7") as error:
        list(pipe.eval_batches("train", batch_size=4))
    assert "--skip-corrupt" not in str(error.value)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    for kind, shape in (("images", (16, 12, 3)), ("masks", (16, 12))):
        (root / "source" / kind).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 3, shape).astype(np.uint8)
            PIL.Image.fromarray(pixels).save(root / "source" / kind / f"im{i}.png")
    return folder(root / "source", validation=0.0, test=0.0, data_dir=root / "data")


@contextlib.contextmanager
def damaged(data, at, new):
    """Overwrites bytes of the file in which the training split is stored."""
    directory = pathlib.Path(data.splits["train"]._directory)
    (path,) = directory.glob("*-train.array_record*")
    whole = path.read_bytes()
    place = at(whole)
    pipe = Pipeline(dataset=folder_again(data), skip_corrupt=1)
    path.write_bytes(whole[:place] + new + whole[place + len(new) :])
    try:
        yield pipe
    finally:
        path.write_bytes(whole)


def folder_again(data):
    from segjax.data.records import Examples

    old = data.splits["train"]
    new = Examples(old._directory, old._split)
    made = Dataset(data.name, data.classes, {"train": new}, data.fingerprint)
    new._source = None  # Opened by type checks.
    return made


def test_a_flipped_byte_in_a_prepared_file(prepared):
    with damaged(prepared, lambda whole: whole.index(b"im3") - 40, b"?!?") as pipe:
        batches = take(pipe, 2)
        (left,) = pipe.skipped
        assert left.number == 3
        assert "hash mismatch" in left.reason
        assert sum(b["weight"].sum() for b in batches) == 7
        with pytest.raises(ValueError, match="record 3 of 'train' cannot be read"):
            list(pipe.eval_batches("train", batch_size=4))


def test_an_undecodable_image_is_named(prepared, monkeypatch):
    from segjax.data.records import Examples

    stored = Examples._stored

    def half(self, index):
        found = stored(self, index)
        png = found["image"]
        return found | {"image": png[: len(png) // 2]} if index == 5 else found

    monkeypatch.setattr(Examples, "_stored", half)
    with pytest.raises(
        ValueError, match=r"record 5 of 'train'.*: im5: the PNG file of its image"
    ):
        take(Pipeline(dataset=prepared), 2)
    # The header is intact, so only decoding fails.
    with pytest.raises(ValueError, match="record 5 of 'train'"):
        list(Pipeline(dataset=prepared).eval_batches("train", batch_size=4))


def test_sizes_come_from_headers_alone(prepared, monkeypatch):
    monkeypatch.setattr("segjax.data.builders.packing.unpack", None)
    examples = prepared.splits["train"]
    assert [examples.image_size(i) for i in range(8)] == [(16, 12)] * 8


class Slow(Broken):
    def __getitem__(self, number):
        if number in self.bad:
            time.sleep(1)
        return list.__getitem__(self, number)


def test_a_slow_source_causes_warnings(capsys):
    pipe = pipeline([3], kind=Slow, slow_after=0.1, cache_bytes=0)
    batches = take(pipe, 4)
    assert_same(batches, take(pipeline(), 4))
    lines = capsys.readouterr().err.splitlines()
    warnings = [
        re.fullmatch(
            r"waiting for data: batch (\d) \(records ([\d, ]+) of 'train'\) did not "
            r"arrive in ([\d.]+) s; still waiting\.",
            line,
        )
        for line in lines
    ]
    assert all(warnings)
    rows = {m[1]: m[2].split(", ") for m in warnings}
    for place, numbers in rows.items():  # The announced batches are those that arrived.
        seen = batches[int(place)]["image"][:, 0, 0, 0]
        assert [int(n) for n in numbers] == seen.tolist()
    assert any("3" in numbers for numbers in rows.values())
    waited = [float(m[3]) for m in warnings if "3" in m[2].split(", ")][:3]
    assert len(waited) == 3  # 0.1, 0.2 and 0.4 s, of 1 s.
    assert waited[1] >= 0.2
    assert waited[2] >= 0.4


def test_a_fast_source_causes_no_warning(capsys):
    take(pipeline(), 9)
    assert not capsys.readouterr().err


class Stuck(Broken):
    """In a reader process, waits at one record the first time, to be killed."""

    home, pid_file = None, None

    def __getitem__(self, number):
        if os.getpid() != self.home and number in self.bad:
            with contextlib.suppress(FileExistsError):
                with open(self.pid_file, "x") as file:
                    file.write(str(os.getpid()))
                time.sleep(600)
        return list.__getitem__(self, number)


def kill_when_started(pid_file):
    for _ in range(1200):
        if pid_file.exists() and pid_file.read_text():
            os.kill(int(pid_file.read_text()), signal.SIGKILL)
            return
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_reader_is_reported_with_its_records(tmp_path, workers):
    pipe = pipeline(BAD[:1], kind=Stuck, num_workers=workers)
    examples = pipe.dataset.splits["train"]
    examples.home, examples.pid_file = os.getpid(), tmp_path / "pid"
    whole = take(pipeline(), 30)
    numbers = [b["image"][:, 0, 0, 0].tolist() for b in whole]
    assert BAD[0] not in numbers[0]
    killer = threading.Thread(target=kill_when_started, args=(examples.pid_file,))
    killer.start()
    with contextlib.closing(pipe.train_batches(batch_size=4, seed=1)) as stream:
        with pytest.raises(ReaderDiedError, match=r"exit code -9") as error:
            list(itertools.islice(stream, 30))
    killer.join()
    message = str(error.value)
    hit = int(re.search(r"batch (\d+)", message)[1])
    assert BAD[0] in numbers[hit]  # Readers prefetch, so it may be a later one.
    shown = ", ".join(map(str, numbers[hit]))
    assert f"batch {hit} (records {shown} of 'train')" in message
    assert "Use fewer workers, or num_workers=0" in message


MAKER = f"""
import importlib.util, pathlib, sys, time
spec = importlib.util.spec_from_file_location("staging", {staging.__file__!r})
staging = importlib.util.module_from_spec(spec)
spec.loader.exec_module(staging)  # Without importing segjax.data, which is slow.
with staging.folder(pathlib.Path(sys.argv[1])) as made:
    (made / "half").write_text("half")
    print(made, flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def maker(root):
    command = [sys.executable, "-c", MAKER, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, pathlib.Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_what_a_killed_preparation_left_is_removed(tmp_path):
    with maker(tmp_path) as (killed, left):
        assert (left / "half").exists()
        killed.kill()
    with maker(tmp_path) as (_, held):
        assert not left.exists()
        with staging.folder(tmp_path) as mine:
            assert {p.name for p in tmp_path.iterdir()} == {held.name, mine.name}
        assert [p.name for p in tmp_path.iterdir()] == [held.name]
    other = tmp_path / "camvid"
    other.mkdir()
    with staging.folder(tmp_path) as mine:
        assert {p.name for p in tmp_path.iterdir()} == {mine.name, "camvid"}


def test_a_dead_reader_is_one_line_on_the_command_line(capsys):
    from segjax.cli.errors import exit_code

    def work():
        raise ReaderDiedError("a reader process died while ...")

    assert exit_code(work) == 2
    assert capsys.readouterr().err == "error: a reader process died while ...\n"
