# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Hostile and broken pictures, annotations and configurations, handed to train.py.

Each is refused in one sentence that names the file, with exit code 1, before anything runs, within
a time limit and without memory to speak of.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import os
import re
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
import yaml
from PIL import Image

import train
from tests.helpers.data_helpers import coco_content, encoded, pixels, voc_xml, write_image
from tests.helpers.hostile import cut, flip, refuse, toy, write_config  # noqa: F401 - fixtures

NAN, INF = float("nan"), float("inf")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, data: bytes, *extra: bytes) -> bytes:
    """A grey PNG of 8 bits whose compressed data are `data`."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    tail = chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + tail


def archive(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
            out.writestr("b.png", bytes(10_000_000))
    elif kind == "tar":
        with tarfile.open(fileobj=buffer, mode="w:gz") as out:
            out.addfile(tarfile.TarInfo("b.png"))
    else:
        buffer.write(gzip.compress(bytes(10_000_000)))
    return buffer.getvalue()


def replaced(content: bytes):
    return lambda path: path.write_bytes(content)


def changed(breaking, *arguments):
    return lambda path: breaking(path, *arguments)


def instead(make):
    """Something else under the picture's name."""

    def breaking(path: Path) -> None:
        path.unlink()
        make(path)

    return breaking


def turned(path: Path) -> None:
    """A picture that its EXIF orientation turns, so that it is 60 high and 40 wide."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(40, 60)).save(path, "JPEG", exif=exif)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 60 40\n(owned) (w) file\n%%EOF\n"
BOMB = zlib.compress(bytes(12_000 * 12_001), 9)
PICTURES = {
    "PNG cut in half": changed(cut, 0.5),
    "PNG cut at the end": changed(cut, 0.99),
    "PNG cut in its header": changed(cut, 0.01),
    "bit flipped in the PNG's size": changed(flip, 17),
    "bit flipped in the PNG's data": changed(flip, 200),
    "bit flipped in the PNG's signature": changed(flip, 1),
    "zero bytes": replaced(b""),
    "zeros": replaced(bytes(5000)),
    "ZIP archive": replaced(archive("zip")),
    "TAR archive": replaced(archive("tar")),
    "GZIP of zeros": replaced(archive("gzip")),
    "HTML": replaced(b"<!DOCTYPE html><html><body>404 Not Found</body></html>"),
    "SVG": replaced(b"<svg xmlns='http://www.w3.org/2000/svg' width='60' height='40'/>"),
    "EPS, which asks for an interpreter": replaced(EPS),
    "PDF": replaced(b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n"),
    "decompression bomb, promised": replaced(png(60_000, 60_000, zlib.compress(b""))),
    "decompression bomb, real": replaced(png(12_000, 12_001, BOMB)),
    "text chunk that unfolds": replaced(
        png(60, 40, BOMB, chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(80 << 20))))
    ),
    "another size than annotated": replaced(encoded(Image.fromarray(pixels(41, 60)))),
    "turned by EXIF to another size": turned,
    "32 bits a channel": lambda path: Image.new("F", (60, 40)).save(path, "TIFF"),
    "missing": Path.unlink,
    "a folder": instead(Path.mkdir),
    "a link to nowhere": instead(lambda path: path.symlink_to("nowhere")),
    "a link to itself": instead(lambda path: path.symlink_to(path.name)),
    "a link to a text file": instead(lambda path: path.symlink_to("/etc/passwd")),
    "a link to endless zeros": instead(lambda path: path.symlink_to("/dev/zero")),
    "a pipe that nobody writes to": instead(os.mkfifo),
}


@pytest.mark.parametrize("breaking", PICTURES.values(), ids=PICTURES)
def test_pictures(toy, refuse, breaking):  # noqa: F811
    breaking(toy / "toy" / "images" / "b.png")
    told = refuse(train.main, f"--config_path={toy / 'tiny.yaml'}")
    assert re.search(r"1 of 2 images cannot be used: \S+/b\.png: ", told), told


JPEGS = {
    "JPEG cut in half": changed(cut, 0.5),
    "JPEG cut in its header": changed(cut, 0.05),
    "bit flipped in the JPEG's start": changed(flip, 1),
    "a JPEG of zeros after its header": lambda path: path.write_bytes(
        path.read_bytes()[:200] + bytes(2000)
    ),
}


@pytest.mark.parametrize("breaking", JPEGS.values(), ids=JPEGS)
def test_jpegs(toy, refuse, breaking):  # noqa: F811
    content = coco_content()
    content["images"][0]["file_name"] = "b.jpg"
    (toy / "toy" / "train.json").write_text(json.dumps(content))
    breaking(toy / "toy" / "images" / "b.jpg")
    told = refuse(train.main, f"--config_path={toy / 'tiny.yaml'}")
    assert re.search(r"1 of 2 images cannot be used: \S+/b\.jpg: ", told), told


def of(part: str, position: int, **values):
    """Change an entry of a list in the annotation file."""

    def change(content):
        content[part][position].update(values)

    return change


def box(*numbers):
    return of("annotations", 1, bbox=list(numbers))


def file_name(name):
    return of("images", 1, file_name=name)


def doubled(name):
    return lambda content: content[name].append(copy.deepcopy(content[name][0]))


def without(*names):
    def change(content):
        for name in names:
            content.pop(name)

    return change


HUGE = 10**400
BOXES = {
    "NaN": (box(1, NAN, 3, 4), "NaN or infinity"),
    "infinity": (box(1, 2, INF, 4), "infinity"),
    "minus infinity": (box(-INF, 2, 3, 4), "infinity"),
    "huge": (box(1, 2, 3, HUGE), "too large"),
    "text": (box(1, 2, "3", 4), "four numbers"),
    "three": (box(1, 2, 3), "four numbers"),
    "nested": (box([1], 2, 3, 4), "four numbers"),
    "true": (box(True, 2, 3, 4), "four numbers"),
    "none": (of("annotations", 1, bbox=None), "four numbers"),
    "unknown category": (of("annotations", 1, category_id=5), "category id 5 is not among"),
    "huge category": (of("annotations", 1, category_id=HUGE), "is not among"),
    "negative category": (of("annotations", 1, category_id=-1), "category id -1"),
    "category as text": (of("annotations", 1, category_id="2"), "category_id '2'"),
    "true as category": (of("annotations", 1, category_id=True), "category_id True"),
    "crowd of two": (of("annotations", 1, iscrowd=2), "iscrowd 2"),
    "ignore": (of("annotations", 1, ignore=1), "'ignore' is not supported"),
    "image id twice": (doubled("images"), "image id 5 occurs twice"),
    "annotation id twice": (doubled("annotations"), "annotation id 1 occurs twice"),
    "category id twice": (doubled("categories"), "category id 7 .* occurs twice"),
    "category name twice": (of("categories", 1, name="ring"), "'ring' occurs twice"),
    "huge image id": (of("images", 1, id=HUGE), "id .* too large"),
    "image id of a list": (of("images", 1, id=[3]), "has no id"),
    "ids of two kinds": (of("images", 1, id="3"), "partly numbers and partly texts"),
    "huge category id": (of("categories", 1, id=HUGE), "id .* too large"),
    "height of zero": (of("images", 1, height=0), "height 0"),
    "negative width": (of("images", 1, width=-30), "width -30"),
    "half a pixel": (of("images", 1, width=30.5), r"width 30\.5"),
    "huge width": (of("images", 1, width=HUGE), "width 1000"),
    "width of another picture": (of("images", 1, width=1 << 30), r"a\.png: the image is 30 x 50"),
    "no width": (lambda content: content["images"][1].pop("width"), "width None"),
    "no lists": (without("images", "annotations"), "no list 'images'"),
    "a list of numbers": (lambda content: content.update(images=[1, 2]), "no list 'images'"),
    "no object": (lambda content: content.update(annotations=[]), "none of 2 images has an object"),
    "up": (file_name("../images/a.png"), "leaves the image folder"),
    "up from within": (file_name("x/../../a.png"), "leaves the image folder"),
    "absolute": (file_name("/etc/passwd"), "leaves the image folder"),
    "backslashes": (file_name("..\\a.png"), "leaves the image folder"),
    "a drive": (file_name("C:\\a.png"), "leaves the image folder"),
    "a zero byte": (file_name("a.png\0.jpg"), "leaves the image folder"),
    "half a character": (file_name("\ud800.png"), "not valid text"),
    "no name": (file_name(" "), "is not a file's name"),
    "a long name": (file_name("a" * 5000), r"cannot be read"),
    "a name that is a folder": (file_name("."), "leaves the image folder"),
    "a name that is a list": (file_name(["a.png"]), "is not a file's name"),
}


@pytest.mark.parametrize(("change", "message"), BOXES.values(), ids=BOXES)
def test_annotations(toy, refuse, change, message):  # noqa: F811
    content = coco_content()
    change(content)
    (toy / "toy" / "train.json").write_text(json.dumps(content))
    told = refuse(train.main, f"--config_path={toy / 'tiny.yaml'}")
    assert re.search(message, told) and str(toy) in told, told
    assert len(told) < 7000


TEXTS = {
    "zero bytes": b"",
    "cut": json.dumps(coco_content()).encode()[:200],
    "a list": b"[]",
    "a number": b"7",
    "zero bytes in it": b"\0\0\0",
    "deeply nested": b"[" * 200_000,
    "not UTF-8": b'{"images": ["\xff\xfe"]}',
    "a number of 5000 digits": b'{"images": [{"id": ' + b"9" * 5000 + b"}]}",
    "a picture": encoded(Image.fromarray(pixels(4, 5))),
    "GZIP": gzip.compress(json.dumps(coco_content()).encode()),
}


@pytest.mark.parametrize("content", TEXTS.values(), ids=TEXTS)
def test_files_that_are_no_annotations(toy, refuse, content):  # noqa: F811
    (toy / "toy" / "train.json").write_bytes(content)
    told = refuse(train.main, f"--config_path={toy / 'tiny.yaml'}")
    assert "train.json" in told and len(told) < 1000, told


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["a folder", "a pipe"])
def test_annotations_that_are_no_file(toy, refuse, make):  # noqa: F811
    (toy / "toy" / "train.json").unlink()
    make(toy / "toy" / "train.json")
    assert "train.json" in refuse(train.main, f"--config_path={toy / 'tiny.yaml'}")


RING = [("ring", 2, 3, 30, 30, 0)]
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
XML = {
    "billion laughs": voc_xml(40, 60, RING, "&l11;", f'<!DOCTYPE x [<!ENTITY l0 "ha">{LAUGHS}]>'),
    "long entity many times": voc_xml(
        40, 60, RING, "&a;" * 50_000, f'<!DOCTYPE x [<!ENTITY a "{"a" * 100_000}">]>'
    ),
    "a file pulled in": voc_xml(
        40, 60, RING, "&a;", '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    ),
    "a document type from elsewhere": voc_xml(
        40, 60, RING, "", '<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd">'
    ),
    "cut": voc_xml(40, 60, RING)[:150],
    "zero bytes": "",
    "JSON": '{"images": []}',
    "deeply nested": "<a>" * 100_000,
    "a box of NaN": voc_xml(40, 60, [("ring", "nan", 3, 30, 30, 0)]),
    "a box without end": voc_xml(40, 60, [("ring", 2, 3, "1e999", 30, 0)]),
    "a box of words": voc_xml(40, 60, [("ring", 2, 3, "thirty", 30, 0)]),
    "unknown class": voc_xml(40, 60, [("dog", 2, 3, 30, 30, 0)]),
    "class without a name": voc_xml(40, 60, [("", 2, 3, 30, 30, 0)]),
    "height of zero": voc_xml(0, 60, RING),
    "endless width": voc_xml(40, "inf", RING),
    "another size": voc_xml(41, 60, RING),
    "unknown encoding": voc_xml(40, 60, RING, "", "<?xml version='1.0' encoding='x-none'?>"),
    "no size": "<annotation></annotation>",
    "half a box": "<annotation><size><height>40</height><width>60</width></size>"
    "<object><name>ring</name><bndbox><xmin>2</xmin></bndbox></object></annotation>",
}


@pytest.fixture
def voc(toy):  # noqa: F811
    settings = yaml.safe_load((toy / "tiny.yaml").read_text())
    half = {"annotations": "voc/Annotations", "images": "voc/JPEGImages"}
    settings["data"]["custom"]["toy"] = {
        "format": "voc",
        "train": {**half, "image_list": "voc/list.txt"},
        "test": dict(half),
        "classes": ["ring", "cross", "star"],
        "novel_classes": ["star"],
    }
    write_config(toy, data=settings["data"])
    for name in ("one", "two"):
        write_image(toy / "voc" / "JPEGImages" / f"{name}.png", 40, 60)
        (toy / "voc" / "Annotations").mkdir(exist_ok=True)
        (toy / "voc" / "Annotations" / f"{name}.xml").write_text(voc_xml(40, 60, RING))
    (toy / "voc" / "list.txt").write_text("one\ntwo\n")
    return toy


@pytest.mark.parametrize("text", XML.values(), ids=XML)
def test_xml(voc, refuse, text):  # noqa: F811
    (voc / "voc" / "Annotations" / "two.xml").write_text(text)
    told = refuse(train.main, f"--config_path={voc / 'tiny.yaml'}")
    assert re.search(r"two\.(xml|png)", told) and len(told) < 1000, told


LISTS = {
    "up": (b"one\n../two\n", "leaves the image folder"),
    "absolute": (b"one\n/etc/passwd\n", "leaves the image folder"),
    "twice": (b"one\none\n", "names an image twice"),
    "missing": (b"one\nthree\n", r"three\.xml does not exist"),
    "no text": (b"one\n\xff\xfe\n", "list.txt"),
    "a zero byte": (b"one\nt\0wo\n", "leaves the image folder"),
    "nothing": (b"", "none of 0 images|list.txt"),
}


@pytest.mark.parametrize(("content", "message"), LISTS.values(), ids=LISTS)
def test_image_lists(voc, refuse, content, message):  # noqa: F811
    (voc / "voc" / "list.txt").write_bytes(content)
    assert re.search(message, refuse(train.main, f"--config_path={voc / 'tiny.yaml'}"))


LOL = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))
YAML = {
    "a call": "seed: !!python/object/apply:os.system ['touch owned']",
    "a call in a list": "data: {train: [!!python/object/apply:os.system ['touch owned']]}",
    "a class": "seed: !!python/object:os.Popen {}",
    "a module": "seed: !!python/module:antigravity",
    "a name": "seed: !!python/name:os.system",
    "a tag of one's own": "seed: !secret 3",
    "aliases that unfold": f"a0: &a0 [x]\n{LOL}",
    "deeply nested": "a: " + "[" * 5000,
    "deeply nested mappings": "".join(f"{' ' * n}a:\n" for n in range(400)),
    "zero bytes in it": "seed: \0",
    "cut in a string": 'seed: "1',
    "a key twice": "seed: 1\nseed: 2",
    "two documents": "seed: 1\n---\nseed: 2",
    "a list": "- seed",
    "unknown keys": "sead: 1",
    "NaN": "solver: {base_lr: .nan}",
    "infinity": "solver: {base_lr: .inf}",
    "a huge number": f"seed: {10**400}",
    "a list for a number": "seed: [1]",
    "its own base": "base: tiny.yaml",
    "a base far away": "base: ../../../../../../etc/passwd",
    "2 MB": "#" * (2 << 20),
}


@pytest.mark.parametrize("text", YAML.values(), ids=YAML)
def test_configurations(toy, refuse, text):  # noqa: F811
    (toy / "tiny.yaml").write_text(text)
    told = refuse(train.main, f"--config_path={toy / 'tiny.yaml'}")
    assert "tiny.yaml" in told or "passwd" in told, told
    assert len(told) < 1000


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["a folder", "a pipe"])
def test_configurations_that_are_no_file(toy, refuse, make):  # noqa: F811
    (toy / "tiny.yaml").unlink()
    make(toy / "tiny.yaml")
    assert "tiny.yaml" in refuse(train.main, f"--config_path={toy / 'tiny.yaml'}")
