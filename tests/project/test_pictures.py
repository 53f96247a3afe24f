"""The pictures beside the steps are small and show what is there now."""

import itertools
import pathlib
import zlib

import pytest

from tests import pictures, png
from tests.lock import ROOT

PICTURES = sorted(file for file in (ROOT / "f").rglob("*") if file.suffix in (".png", ".svg"))


@pytest.mark.parametrize("picture", PICTURES, ids=lambda file: file.name)
def test_picture_is_small(picture: pathlib.Path) -> None:
    """Everybody who takes a copy of the repository takes them all, in every version."""
    assert picture.stat().st_size < 100_000


def test_timeline_is_what_the_demo_ends_with() -> None:
    """Whoever changes the demo, or how a timeline is printed, runs `make pictures`."""
    assert pictures.TIMELINE.read_text(encoding="utf-8") == pictures.svg(pictures.demo_ends_with())


def test_every_form_that_is_pictured_has_a_step() -> None:
    """A picture stands beside the step whose form it shows."""
    assert [step for step in pictures.FORMS if not (pictures.BESIDE / f"{step}.py").exists()] == []


@pytest.mark.parametrize("kind", png.DEPTHS)
def test_colours_survive_the_palette(kind: int) -> None:
    """Whatever filters the rows have, and whether or not there may be transparency."""
    depth = png.DEPTHS[kind]
    colours = [(248, 0, 0, 255), (0, 128, 8, 255), (64, 64, 200, 255), (255, 255, 255, 255)]
    rows = [[colour[:depth] for colour in each] for each in itertools.islice(itertools.permutations(colours), 10)]
    filtered, above = b"", bytes(len(colours) * depth)
    for number, row in enumerate(rows):
        plain = bytes(itertools.chain.from_iterable(row))
        around = zip(plain, bytes(depth) + plain, above, bytes(depth) + above, strict=False)
        differences = [(now - png.predicted(number % 5, *others)) & 255 for now, *others in around]
        filtered, above = filtered + bytes([number % 5, *differences]), plain
    header = png.HEADER.pack(len(colours), len(rows), 8, kind, 0, 0, 0)
    made = png.with_palette(png.written([(b"IHDR", header), (b"IDAT", zlib.compress(filtered)), (b"IEND", b"")]))
    parts = dict(png.chunks(made))
    palette = [tuple(parts[b"PLTE"][at : at + 3]) for at in range(0, len(parts[b"PLTE"]), 3)]
    indices = zlib.decompress(parts[b"IDAT"])
    shown = [palette[at] for number, at in enumerate(indices) if number % (len(colours) + 1)]
    assert shown == [colour[:3] for row in rows for colour in row]
