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


XMP_KEY, PROFILE_KEY = b"XML:com.adobe.xmp", b"Raw profile type exif"


def xmp_text(orientation):
    return b'<x tiff:Orientation="%d"/>' % orientation


def profile_text(orientation):
    """EXIF in hexadecimal digits, as ImageMagick has it."""
    block = exif_block([(0x0112, 3, 1, struct.pack("<HH", orientation, 0))])
    return b"\nexif\n  26\n" + block.hex().encode() + b"\n"


def with_chunks(png, before=(), after=()):
    """A PNG with further chunks (name, data), before and after its pixels."""
    head, tail = (b"".join(chunk(*part) for part in parts) for parts in (before, after))
    return png[:33] + head + png[33:-12] + tail + png[-12:]


def turning_chunks():
    """Name and chunk (name, data) of all that turns a PNG, whole and damaged; Pillow reads each."""
    for key, text in ((XMP_KEY, xmp_text), (PROFILE_KEY, profile_text)):
        yield "text", (b"tEXt", key + b"\0" + text(2))
        yield "packed", (b"zTXt", key + b"\0\0" + zlib.compress(text(3)))
        yield "trailing", (b"zTXt", key + b"\0\0" + zlib.compress(text(4)) + b"more")
        yield "itxt", (b"iTXt", key + b"\0\0\0\0\0" + text(5))
        packed = zlib.compress(text(6))
        yield "itxt packed", (b"iTXt", key + b"\0\1\0en\0\xc3\xa9\0" + packed)
        yield "itxt of no method", (b"iTXt", key + b"\0\0\7\0\0" + text(7))
        yield "itxt of another method", (b"iTXt", key + b"\0\1\1\0\0" + packed)
        yield "itxt in no language", (b"iTXt", key + b"\0\0\0\xff\0\0" + text(8))
        yield "itxt of no name", (b"iTXt", key + b"\0\0\0\0\xe2\x82\0" + text(2))
        yield "short itxt", (b"iTXt", key + b"\0\0")
        yield "itxt without its zeros", (b"iTXt", key + b"\0\0\0en\0" + text(3))
        for kind, head in ((b"zTXt", b"\0\0"), (b"iTXt", b"\0\1\0\0\0")):
            broken = bytearray(packed)
            broken[-1] ^= 1
            yield f"broken {kind}", (kind, key + head + broken)
            yield f"not packed {kind}", (kind, key + head + text(4))
            named = zlib.compressobj(zdict=b"tiff:Orientation")
            dictionary = named.compress(text(4)) + named.flush()
            yield f"dictionary {kind}", (kind, key + head + dictionary)
            yield f"empty {kind}", (kind, key + head + zlib.compress(b""))
            yield f"without its sum {kind}", (kind, key + head + zlib.compress(text(5))[:-4])
        yield "key alone", (b"tEXt", key)
        yield "packed key alone", (b"zTXt", key)
        yield "itxt key alone", (b"iTXt", key)
        yield "another key", (b"tEXt", key.lower() + b"\0" + text(6))
    for text in (
        "é€😀".encode(),
        b"\xc0\x80",
        b"\xe0\x9f\xbf",
        b"\xed\xa0\x80",
        b"\xf0\x8f\xbf\xbf",
    ):
        yield f"itxt {text}", (b"iTXt", XMP_KEY + b"\0\0\0\0\0" + xmp_text(3) + text)
    for text in (b"\xed\x9f\xbf", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5", b"\xe2\x82"):
        yield f"itxt {text}", (b"iTXt", XMP_KEY + b"\0\0\0\0\0" + xmp_text(4) + text)
    yield "text with zeros", (b"tEXt", XMP_KEY + b"\0a\0" + xmp_text(6))
    cut = zlib.compress(xmp_text(7) + np.random.default_rng(1).bytes(999))[:-300]
    yield "cut", (b"zTXt", XMP_KEY + b"\0\0" + cut)
    yield "exif", (b"eXIf", bytes.fromhex(profile_text(8).split()[2].decode()))
    yield "empty exif", (b"eXIf", b"")
    yield "of the program", (b"abCd", XMP_KEY + b"\0" + xmp_text(3))
