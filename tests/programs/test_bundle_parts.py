# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Parts of the C++ program that run a bundle, number by number beside Pillow, OpenCV and numpy.

`defrcn_probe` (ascend310_infer/tests/probe.cc) runs them on files.
"""

from __future__ import annotations

import hashlib
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from src.calibration.pictures import read_picture
from src.data.transforms import PILLOW_MAX_PIXELS, decode, resize, resized_shape
from src.defrcn.detections import final_detections, to_image_frame
from src.defrcn.pcb import Calibrator, Prototypes
from src.defrcn.pcb_pooling import MapEncoder, axis_weights
from src.model_utils.errors import InputError
from src.predict.inputs import find_inputs
from tests.helpers.infer_program import ask, call
from tests.helpers.picture_files import (
    PROFILE_KEY,
    XMP_KEY,
    chunk,
    encoded,
    exif_block,
    jpegs,
    photograph,
    png_by_hand,
    pngs,
    turning_chunks,
    with_chunks,
    xmp_text,
)

ORIENTATION = 0x0112


def test_resizing_is_pillows_byte_for_byte(probe, tmp_path):
    rng = np.random.default_rng(11)
    sizes = rng.integers(1, 140, (200, 4))
    sizes[:40, 2:] = np.maximum(sizes[:40, :2] * rng.uniform(0.1, 1, (40, 1)), 1)  # down, as usual
    sizes[40:60, 2:] = sizes[40:60, :2] * 3
    for number in range(60, 100):  # one side of one pixel
        sizes[number, number % 4] = 1
    sizes[100:110, 2:] = sizes[100:110, :2]  # unchanged, and one side only
    sizes[110:120, 2], sizes[120:130, 3] = sizes[110:120, 0], sizes[120:130, 1]
    sizes[130] = 600, 900, 1, 1
    jobs, expected = [], []
    for number, (height, width, new_height, new_width) in enumerate(sizes.tolist()):
        extreme = number % 3 == 0  # edges as hard as they can be
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        pixels = np.where(pixels > 127, 255, 0).astype(np.uint8) if extreme else pixels
        pixels.tofile(tmp_path / f"{number}.in")
        paths = [tmp_path / f"{number}.in", tmp_path / f"{number}.out"]
        jobs.append(["resize", paths[0], height, width, new_height, new_width, paths[1]])
        expected.append(np.asarray(resize(Image.fromarray(pixels), new_height, new_width)))
    ask(probe, tmp_path, jobs)
    for number, wanted in enumerate(expected):
        found = np.fromfile(tmp_path / f"{number}.out", np.uint8).reshape(wanted.shape)
        np.testing.assert_array_equal(found, wanted, err_msg=str(sizes[number]))


def test_sizes_in_the_model_frame(probe, tmp_path):
    rng = np.random.default_rng(5)
    cases = rng.integers(1, 3000, (300, 2)).tolist()
    cases += [[1, 1], [1, 5000], [5000, 1], [480, 640], [640, 480], [333, 1333], [800, 1333]]
    limits = [(800, 1333), (64, 100), (600, 600), (1, 1)]
    jobs = [["size", *case, *limits[i % 4]] for i, case in enumerate(cases)]
    found = [tuple(map(int, line.split())) for line in ask(probe, tmp_path, jobs)]
    assert found == [resized_shape(*job[1:]) for job in jobs]


def test_pictures_of_all_kinds_are_decoded_as_in_python(probe, tmp_path):
    rng = np.random.default_rng(3)
    cases = {f"{name}.jpg": content for name, content in jpegs(rng)}
    cases |= {f"{name}.png": content for name, content in pngs(rng)}
    for orientation in range(10):
        tags = Image.Exif()
        tags[ORIENTATION] = orientation
        for kind, suffix in (("JPEG", "jpg"), ("PNG", "png")):
            image = Image.fromarray(photograph(rng, 24, 37))
            cases[f"turned{orientation}.{suffix}"] = encoded(image, kind, exif=tags)
    compare_decoded(probe, tmp_path, cases)


def compare_decoded(probe, folder, cases):
    """Pixels beside those of the detector's reader and of the calibration block's."""
    jobs = []
    for name, content in cases.items():
        (folder / name).write_bytes(content)
        targets = [folder / f"{name}.{which}" for which in ("pillow", "opencv")]
        jobs.append(["decode", folder / name, PILLOW_MAX_PIXELS, *targets])
    lines = ask(probe, folder, jobs)
    for (name, content), line in zip(cases.items(), lines):
        wanted = np.asarray(decode(content, name))
        assert line == f"{wanted.shape[0]} {wanted.shape[1]}", name
        found = np.fromfile(folder / f"{name}.pillow", np.uint8).reshape(wanted.shape)
        np.testing.assert_array_equal(found, wanted, err_msg=name)
        if name != "no_end.png":  # which Python's OpenCV refuses
            pixels = read_picture(str(folder / name), PILLOW_MAX_PIXELS).pixels
            found = np.fromfile(folder / f"{name}.opencv", np.uint8).reshape(wanted.shape)
            np.testing.assert_array_equal(found, pixels[:, :, ::-1], err_msg=name)


def test_orientation_is_found_where_pillow_finds_it(probe, tmp_path):
    """Types, byte orders and places of the tag; XMP where there is none."""
    image = Image.fromarray(photograph(np.random.default_rng(4), 24, 37))
    profile = (
        "\nexif\n  26\n" + exif_block([(ORIENTATION, 3, 1, struct.pack("<HH", 8, 0))]).hex() + "\n"
    )
    texts = {}
    for name, key, value in (
        ("profile", "Raw profile type exif", profile),
        ("xmp", "XML:com.adobe.xmp", "<rdf><tiff:Orientation>5</tiff:Orientation></rdf>"),
    ):
        for packed in (False, True):
            info = PngImagePlugin.PngInfo()
            info.add_text(key, value, zip=packed)
            texts[f"{name}{packed}.png"] = encoded(image, "PNG", pnginfo=info)
    itxt = PngImagePlugin.PngInfo()
    itxt.add_itxt("XML:com.adobe.xmp", 'x tiff:Orientation="y" tiff:Orientation="7"', zip=True)
    blocks = {
        "long": exif_block([(ORIENTATION, 4, 1, struct.pack(">I", 6))], ">"),
        "short_of_two": exif_block([(ORIENTATION, 3, 2, struct.pack("<HH", 6, 3))]),
        "text": exif_block([(ORIENTATION, 2, 2, b"6\0\0\0")]),
        "byte": exif_block([(ORIENTATION, 1, 1, b"\6\0\0\0")]),
        "twice": exif_block([(ORIENTATION, 3, 1, b"\3\0\0\0"), (ORIENTATION, 3, 1, b"\6\0\0\0")]),
        "beyond": exif_block([(ORIENTATION, 3, 9, struct.pack("<I", 9999))]),
        "other": exif_block([(0x0100, 3, 1, b"\6\0\0\0")]),
        "cut": exif_block([(ORIENTATION, 3, 1, b"\6\0\0\0")] * 2)[:-10],
        "directory": exif_block([(ORIENTATION, 13, 1, struct.pack("<I", 6))]),
        "unknown": exif_block([(ORIENTATION, 15, 1, struct.pack("<I", 6))]),
        "very_long": exif_block([(ORIENTATION, 16, 1, struct.pack("<I", 26))])
        + struct.pack("<Q", 6),
    }
    cases = {f"{name}.jpg": encoded(image, "JPEG", exif=block) for name, block in blocks.items()}
    cases |= {f"{name}.png": encoded(image, "PNG", exif=block) for name, block in blocks.items()}
    cases["no_end.png"] = cases["long.png"][:-12]
    plain, end = encoded(image, "PNG")[:-12], encoded(image, "PNG")[-12:]
    for name, parts in (("headed", ("long",)), ("several", ("long", "twice", "short_of_two"))):
        cases[f"{name}.png"] = plain + b"".join(chunk(b"eXIf", blocks[n]) for n in parts) + end
        bare = b"".join(chunk(b"eXIf", blocks[n][6:]) for n in parts)
        cases[f"{name}_before.png"] = plain[:33] + bare + plain[33:] + end
    xmp = b'<x tiff:Orientation="6"/>'
    cases["xmp.jpg"] = encoded(image, "JPEG", xmp=xmp)
    cases["both.jpg"] = encoded(image, "JPEG", xmp=xmp, exif=blocks["twice"])
    cases["neither.jpg"] = encoded(image, "JPEG", xmp=xmp, exif=blocks["other"])
    compare_decoded(
        probe,
        tmp_path,
        cases | texts | {"itxt.png": encoded(image, "PNG", pnginfo=itxt)},
    )


def test_of_several_chunks_that_turn_pillows_counts(probe, tmp_path):
    """One and some of all kinds, whole and damaged, before and after the pixels."""
    rng = np.random.default_rng(14)
    plain = encoded(Image.fromarray(photograph(rng, 24, 37)), "PNG")
    chunks = [part for _, part in turning_chunks()]
    cases = {}
    for number, part in enumerate(chunks):
        cases[f"before{number}.png"] = with_chunks(plain, before=[part])
        cases[f"after{number}.png"] = with_chunks(plain, after=[part])
    for number in range(200):
        parts = [chunks[place] for place in rng.integers(0, len(chunks), rng.integers(2, 5))]
        middle = int(rng.integers(0, len(parts) + 1))
        cases[f"some{number}.png"] = with_chunks(plain, parts[:middle], parts[middle:])
    compare_decoded(probe, tmp_path, cases)


def packed_text(key, size, kind=b"zTXt", start=b""):
    head = {b"zTXt": b"\0\0", b"iTXt": b"\0\1\0\0\0"}[kind]
    return kind, key + head + zlib.compress(start.ljust(size))


def test_texts_have_pillows_limits(probe, tmp_path):
    """1 MiB once it is unpacked, 64 MiB in all; what is not packed may be longer."""
    plain = encoded(Image.fromarray(photograph(np.random.default_rng(15), 24, 37)), "PNG")
    most = PngImagePlugin.MAX_TEXT_CHUNK
    full, over = (packed_text(XMP_KEY, size, start=xmp_text(6)) for size in (most, most + 1))
    large = packed_text(XMP_KEY, 2 * most)
    read = {
        "full": [full],
        "cut where it is full": [(over[0], over[1][:-9])],
        "full itxt": [packed_text(XMP_KEY, most, b"iTXt", xmp_text(5))],
        "plain": [(b"tEXt", XMP_KEY + b"\0" + bytes(2 * most) + xmp_text(7))],
        "64 MiB": [full] * 64,
    }
    compare_decoded(
        probe,
        tmp_path,
        {
            f"{name.replace(' ', '_')}.png": with_chunks(plain, parts)
            for name, parts in read.items()
        },
    )
    refused = {
        "over": ([over], "zTXt: a text of more than 1 MiB"),
        "over, and cut": ([(large[0], large[1][:-99])], "zTXt: a text of more than 1 MiB"),
        "itxt": ([packed_text(XMP_KEY, most + 1, b"iTXt")], "iTXt: a text of more than 1 MiB"),
        "profile": ([packed_text(PROFILE_KEY, 2 * most)], "zTXt: a text of more than 1 MiB"),
        "then another": ([over, full], "zTXt: a text of more than 1 MiB"),
        "65 MiB": ([full] * 65, "zTXt: texts of more than 64 MiB in all"),
        "method": ([(b"zTXt", XMP_KEY + b"\0\1" + xmp_text(6))], "packed in an unknown way"),
    }
    cases = []
    for name, (parts, reason) in refused.items():
        for place in ("before", "after"):
            cases.append((f"{name}, {place}", with_chunks(plain, **{place: parts}), reason))
    jobs = []
    for number, (_, content, _) in enumerate(cases):
        (tmp_path / f"{number}").write_bytes(content)
        jobs.append(["decode", tmp_path / f"{number}", 10**6, tmp_path / "a", tmp_path / "b"])
    for line, (name, content, reason) in zip(ask(probe, tmp_path, jobs), cases):
        assert line.startswith("error: not a readable picture ("), (name, line)
        assert reason in line, (name, line)
        with pytest.raises(InputError):
            decode(content, name)


# Of a child of a small process, because a process starts with its parent's peak.
PEAK = """
import resource, subprocess, sys
print(subprocess.run(sys.argv[1:], check=True, capture_output=True, text=True).stdout, end="")
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""


