# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The size of a picture by its header is the size of the decoded one."""

from __future__ import annotations

import os
import struct
import zlib

import pytest
from PIL import Image

from src.defrcn import picture_file
from src.defrcn.picture_file import EXIF_ORIENTATION, size_of
from src.model_utils.errors import InputError
from tests.helpers.data_helpers import encoded, pixels

IHDR_END = 8 + 12 + 13  # signature, then the first chunk of a PNG file


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[EXIF_ORIENTATION] = orientation
    return found


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(9))
def test_turned_pictures(tmp_path, kind, orientation):
    content = encoded(Image.fromarray(pixels(20, 30)), kind, exif=exif(orientation))
    (tmp_path / "x").write_bytes(content)
    assert size_of(tmp_path / "x") == ((30, 20) if orientation in (5, 6, 7, 8) else (20, 30))


@pytest.mark.parametrize("kind", ["BMP", "GIF", "PPM"])
def test_other_kinds(tmp_path, kind):
    (tmp_path / "x").write_bytes(encoded(Image.fromarray(pixels(20, 30)), kind))
    assert size_of(tmp_path / "x") == (20, 30)


def chunk(name: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


def test_orientation_behind_the_pixels_of_a_png_file(tmp_path, monkeypatch):
    """The specification allows it there; a file without is not decoded."""
    content = encoded(Image.fromarray(pixels(20, 30)))
    late = chunk(b"eXIf", exif(6).tobytes()[6:])
    (tmp_path / "late.png").write_bytes(content[:-12] + late + content[-12:])
    assert size_of(tmp_path / "late.png") == (30, 20)

    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("decoded"))
    (tmp_path / "plain.png").write_bytes(content)
    assert size_of(tmp_path / "plain.png") == (20, 30)
    early = chunk(b"tEXt", b"Comment\0nothing")
    (tmp_path / "early.png").write_bytes(content[:IHDR_END] + early + content[IHDR_END:])
    assert size_of(tmp_path / "early.png") == (20, 30)


def test_files_that_are_none(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(encoded(Image.fromarray(pixels(20, 30)))[:20])
    for name in ("text.png", "empty.png", "cut.png"):
        with pytest.raises(InputError, match=rf"{name}: not a readable image"):
            size_of(tmp_path / name)
    with pytest.raises(InputError, match=r"gone\.png cannot be read \(No such file"):
        size_of(tmp_path / "gone.png")
    with pytest.raises(InputError, match=r"cannot be read \(.*directory|not a regular"):
        size_of(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")  # would wait for a writer
    with pytest.raises(InputError, match=r"pipe\.png cannot be read \(not a regular file"):
        size_of(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="cannot be read"):
        size_of(tmp_path / "nul\0.png")


def test_a_bomb(tmp_path):
    side = int(picture_file.PILLOW_MAX_PIXELS**0.5) * 2
    head = struct.pack(">II", side, side) + b"\x08\x02\0\0\0"
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"")
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(InputError, match=r"bomb\.png: over the limit of"):
        size_of(tmp_path / "bomb.png")
