"""Outlines of masks: COCO run lengths, and polygons along the edges of pixels."""

from collections.abc import Sequence

import numpy as np

from segjax.inference.objects import components

Ring = list[list[int]]
"""Closed: the last point [x, y] is the first one."""


def run_lengths(
    mask: np.ndarray, corner: Sequence[int] | np.ndarray, size: Sequence[int]
) -> str:
    """Encodes a cropped mask as COCO's compressed run lengths.

    Args:
        mask: bool [h, w].
        corner: (row, column) of its first pixel in the image.
        size: (height, width) of the image.

    Returns:
        The field `counts`, as of `pycocotools.mask.encode`.
    """
    height, width = (int(n) for n in size)
    y, x = (int(n) for n in corner)
    edges = np.diff(np.pad(mask.T.astype(np.int8), ((0, 0), (1, 1))))
    ends = []
    for sign in (1, -1):  # Positions in column-major order: where runs begin, and end.
        column, row = np.nonzero(edges == sign)
        ends.append((column.astype(np.int64) + x) * height + row + y)
    begin, end = ends
    # A run that reaches the last row goes on in the next column.
    joined = begin[1:] == end[:-1]
    begin = begin[np.concatenate([[True], ~joined])] if begin.size else begin
    end = end[np.concatenate([~joined, [True]])] if end.size else end
    stops = np.stack([begin, end], axis=1).ravel()
    counts = np.diff(np.concatenate([[0], stops]))
    tail = height * width - (int(stops[-1]) if stops.size else 0)
    return _compress([*counts.tolist(), *([tail] if tail else [])])


def polygons(mask: np.ndarray, corner: Sequence[int] | np.ndarray) -> list[list[Ring]]:
    """Traces a cropped mask along the edges of its pixels.

    Args:
        mask: bool [h, w].
        corner: (row, column) of its first pixel in the image.

    Returns:
        One polygon for each set of pixels that are connected by their sides: its outer
        ring, then its holes. Pixel (row, column) covers [column, column + 1] x [row,
        row + 1].
    """
    y, x = (int(n) for n in corner)
    pieces, count = components(mask)
    made: list[list[Ring]] = [[] for _ in range(count)]
    for ring, piece in _rings(mask, pieces):
        shifted = [[px + x, py + y] for px, py in ring]
        if _area(ring) > 0:
            made[piece - 1].insert(0, shifted)
        else:
            made[piece - 1].append(shifted)
    return made


def _rings(mask: np.ndarray, pieces: np.ndarray):
    """Yields (closed ring, number of its piece), clockwise around the pixels."""
    inside = np.pad(mask, 1)
    core = inside[1:-1, 1:-1]
    # For each direction (dx, dy): a pixel's edge in that direction, and its start.
    sides = (
        ((1, 0), core & ~inside[:-2, 1:-1], (0, 0)),  # Top, to the right.
        ((0, 1), core & ~inside[1:-1, 2:], (1, 0)),  # Right, downward.
        ((-1, 0), core & ~inside[2:, 1:-1], (1, 1)),  # Bottom, to the left.
        ((0, -1), core & ~inside[1:-1, :-2], (0, 1)),  # Left, upward.
    )
    leaving: dict[tuple[int, int], dict[tuple[int, int], int]] = {}
    for direction, edge, (dx, dy) in sides:
        rows, columns = np.nonzero(edge)
        numbers = pieces[rows, columns].tolist()
        for row, column, piece in zip(rows.tolist(), columns.tolist(), numbers):  # noqa: B905
            leaving.setdefault((column + dx, row + dy), {})[direction] = piece
    while leaving:
        start = next(iter(leaving))
        first, piece = next(iter(leaving[start].items()))
        point, direction, ring = start, first, []
        while True:
            del leaving[point][direction]
            if not leaving[point]:
                del leaving[point]
            point = (point[0] + direction[0], point[1] + direction[1])
            choices = set(leaving.get(point, ())) | (
                {first} if point == start else set()
            )
            following = _turn(direction, choices)
            if following != direction:
                ring.append(list(point))
            direction = following
            if point == start and following == first:
                break
        yield [*ring, ring[0]], piece


def _turn(direction: tuple[int, int], choices: set) -> tuple[int, int]:
    """Right first, which keeps to the same pixel where two pixels touch at a corner."""
    right = (-direction[1], direction[0])
    for following in (right, direction, (direction[1], -direction[0])):
        if following in choices:
            return following
    raise AssertionError("an outline ends")


def _area(ring: Ring) -> int:
    points = np.array(ring)
    x, y = points.T
    return int(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))


def _compress(counts: list[int]) -> str:
    """COCO's text of run lengths: differences in groups of five bits."""
    text = []
    for i, count in enumerate(counts):
        x = count - counts[i - 2] if i > 2 else count
        while True:
            part = x & 31
            x >>= 5
            more = x != -1 if part & 16 else x != 0
            text.append(chr(part + (32 if more else 0) + 48))
            if not more:
                break
    return "".join(text)
