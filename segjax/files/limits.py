"""Limits of the sizes of files and their content, far above usual sizes.

A small file can request any amount of memory or time. A file beyond a limit causes a
one-line error that names it; it is never truncated.
"""

MAX_PIXELS = 2**28
"""Height times width of an image."""

PREDICT_PIXELS = 2**26
"""Default for images to predict, which a network processes as a whole."""

WINDOWED_PIXELS = 2**36
"""Height times width of an image that is read in windows."""

MAX_SIDE = 2**20
"""Height or width of an image, since padding enlarges thin strips."""

BYTES_PER_PIXEL = 64
"""Bytes per pixel of a decoded image, all channels together."""

TIFF_PAGES = 2**12

FILE_BYTES = 2**32
"""Size of a file that is read as a whole."""

JSON_BYTES = 2**30
"""Size of an annotation file."""

TEXT_BYTES = 2**24
"""Size of `classes.txt`, `model.json` and other text files."""

ZIP_ENTRIES = 2**20
ZIP_ENTRY_BYTES = 2**30
"""Uncompressed size of a zip entry."""

ZIP_RATIO = 200
"""Compression ratio of a zip entry with more than ZIP_FREE uncompressed bytes."""

ZIP_FREE = 2**26

MAX_OUTLINE = 2**22
"""Length of a polygon in pixels; decoding takes time proportional to it."""
