# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""JPEG and PNG files of all kinds, small and seeded."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image


def photograph(rng, height, width, channels=3):
    """Something with slopes and grain, as photographs have."""
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, channels), dtype=np.uint8)
    planes = [Image.fromarray(coarse[:, :, i]).resize((width, height)) for i in range(channels)]
    grain = rng.integers(-9, 10, (height, width, channels))
    return np.clip(np.stack(planes, 2) + grain, 0, 255).astype(np.uint8)


def encoded(image, kind, **options):
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def jpegs(rng):
    """Name and bytes of JPEGs of all kinds."""
    pixels = photograph(rng, 61, 83)
    image = Image.fromarray(pixels)
    for subsampling in (0, 1, 2):
        for progressive in (False, True):
            options = {"subsampling": subsampling, "progressive": progressive, "quality": 85}
            yield f"{subsampling}{progressive}", encoded(image, "JPEG", **options)
    for name, factors in (("440", 0x121111), ("411", 0x411111)):
        flags = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factors]
        yield name, cv2.imencode(".jpg", pixels, flags)[1].tobytes()
    yield "grey", encoded(image.convert("L"), "JPEG")
    yield "cmyk", encoded(image.convert("CMYK"), "JPEG")
    inks = photograph(rng, 40, 50, 4)
    yield "inks", encoded(Image.frombytes("CMYK", (50, 40), inks.tobytes()), "JPEG")
    yield "dot", encoded(Image.fromarray(pixels[:1, :1]), "JPEG")
    yield "trailing", encoded(image, "JPEG") + b"something else"


def pngs(rng):
    """Name and bytes of PNGs of all kinds."""
    pixels = photograph(rng, 40, 50)
    image = Image.fromarray(pixels)
    grey = image.convert("L")
    yield "rgb", encoded(image, "PNG")
    rgba = photograph(rng, 40, 50, 4)
    yield "rgba", encoded(Image.fromarray(rgba), "PNG")
    yield "la", encoded(Image.fromarray(rgba).convert("LA"), "PNG")
    yield "grey", encoded(grey, "PNG")
    yield "grey_transparent", encoded(grey, "PNG", transparency=int(pixels[0, 0, 0]))
    yield "rgb_transparent", encoded(image, "PNG", transparency=(1, 2, 3))
    yield "bits", encoded(grey.convert("1"), "PNG")
    for colours in (2, 4, 16, 200):
        yield f"palette{colours}", encoded(image.quantize(colours), "PNG")
    yield "palette_transparent", encoded(image.quantize(200), "PNG", transparency=bytes(range(200)))
    yield "deep_grey", encoded(Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257 + 3), "PNG")
    yield "deep_rgb", cv2.imencode(".png", pixels.astype(np.uint16) * 250 + 77)[1].tobytes()
    yield "deep_rgba", cv2.imencode(".png", rgba.astype(np.uint16) * 250 + 77)[1].tobytes()
    for bits in (1, 2, 4):
        yield f"grey{bits}", png_by_hand(rng, 13, 11, bits, colours=0)
        yield f"interlaced{bits}", png_by_hand(rng, 13, 11, bits, colours=0, interlaced=True)
    yield "interlaced", png_by_hand(rng, 13, 11, 8, colours=2, interlaced=True)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_by_hand(rng, height, width, bits, colours, interlaced=False, palette=b""):
    """A PNG of random bytes, in forms that Pillow does not write."""
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2)]
        passes += [(0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b""
    for top, left, down, across in passes:
        columns = -(-(width - left) // across)
        size = -(-columns * bits * (3 if colours == 2 else 1) // 8)
        for _ in range(-(-(height - top) // down) if columns > 0 else 0):
            rows += b"\0" + rng.bytes(size)
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, int(interlaced))
    parts = [(b"IHDR", header), *([(b"PLTE", palette)] if palette else [])]
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def exif_block(entries, order="<"):
    """EXIF with (tag, type, count, value or offset, inline) of one directory."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    body = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        body += struct.pack(f"{order}HHI", tag, kind, count) + value
    return b"Exif\0\0" + head + body + bytes(4)
