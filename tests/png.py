"""Make a screenshot small: 256 colours are enough for a form, and take a third of the space.

The format: https://www.w3.org/TR/png-3/
"""

import functools
import itertools
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">IIBBBBB")
# The colour types that a screenshot may have, with their bytes for each pixel; and the one that is written.
RGB, PALETTE, RGBA = 2, 3, 6
DEPTHS = {RGB: 3, RGBA: 4}

Colour = tuple[int, ...]


def with_palette(png: bytes) -> bytes:
    """Return a picture of 8-bit RGB or RGBA in its commonest 256 colours, without transparency."""
    parts = list(chunks(png))
    width, height, _, kind, *_ = HEADER.unpack(parts[0][1])
    filtered = zlib.decompress(b"".join(data for name, data in parts if name == b"IDAT"))
    rows = [list(map(rounded, row)) for row in unfiltered(filtered, width, DEPTHS[kind])]
    common = [colour for colour, _ in Counter(itertools.chain.from_iterable(rows)).most_common(256)]

    @functools.cache
    def nearest(colour: Colour) -> int:
        distances = [sum((a - b) ** 2 for a, b in zip(colour, each, strict=True)) for each in common]
        return distances.index(min(distances))

    pixels = b"".join(b"\0" + bytes(map(nearest, row)) for row in rows)
    palette = bytes(itertools.chain.from_iterable(common))
    header = HEADER.pack(width, height, 8, PALETTE, 0, 0, 0)
    return written([(b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(pixels, 9)), (b"IEND", b"")])


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Give the names and the data of a picture's chunks."""
    at = len(SIGNATURE)
    while at < len(png):
        length, name = struct.unpack_from(">I4s", png, at)
        yield name, png[at + 8 : at + 8 + length]
        at += length + 12


def written(parts: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a picture with these chunks."""
    each = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return SIGNATURE + b"".join(each)


def unfiltered(data: bytes, width: int, depth: int) -> Iterator[list[Colour]]:
    """Give the rows of a picture whose pixels take `depth` bytes: the red, green and blue of each."""
    above = bytes(width * depth)
    for start in range(0, len(data), width * depth + 1):
        kind, row = data[start], bytearray(data[start + 1 : start + 1 + width * depth])
        for at, up in enumerate(above if kind else b""):
            left, corner = (row[at - depth], above[at - depth]) if at >= depth else (0, 0)
            row[at] = (row[at] + predicted(kind, left, up, corner)) & 255
        above = bytes(row)
        yield [tuple(above[at : at + 3]) for at in range(0, len(above), depth)]


def predicted(kind: int, left: int, up: int, corner: int) -> int:
    """Return what a filter of this kind (0 to 4) adds to a byte, given its neighbours."""
    if kind < 4:
        return (0, left, up, (left + up) // 2)[kind]
    distances = [abs(left + up - corner - each) for each in (left, up, corner)]
    return (left, up, corner)[distances.index(min(distances))]


@functools.cache
def rounded(colour: Colour) -> Colour:
    """Return nearly the same colour, of which there are fewer; white stays white."""
    return tuple(min(255, (each + 4) // 8 * 8) for each in colour)
