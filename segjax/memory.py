"""Settings of glibc's allocator; without glibc, nothing happens.

What they gain is measured in docs/speed.md, "The allocator".
"""

import ctypes
import os
import pathlib

# glibc's mallopt parameters, from malloc.h, and Linux's advice, from mman.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_MADV_HUGEPAGE = 14

_PIECE_BYTES = 2**30
_MOST_PIECES = 16
_LARGE_PAGE_BYTES = 2**21
_OVERCOMMIT = pathlib.Path("/proc/sys/vm/overcommit_memory")


def keep_freed_memory() -> None:
    """Makes glibc reuse freed memory instead of returning it to the operating system.

    XLA allocates the temporary arrays of every step anew. By default glibc maps and
    unmaps them, and every step pays for the page faults.

    Each thread keeps its own arena: in a single one, the pieces that the compiler
    leaves are searched for every block of a matrix product.
    """
    libc = _glibc()
    if libc is None:
        return
    libc.mallopt(_MMAP_THRESHOLD, 2**31 - 1)
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_TOP_PAD, 2**28)


def use_large_pages() -> None:
    """Asks for memory in pages of 2 MB, in which fewer addresses are looked up.

    Comes after `keep_freed_memory`. The heap is extended by half of the machine's
    memory, in addresses only: memory is used when it is written to. Where addresses are
    limited or counted like memory, nothing is done.
    """
    libc = _glibc()
    if libc is None or _addresses_are_scarce():
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    count = min(memory // 2 // _PIECE_BYTES, _MOST_PIECES)
    pieces = [libc.malloc(_PIECE_BYTES) for _ in range(count)]
    for piece in filter(None, pieces):
        first = -(-piece // _LARGE_PAGE_BYTES) * _LARGE_PAGE_BYTES
        pages = (piece + _PIECE_BYTES - first) // _LARGE_PAGE_BYTES
        libc.madvise(first, pages * _LARGE_PAGE_BYTES, _MADV_HUGEPAGE)
    for piece in reversed(pieces):
        libc.free(piece)


def trim_memory() -> None:
    """Returns freed memory to the operating system.

    Compiling a U-Net's step leaves 350 MB that are not used again. An evaluation of
    large images leaves free places between what is in use, into which the temporary
    arrays of the next one do not fit: four evaluations of 20 megapixels grew to 4.8 GB.
    """
    libc = _glibc()
    if libc is None:
        return
    libc.malloc_trim(0)
    # What the heap will get in place of what was returned. Without `keep_freed_memory`,
    # this has no effect: glibc maps the pieces apart from the heap, and unmaps them.
    use_large_pages()


def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
        libc.free.argtypes = [ctypes.c_void_p]
        libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        # Only glibc has both.
        return libc if libc.mallopt and libc.malloc_trim else None
    except (OSError, AttributeError):
        return None


def _addresses_are_scarce() -> bool:
    import resource  # Only Unix has it.

    limits = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    if any(resource.getrlimit(kind)[0] != resource.RLIM_INFINITY for kind in limits):
        return True
    try:
        return _OVERCOMMIT.read_text().strip() == "2"
    except OSError:
        return True