@pytest.mark.parametrize("key", [b"Comment", XMP_KEY])
def test_texts_that_unpack_to_gigabytes_take_no_memory(probe, tmp_path, key):
    """200 texts of 8 MB. Pillow refuses them all; we pass over what cannot turn the picture."""
    pixels = photograph(np.random.default_rng(16), 24, 37)
    bomb = [packed_text(key, 7_900_000)] * 200  # the library's own limit is 8 MB each
    turned = [(b"tEXt", XMP_KEY + b"\0" + xmp_text(3))]
    content = with_chunks(encoded(Image.fromarray(pixels), "PNG"), bomb, turned)
    (tmp_path / "bomb").write_bytes(content)
    job = ["decode", tmp_path / "bomb", 10**6, tmp_path / "a", tmp_path / "b"]
    (tmp_path / "jobs").write_text(" ".join(map(str, job)) + "\n")
    done = call(sys.executable, "-c", PEAK, probe, tmp_path / "jobs")
    assert done.returncode == 0, done.stderr
    line, peak = done.stdout.splitlines()
    assert int(peak) < 60  # MB
    if key == XMP_KEY:
        assert "zTXt: a text of more than 1 MiB" in line
    else:
        found = np.fromfile(tmp_path / "a", np.uint8).reshape(pixels.shape)
        np.testing.assert_array_equal(found, pixels[::-1, ::-1])
    with pytest.raises(InputError, match="too large"):
        decode(content, "bomb")


