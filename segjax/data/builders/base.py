"""The base class of builders: encoding, digests and progress.

TFDS writes and reads ArrayRecord without TensorFlow as long as it neither encodes nor
decodes images itself. So images are encoded to PNG bytes and decoded from them here,
with Pillow; arrays that PNG cannot hold are stored as bytes.
"""

import concurrent.futures
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.console
import rich.progress
import tensorflow_datasets as tfds

from segjax.data.builders import packing
from segjax.data.builders.checks import ConsistencyCheck, ExampleFacts

IMAGE = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
LABEL = tfds.features.Image(shape=(None, None, 1), encoding_format="png")
INSTANCES = tfds.features.Image(
    shape=(None, None, 1), dtype=np.uint16, encoding_format="png"
)

SEMANTIC = {"image": IMAGE, "label": LABEL, "name": tfds.features.Text()}
"""Features of data sets of 8-bit color images."""

PACKED = tfds.features.Text()
"""A map [H, W] or [H, W, K] of any stored dtype; see `packing`."""

ANY_SEMANTIC = {"image": PACKED, "label": PACKED, "name": tfds.features.Text()}
"""Features of data sets with images of any dtype and number of channels."""

PIXELS = ("image", "label", "instances")
"""The features of an example that are stored as PNG or packed."""

CHECKSUM = "sha256"
"""The metadata key of the checksum of all other metadata."""

_WINDOW = 64


def checksum(metadata: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of the metadata, without its checksum entry."""
    rest = {k: v for k, v in metadata.items() if k != CHECKSUM}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def threads() -> concurrent.futures.Executor:
    """Returns a pool of decoding threads; Pillow and zlib release the GIL."""
    return concurrent.futures.ThreadPoolExecutor(os.cpu_count())


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Does nothing: TFDS would look into cloud storage."""


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS builder that plans its splits and makes examples in the planned order.

    A subclass sets `VERSION`, `FEATURES` and `DESCRIPTION`, plans the splits, and
    makes examples. Examples are stored in the order of the plan.

    Attributes:
        source: The user's files, for data sets that need them.
        PARTS: Names of the zips or folders that a source consists of.
        FOLDERS: The folders in each part to read; a wrong source may have many others.
        NEEDS: What a source must hold and where to get it, for messages.
    """

    FEATURES: Mapping[str, Any]
    DESCRIPTION: str
    PARTS: tuple[str, ...] = ()
    FOLDERS: tuple[str, ...] = ("",)
    NEEDS: str = ""

    def plan(self) -> Mapping[str, Sequence[Any]]:
        """Returns for each split one item per example."""
        raise NotImplementedError

    def make(self, item: Any) -> dict[str, Any]:
        """Makes one example; called from several threads concurrently.

        Returns:
            `name`, unique in its split, and an array for each other feature:
            image uint8, uint16 or float32 [H, W, K], label uint8 or uint16 [H, W],
            instances uint16 [H, W].
        """
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Returns the metadata; called after the last `make`.

        Returns:
            `classes`, the class names, and anything else that the reader needs.
        """
        raise NotImplementedError

    def where(self, item: Any, name: str) -> str:
        """Names the image of an item in messages: its file, if there is one."""
        del item
        return f"example {name} of {self.name}"

    def __init__(self, *, data_dir: str, source: Any = None):
        self.source = source
        self._check = ConsistencyCheck()
        self._metadata = tfds.core.MetadataDict()
        super().__init__(data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        return _Info(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict(dict(self.FEATURES)),
            disable_shuffling=True,
            metadata=self._metadata,
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # Nothing is downloaded.
        plan = self.plan()
        self._metadata["digests"] = {}
        bar = Progress(self.name, sum(map(len, plan.values())))
        return {
            name: self._generate_examples(name, items, bar)
            for name, items in plan.items()
        }

    def _generate_splits(self, *args, **kwargs):
        splits = super()._generate_splits(*args, **kwargs)
        described = self.describe()
        self._check.check_labels(len(described["classes"]))
        self._metadata.update(described)
        self._metadata[CHECKSUM] = checksum(self._metadata)
        return splits

    def _generate_examples(self, split, items, bar):
        digest = hashlib.sha256()
        with bar, threads() as pool:
            # In windows, to limit the number of decoded images in memory.
            for start in range(0, len(items), _WINDOW):
                window = items[start : start + _WINDOW]
                made = pool.map(self._pack, window)
                for item, (name, part, packed, facts) in zip(window, made, strict=True):
                    self._check.add(facts, self.where(item, name))
                    digest.update(part)
                    bar.advance()
                    yield name, packed
        # Of pixels, not of files, so that it does not depend on zlib's version.
        self._metadata["digests"][split] = digest.hexdigest()

    def _pack(self, item) -> tuple[str, bytes, dict[str, Any], ExampleFacts]:
        example = self.make(item)
        digest = hashlib.sha256()
        for feature, value in sorted(example.items()):
            value = np.asarray(value)
            digest.update(f"{feature} {value.dtype} {value.shape}".encode())
            digest.update(value.tobytes())
        packed = {k: self._encode(k, v) for k, v in example.items()}
        return example["name"], digest.digest(), packed, ExampleFacts.of(example)

    def _encode(self, feature: str, value: Any) -> Any:
        if feature not in PIXELS:
            return value
        as_bytes = self.FEATURES[feature] is PACKED
        return packing.pack(value) if as_bytes else packing.to_png(value)

    # TFDS prints these to standard output; `Progress` prints to stderr instead.
    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass


class Progress:
    """Shows one progress bar over all splits on a terminal, else one plain line."""

    def __init__(self, name: str, total: int, *, action: str = "Preparing"):
        console = rich.console.Console(stderr=True)
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(f"{action} {name}", total=total)
        if not console.is_terminal:
            print(f"{action} {name}: {total} examples", file=sys.stderr)

    def advance(self) -> None:
        """Counts one example."""
        self._bar.advance(self._task)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()
