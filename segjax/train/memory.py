"""Memory of the process, beside that of its arrays."""

import ctypes


def give_back_freed() -> None:
    """Returns freed memory to the system; does nothing without glibc.

    Compiling a U-Net's step leaves 350 MB of it, which nothing asks for again.
    """
    try:
        trim = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return
    trim(0)
