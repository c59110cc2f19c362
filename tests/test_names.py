"""The field's words: names that were replaced do not come back."""

import pathlib
import tokenize

import segjax

PACKAGE = pathlib.Path(segjax.__file__).parent
REPLACED = set(
    "figures seal sealed together seed_folders agree board NoLog FirstSteps roll_call "
    "insight shares present used sampled leave reach skip least_score enlarge verb "
    "finish colour centre normalise initialise neighbour grey labelled".split()
)
FIELD = {"unet.py": {"skip"}}  # The U-Net paper's skip connections.


def test_replaced_names_do_not_come_back():
    for path in PACKAGE.rglob("*.py"):
        with tokenize.open(path) as file:
            tokens = tokenize.generate_tokens(file.readline)
            names = {t.string for t in tokens if t.type == tokenize.NAME}
        found = names & REPLACED - FIELD.get(path.name, set())
        assert not found, f"{path}: {found}"
    modules = {path.stem for path in PACKAGE.rglob("*.py")}
    assert not modules & REPLACED