def test_broken_pictures_are_refused_with_a_reason(probe, tmp_path):
    rng = np.random.default_rng(6)
    pixels = photograph(rng, 40, 50)
    jpeg, png = (encoded(Image.fromarray(pixels), kind) for kind in ("JPEG", "PNG"))
    damaged = bytearray(png)
    damaged[len(png) // 2] ^= 0x10
    cases = {
        "empty": (b"", "neither JPEG nor PNG"),
        "text": (b"no picture", "neither JPEG nor PNG"),
        "gif": (encoded(Image.fromarray(pixels), "GIF"), "neither JPEG nor PNG"),
        "short jpeg": (jpeg[: len(jpeg) // 2], "the file is truncated"),
        "jpeg without its end": (jpeg[:-2], "the file is truncated"),
        "start of a jpeg": (jpeg[:3], "the file is truncated"),
        "short png": (png[: len(png) // 2], "the file is truncated"),
        "start of a png": (png[:20], "the file is truncated"),
        "damaged png": (bytes(damaged), "IDAT: "),
        "png of another kind": (with_chunks(png, [(b"ABCD", b"x")]), "ABCD: unhandled critical"),
        "no such colour": (
            png_by_hand(rng, 9, 9, 8, 3, palette=bytes(30)),
            "pixels of a colour that its palette lacks",
        ),
        "jpeg of 12 bits": (jpeg.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), "12"),
    }
    jobs = []
    for number, (content, _) in enumerate(cases.values()):
        (tmp_path / f"{number}").write_bytes(content)
        jobs.append(["decode", tmp_path / f"{number}", 10**6, tmp_path / "a", tmp_path / "b"])
    for line, (name, (content, reason)) in zip(ask(probe, tmp_path, jobs), cases.items()):
        assert line.startswith("error: not a readable picture ("), (name, line)
        assert reason in line, (name, line)
        if name not in ("gif", "no such colour", "png of another kind"):
            with pytest.raises(InputError):
                decode(content, name)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_large_pictures_are_refused_from_their_header(probe, tmp_path, kind):
    content = encoded(Image.new("RGB", (60, 50)), kind)
    (tmp_path / "a").write_bytes(content[: len(content) - 40])  # its pixels are not even there
    job = ["decode", tmp_path / "a", 2999, tmp_path / "b", tmp_path / "c"]
    assert ask(probe, tmp_path, [job]) == ["error: 60 x 50 pixels are over the limit of 2999"]
    with pytest.raises(InputError, match="60 x 50 pixels are over the limit of 2999"):
        decode(content, "a", 2999)


def test_drawn_pictures_come_back(probe, tmp_path):
    pixels = photograph(np.random.default_rng(8), 33, 21)
    pixels.tofile(tmp_path / "pixels")
    ask(probe, tmp_path, [["encode", tmp_path / "pixels", 33, 21, tmp_path / "a.png"]])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels)


def random_outputs(rng, proposals, classes):
    """Boxes that overlap, scores with ties, some rows that do not count."""
    corners = rng.uniform(0, 200, (proposals, classes, 2))
    # few places, so that boxes meet; whole numbers, so that some IoUs are equal
    corners = np.round(corners / 40) * 40
    boxes = np.concatenate([corners, corners + rng.integers(20, 80, corners.shape)], 2)
    scores = rng.uniform(0, 1, (proposals, classes + 1)) ** 3
    scores = np.where(rng.random(scores.shape) < 0.3, np.round(scores, 1), scores)
    boxes, scores = boxes.astype(np.float32), scores.astype(np.float32)
    valid = (rng.random(proposals) < 0.9).astype(np.int32)
    boxes[0, 0, 2], scores[1, 0] = np.inf, np.nan
    boxes[2, 0] = -50, -50, -10, -10  # empty once it is clipped
    return boxes, scores, valid


def test_final_detections_are_numpys(probe, tmp_path):
    rng = np.random.default_rng(9)
    jobs, expected = [], []
    for number in range(40):
        proposals, classes = int(rng.integers(3, 60)), int(rng.integers(1, 6))
        arrays = random_outputs(rng, proposals, classes)
        threshold = float(rng.choice([0.05, 0.1, 0.3, 1.0]))
        limit, most = float(rng.choice([0.3, 0.5, 0.0, 1.0])), int(rng.choice([1, 10, 100]))
        model, image = (208, 277), (97 + number, 131)
        paths = [tmp_path / f"{number}.{name}" for name in ("boxes", "scores", "valid", "out")]
        for path, array in zip(paths, arrays):
            array.tofile(path)
        rules = [classes, threshold, limit, most]
        jobs.append(["detect", *paths[:3], *rules, *model, *image, paths[3]])
        boxes, scores, labels = final_detections(
            arrays[0],
            arrays[1],
            arrays[2] > 0,
            score_threshold=threshold,
            nms_threshold=limit,
            max_detections=most,
        )
        boxes, whole = to_image_frame(boxes, np.float32(model), np.int32(image))
        rows = np.concatenate([boxes, scores[:, None], labels[:, None].astype(np.float32)], 1)
        expected.append(rows[whole])
    ask(probe, tmp_path, jobs)
    assert sum(map(len, expected)) > 300
    assert min(map(len, expected)) == 0
    for number, wanted in enumerate(expected):
        found = np.fromfile(tmp_path / f"{number}.out", np.float32).reshape(-1, 6)
        np.testing.assert_array_equal(found, wanted)


def test_weights_of_an_axis_are_numpys(probe, tmp_path):
    rng = np.random.default_rng(10)
    jobs, expected = [], []
    for length in (1, 2, 7, 33):
        start = rng.uniform(-3, length + 1, 200).astype(np.float32)
        end = start + rng.uniform(-0.5, length, 200).astype(np.float32)
        start[:3], end[:3] = [0, 1, -0.5], [0, 2, length - 0.5]  # empty, whole cells, everything
        np.stack([start, end], 1).tofile(tmp_path / f"{length}.in")
        jobs.append(["axis", tmp_path / f"{length}.in", length, tmp_path / f"{length}.out"])
        expected.append(axis_weights(start, end, length))
    ask(probe, tmp_path, jobs)
    for (_, _, length, path), wanted in zip(jobs, expected):
        found = np.fromfile(path, np.float32).reshape(-1, length)
        np.testing.assert_array_equal(found, wanted)


class LinearEncoder(MapEncoder):
    """What the calibration block asks of an encoder, with a given map."""

    stride, identity = 32, "test"

    def __init__(self, features, weight, bias):
        self.features, self.weight, self.bias = features, weight, bias

    def feature_map(self, pixels):
        return self.features

    def project(self, pooled):
        return pooled @ self.weight.T + self.bias


def test_calibrated_scores_are_numpys(probe, tmp_path):
    """A picture of 5 x 7 cells on a canvas of 6 x 9; a class that stays, one without support."""
    rng = np.random.default_rng(12)
    rows, columns, channels, dimensions, classes = 5, 7, 24, 10, 4
    canvas = rng.normal(0, 1, (6, 9, channels)).astype(np.float32)
    weight = rng.normal(0, 1, (dimensions, channels)).astype(np.float32)
    bias = rng.normal(0, 1, dimensions).astype(np.float32)
    vectors = rng.normal(0, 1, (classes, dimensions)).astype(np.float32)
    vectors[3] = 0
    encoder = LinearEncoder(canvas[:rows, :columns], weight, bias)
    lower, upper, alpha = 0.05, 0.9, 0.3
    calibrator = Calibrator(
        encoder,
        Prototypes(vectors, np.array([2, 1, 3, 1])),
        excluded=[1],
        alpha=alpha,
        lower=lower,
        upper=upper,
        read=lambda name: None,
    )
    corners = rng.uniform(0, 120, (60, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 100, (60, 2))], 1).astype(np.float32)
    scores = np.sort(rng.uniform(0, 1, 60).astype(np.float32))[::-1].copy()
    scores[5], scores[50] = np.float32(upper), np.float32(lower)
    labels = rng.integers(0, classes, 60)
    labels[5] = labels[50] = 0
    wanted = calibrator.on_pixels(np.zeros((1, 1, 3), np.uint8), boxes, scores, labels)
    changed = wanted != scores
    assert changed[5] and not changed[50] and not changed[labels == 1].any()

    for name, array in (("map", canvas), ("weight", weight), ("bias", bias), ("vectors", vectors)):
        array.tofile(tmp_path / name)
    np.concatenate([boxes, scores[:, None], labels[:, None]], 1).astype(np.float32).tofile(
        tmp_path / "in"
    )
    arrays = [tmp_path / name for name in ("weight", "bias", "vectors")]
    job = ["calibrate", tmp_path / "map", rows, columns, 9, channels, *arrays]
    job += ["1011", alpha, lower, upper, 32, tmp_path / "in", tmp_path / "out"]
    assert ask(probe, tmp_path, [job]) == [str(changed.sum())]
    found = np.fromfile(tmp_path / "out", np.float32).reshape(-1, 6)
    np.testing.assert_allclose(found[:, 4], wanted, rtol=0, atol=2e-6)
    np.testing.assert_array_equal(found[~changed, 4], scores[~changed])


def test_sha256_is_the_standards(probe, tmp_path):
    """The examples of FIPS 180-2 (abc, two blocks, a million a), nothing, a whole piece."""
    known = {
        b"abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq": (
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        ),
        b"a" * 10**6: "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
        b"": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }
    known[bytes(1 << 20)] = hashlib.sha256(bytes(1 << 20)).hexdigest()
    for number, content in enumerate(known):
        (tmp_path / str(number)).write_bytes(content)
    jobs = [["sha256", tmp_path / str(number)] for number in range(len(known))]
    assert ask(probe, tmp_path, jobs) == list(known.values())
    assert ask(probe, tmp_path, [["sha256", tmp_path / "none"]])[0].endswith("none cannot be read")


def test_folders_are_gone_through_as_by_predict(probe, tmp_path):
    folder = tmp_path / "in"
    names = "b.jpg a.PNG B.jpeg z/a.jpg z/y/q.png Z/a.jpg .hidden.jpg .dir/a.jpg out/pictures/a.png"
    for name in (*names.split(), "notes.md", "z/list.txt", "é.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    (folder / "link").symlink_to(folder / "z")
    wanted = find_inputs(folder, folder / "out")
    images, skipped = (
        [path.relative_to(folder).as_posix() for path in paths]
        for paths in (wanted.images, wanted.skipped)
    )
    (found,) = ask(probe, tmp_path, [["list", folder, folder / "out"]])
    found_images, found_skipped = (part.split() for part in found.split("|"))
    assert found_images == images
    assert found_skipped == skipped
    assert "z/a.jpg" in images
    assert "z/list.txt" in skipped


@pytest.mark.slow
def test_damaged_files_are_read_or_refused(checked, probe, tmp_path):
    """A minute of pictures, bundle.json and arrays, damaged at random, with checks of addresses."""
    fuzzer = checked / "defrcn_fuzz"
    rng = np.random.default_rng(13)
    tags = exif_block([(ORIENTATION, 3, 1, b"\6\0\0\0")])
    turned = Image.fromarray(photograph(rng, 24, 37))
    cases = [*jpegs(rng), *pngs(rng), ("a", encoded(turned, "JPEG", exif=tags, xmp=b"<x/>"))]
    texts = encoded(turned, "PNG")
    cases += [(name, with_chunks(texts, [part], [part])) for name, part in turning_chunks()]
    for number, (_, content) in enumerate(cases):
        (tmp_path / str(number)).write_bytes(content)
    seed = int(np.random.default_rng().integers(1 << 31))
    done = call(fuzzer, tmp_path, 60, seed)
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-3000:]}"
    rounds, read = map(int, done.stdout.split())
    assert rounds > 1000, seed
    assert 0.02 < read / rounds < 0.98, seed  # it neither damages everything nor nothing
