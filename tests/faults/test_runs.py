"""Damaged run folders: a right result, or one line; nothing lost, no traceback.

Cases are drawn from a seed. A test takes a share of `SEGJAX_FAULTS` of them, few unless
set; `make test-faults` takes 2,000.
"""

import contextlib
import json
import os
import random
import re
import shutil

import pytest

from segjax import cli
from tests.faults.conftest import small_place
from tests.faults.tally import CASES, otherwise

STEPS = 6
pytestmark = pytest.mark.timeout(max(600, 5 * CASES))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A finished run of one seed and one of two, whose best step is their last."""
    folder = tmp_path_factory.mktemp("runs")
    with small_place(folder):
        flags = [folder / "scenes.py", "--source", folder / "source"]
        flags += ["--steps", STEPS, "--batch-size", 4, "--width", 4]
        for subcommand, more in (("train", []), ("seeds", ["--seeds", 0, 1])):
            assert call(subcommand, *flags, *more, "--run", folder / subcommand) == 0
        for split in ("best", "last"):
            run = folder / "train"
            assert call("evaluate", run, "--checkpoint", split) == 0
        yield folder, flags


def call(*args):
    """The exit code of the command in this process; a traceback is an exception."""
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(a) for a in args])
    return exit_.value.code or 0


# --- Faults: each takes a file and changes it. ---


def flip(path, random_):
    raw = bytearray(path.read_bytes())
    if raw:
        raw[random_.randrange(len(raw))] ^= 1 << random_.randrange(8)
    path.write_bytes(raw)


def cut(path, random_):
    os.truncate(path, random_.randrange(path.stat().st_size + 1))


def empty(path, random_):
    path.write_bytes(b"")


def grow(path, random_):
    more = random_.choice(
        [b"\0" * 512, b"{}", b"[1]\n", b"\xff\xfe\n", b'{"step": 1}\n']
    )
    path.write_bytes(path.read_bytes() + more)


def insert(path, random_):
    raw = path.read_bytes()
    place = random_.randrange(len(raw) + 1)
    path.write_bytes(raw[:place] + random_.randbytes(7) + raw[place:])


def delete(path, random_):
    path.unlink()


def become_folder(path, random_):
    path.unlink()
    path.mkdir()


def become_pipe(path, random_):
    path.unlink()
    os.mkfifo(path)


def lead_nowhere(path, random_):
    path.unlink()
    path.symlink_to("nowhere")


def lead_to_itself(path, random_):
    path.unlink()
    path.symlink_to(path.name)


def swap(path, random_):
    """With another file of the run."""
    run = next(p for p in path.parents if (p / "lock").exists())
    other = random_.choice([p for p in files_of(run) if p != path])
    kept = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(kept)


def nest(path, random_):
    path.write_bytes(b"[" * 50_000 + b"]" * 50_000)


def another_value(path, random_):
    """One value somewhere in a JSON file or a line of one."""
    text = path.read_text()
    lines = [text] if path.suffix == ".json" else text.splitlines()
    place = random_.randrange(len(lines)) if lines else 0
    found = json.loads(lines[place])
    at = found
    while True:
        name = random_.choice(list(at) if isinstance(at, dict) else range(len(at)))
        inner = at[name]
        if isinstance(inner, dict | list) and inner and random_.random() < 0.7:
            at = inner
            continue
        if random_.random() < 0.3:
            del at[name]
        else:
            at[name] = random_.choice(VALUES)
        break
    lines[place] = json.dumps(found)
    path.write_text("\n".join(lines) + "\n")


VALUES = [None, -1, 0, 1e300, 2**70, "x", "", [], {}, [[]], {"a": {}}, True, "\x1b[2J"]
ANY = [flip, cut, empty, grow, insert, delete, become_folder, become_pipe]
ANY += [lead_nowhere, lead_to_itself, swap, nest]


# --- Faults of a whole checkpoint. ---


def checkpoints_of(run):
    return sorted(p for p in (run / "checkpoints").iterdir())


def delete_checkpoint(run, random_):
    shutil.rmtree(random_.choice(checkpoints_of(run)))


def delete_checkpoints(run, random_):
    shutil.rmtree(run / "checkpoints")


def swap_checkpoints(run, random_):
    one, two = random_.sample(checkpoints_of(run), 2)
    one.rename(run / "between")
    two.rename(one)
    (run / "between").rename(two)


def strange_names(run, random_):
    place = run / "checkpoints"
    for name in ("007", "9" * 30, "²", "12.part", "-3", "1e3"):
        (place / name).mkdir()


def unfinished(run, random_):
    """As a kill leaves it."""
    newest = checkpoints_of(run)[-1]
    part = newest.with_name("99.part")
    shutil.copytree(newest, part)
    (part / "checksums.json").unlink()


def torn_log(run, random_):
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"kind": "train", "step": 6, "lo\xc3')


WHOLE = [delete_checkpoint, delete_checkpoints, swap_checkpoints, strange_names]
WHOLE += [unfinished, torn_log]


def files_of(run):
    kinds = ("run.json", "metrics.jsonl", "result.json", "experiment.py", "lock")
    found = [run / name for name in kinds]
    return found + sorted(p for p in (run / "checkpoints").rglob("*") if p.is_file())


def damage(run, random_):
    """Does something to a run folder, and says what."""
    if random_.random() < 0.2:
        fault = random_.choice(WHOLE)
        fault(run, random_)
        return fault.__name__
    json_files = [run / n for n in ("run.json", "metrics.jsonl", "result.json")]
    if random_.random() < 0.3:
        path, fault = random_.choice(json_files), another_value
    else:
        path = random_.choice([*json_files, *files_of(run)])
        fault = random_.choice(ANY)
    fault(path, random_)
    return f"{fault.__name__} {path.relative_to(run)}"


# --- What must hold. ---


def contents(run):
    """Every regular file, but what a command writes anew and the lock."""
    written = re.compile(r"report\.html|lock$|evaluation-|tensorboard|samples")
    return {
        p.relative_to(run): p.read_bytes()
        for p in sorted(run.rglob("*"))
        if p.is_file() and not written.match(p.relative_to(run).as_posix())
    }


def untouched(run, before):
    with otherwise("lost"):
        assert contents(run) == before


def training_lines(run):
    """The log, without what a clock decides; None if it cannot be read."""
    with contextlib.suppress(ValueError, OSError, AttributeError):
        lines = (run / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        return [
            {k: v for k, v in record.items() if k != "images_per_second"}
            for record in records
        ]
    return None


def metrics_of(run):
    return json.loads((run / "result.json").read_text())["metrics"]


def one_line(err):
    said = [x for x in err.splitlines() if not x.startswith(("note: ", "Preparing "))]
    with otherwise("traceback"):
        assert "Traceback" not in err, err
    assert len(said) == 1, err
    assert said[0].startswith("error: "), err
    assert said[0].isprintable(), err
    return "one line"


def check_evaluate(run, whole, flags, capfd, random_):
    which = random_.choice(["best", "last"])
    path = run / f"evaluation-test-{which}.json"
    path.unlink()
    before = contents(run)
    code = call("evaluate", run, "--checkpoint", which)
    _, err = capfd.readouterr()
    untouched(run, before)
    assert code in (0, 2)
    if code == 2:
        return one_line(err)
    expected = json.loads((whole / path.name).read_text())
    assert json.loads(path.read_text()) == expected
    return "right"


def check_verify(run, whole, flags, capfd, random_):
    before = contents(run)
    code = call("verify", run, "--first", 1)
    out, err = capfd.readouterr()
    untouched(run, before)
    assert code in (0, 1, 2)
    if code == 2:
        return one_line(err)
    assert ("differs" if code else "equal") in out.splitlines()[-1]
    return "right"


def check_report(run, whole, flags, capfd, random_):
    from segjax import viz

    before, said = contents(run), None
    try:
        viz.write_report(run)
    except (ValueError, OSError) as error:
        said = str(error)
    untouched(run, before)
    if said is None:
        return "right"
    assert str(run) in said
    assert "\n" not in said
    return "one line"


def check_resume(run, whole, flags, capfd, random_):
    before = contents(run)
    code = call("train", *flags, "--run", run, "--resume")
    out, err = capfd.readouterr()
    return resumed(run, whole, before, code, out, err)


def resumed(run, whole, before, code, out, err):
    """All as without the fault, or one line and nothing touched."""
    assert code in (0, 2)
    if code == 2:
        # Unless it was trained to its end before something failed.
        if "Test " not in out:
            untouched(run, before)
        return one_line(err)
    whole_lines, lines = training_lines(whole), training_lines(run)
    assert [r for r in lines if r["step"] <= STEPS] == whole_lines or "damaged" in out
    if "damaged" not in out:
        assert metrics_of(run) == metrics_of(whole)
    return "right"


CHECKS = [check_evaluate, check_verify, check_report, check_resume]


@pytest.mark.parametrize("seed", range(CASES))
def test_a_damaged_run_is_right_or_one_line(original, tmp_path, capfd, seed, tally):
    folder, flags = original
    random_ = random.Random(seed)
    run = shutil.copytree(folder / "train", tmp_path / "run")
    what = damage(run, random_)
    check = CHECKS[seed % len(CHECKS)]
    tally.case(f"run folder, {check.__name__.removeprefix('check_')}")
    capfd.readouterr()
    try:
        tally.count(check(run, folder / "train", flags, capfd, random_))
    except BaseException as error:
        error.add_note(f"case {seed}: {what}, then {check.__name__}")
        raise


@pytest.mark.parametrize("fault", [lead_nowhere, lead_to_itself])
def test_a_log_that_leads_nowhere_is_refused(original, tmp_path, capfd, fault):
    """Before `run.json` is touched."""
    folder, flags = original
    run = shutil.copytree(folder / "train", tmp_path / "run")
    fault(run / "metrics.jsonl", None)
    capfd.readouterr()
    found = check_resume(run, folder / "train", flags, capfd, None)
    assert found == "one line"


@pytest.mark.parametrize("seed", range(max(4, CASES // 10)))
def test_damaged_seeds_are_right_or_one_line(original, tmp_path, capfd, seed, tally):
    folder, flags = original
    random_ = random.Random(f"seeds {seed}")
    run = shutil.copytree(folder / "seeds", tmp_path / "run")
    hurt = run / random_.choice(["seed-0", "seed-1"])
    what = damage(hurt, random_)
    before = contents(run)
    tally.case("run folder, seeds --resume")
    capfd.readouterr()
    try:
        code = call("seeds", *flags, "--seeds", 0, 1, "--run", run, "--resume")
        out, err = capfd.readouterr()
        assert code in (0, 2)
        if code == 2 and "Test " not in out:
            untouched(run, before)
        elif code == 0 and "damaged" not in out:
            for name in ("seed-0", "seed-1"):
                assert metrics_of(run / name) == metrics_of(folder / "seeds" / name)
        tally.count("right" if code == 0 else one_line(err))
    except BaseException as error:
        error.add_note(f"case {seed}: {what} in {hurt.name}")
        raise
