"""How large files, and what they hold, may be: guards, far above what people have.

A small file can ask for any amount of memory or time. What is beyond a limit ends in
one line that names the file, and is never cut to fit.
"""

MAX_PIXELS = 2**28
"""Of an image, height times width."""

PREDICT_PIXELS = 2**26
"""Of an image to predict, unless told otherwise: a network takes it in one piece."""

MAX_SIDE = 2**20
"""Of an image, in pixels: padding multiplies thin strips."""

BYTES_PER_PIXEL = 64
"""Of an image in memory, all its channels together."""

TIFF_PAGES = 2**12

FILE_BYTES = 2**32
"""Of a file that is read whole."""

JSON_BYTES = 2**30
"""Of annotations."""

TEXT_BYTES = 2**24
"""Of `classes.txt`, `model.json` and what else people can read."""

ZIP_ENTRIES = 2**20
ZIP_ENTRY_BYTES = 2**30
"""Of a file in a zip, unpacked."""

ZIP_RATIO = 200
"""Unpacked by packed size of a file in a zip, where it is more than ZIP_FREE bytes."""

ZIP_FREE = 2**26

MAX_OUTLINE = 2**22
"""Length of a polygon in pixels, as it is walked when it is drawn."""
