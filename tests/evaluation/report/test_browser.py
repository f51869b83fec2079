# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The page in a browser: nothing to complain of, filters and sorting work, tables can be seen."""

import json
from pathlib import Path

import pytest

from src.tools import report
from tests.helpers.browser import Browser
from tests.helpers.data_helpers import CATEGORIES, TOY_CONFIG, coco_content, coco_tree

WIDTHS = {"narrow": 390, "wide": 1280}
NAMES = {one["name"]: one["id"] for one in CATEGORIES}
HOSTILE = "<img src=x onerror=document.title='broken-in'>"


def detection(image, name, box, score):
    return {"image_id": image, "category_id": NAMES[name], "bbox": box, "score": score}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    """A page by the shipped program: one picture all right, one with a fault of each kind."""
    root = tmp_path_factory.mktemp("page")

    def change(content):
        content["annotations"][2]["iscrowd"] = 0

    coco_tree(root, change)
    (root / "c.yaml").write_text(TOY_CONFIG.format(root=root))
    ring, cross, star = (one["bbox"] for one in coco_content()["annotations"])
    rows = [
        *(detection(5, "ring", ring, 0.9), detection(5, "star", star, 0.8)),
        # the cross is taken for a star; one ring is of the background
        *(detection(3, "star", cross, 0.85), detection(3, "ring", [20, 30, 8, 9], 0.95)),
    ]
    (root / "detections.json").write_text(json.dumps(rows))
    earlier = {"cross": 64.0, "ring": 100.0, HOSTILE: 3.0}
    earlier = {"metric": "coco", "num_images": 3, "per_class_AP": earlier}
    (root / "base").mkdir()
    (root / "base" / "metrics.json").write_text(json.dumps({"toy_test_base": earlier}))
    flags = {
        **{"config_path": root / "c.yaml", "detections": root / "detections.json"},
        **{"output": root / "page", "before": root / "base", "title": HOSTILE},
    }
    assert report.main([f"--{name}={value}" for name, value in flags.items()]) == 0
    return root / "page" / "index.html"


@pytest.fixture(params=WIDTHS)
def page(request, browser: Browser, page_file: Path):
    """The page in a window of one width; whatever a test does, the console stays empty."""
    shown = browser.open(page_file, width=WIDTHS[request.param])
    yield shown
    assert shown.problems == []
    shown.close()


def test_all_of_it_loads_and_nothing_sticks_out(page):
    assert page.load_images() == 2 + 3 + 3  # plots of all, of each class, pictures in their kinds
    assert page.overflow() == 0
    assert page.texts("h1") == ["toy_test_all"]
    assert page.run("document.title") == "toy_test_all – evaluation"
    assert HOSTILE in page.texts(".chips li")


def test_pictures_are_filtered(page):
    names = {"ok": ["b.png"], "missed": ["a.png"], "false": ["a.png"]}
    everything = ["b.png", "a.png", "a.png"]
    assert page.texts(".gallery b") == everything
    for kind, expected in names.items():
        page.click(f".filters button[data-kind={kind}]")
        assert page.texts(".gallery b") == expected
        assert page.each(".filters [aria-pressed=true]", "(one) => one.dataset.kind") == [kind]
    page.click(".filters button")
    assert page.texts(".gallery b") == everything


def test_tables_of_confusion_and_of_what_was_forgotten(page):
    groups = page.each("#confusion-groups tbody td", "(one) => one.innerText.split('\\n')[0]")
    assert groups == [*("1", "1", "0", "2"), *("0", "1", "0", "1"), *("1", "0", "–", "1")]
    assert page.texts("#confusion-pairs tbody tr") == ["cross base\tstar novel\t1\t100.0 %"]
    assert page.shown("#confusion-classes tbody td") == 16
    assert page.texts("#confusion-classes thead th") == [
        "object",
        "cross",
        "star",
        "ring",
        "missed",
    ]
    classes = page.texts("#forgotten-classes tbody td:first-child")
    assert classes == ["cross", "ring", f"{HOSTILE} only before"]
    differences = page.texts("#forgotten-classes td:nth-child(4)")
    assert differences == ["−57.0", "−64.0", "−50.0", "–"]


def test_heads_stay_while_the_matrix_moves_below_them(page):
    """Scrolled by 50 to the right and 60 down: what moves to the left and up, and by how much."""
    moved = page.run(
        """(() => {
          const box = document.querySelector(".matrix");
          box.style.cssText = "width: 170px; max-height: 120px";
          const cells = ["thead th", "thead th + th", "tbody th", "tbody td"];
          const places = () => cells.map((one) => box.querySelector(one).getBoundingClientRect());
          const before = places();
          box.scrollTo(50, 60);
          return places().map((one, k) => [before[k].x - one.x, before[k].y - one.y]);
        })()"""
    )
    assert moved == [[0, 0], [50, 0], [0, 60], [50, 60]]


def test_columns_are_sorted(page):
    def classes():
        return page.each("#forgotten-classes tbody tr", "(one) => one.cells[3].textContent.trim()")

    page.click("#forgotten-classes th:nth-child(4) button")  # falling, undefined ones last
    assert classes() == ["−50.0", "−64.0", "–"]
    page.click("#forgotten-classes th:nth-child(4) button")
    assert classes() == ["–", "−64.0", "−50.0"]


def test_something_is_drawn(page):
    """A page without style or pictures has few colours."""
    page.load_images()
    page.run("document.getElementById('pictures').scrollIntoView({behavior: 'instant'})")
    for dark in (False, True):
        page.dark(dark)
        picture = page.screenshot()
        assert picture.size in {(width, 900) for width in WIDTHS.values()}
        assert len(picture.getcolors(1 << 24)) > 1000
        assert (sum(picture.resize((1, 1)).getpixel((0, 0))) < 3 * 120) is dark
    page.dark(False)
    page.run("document.getElementById('confusion-groups').scrollIntoView({behavior: 'instant'})")
    colours = {colour for _, colour in page.screenshot().getcolors(1 << 24)}
    # heat: blue where it is right, orange where it is not
    assert any(blue > red + 60 for red, _, blue in colours)
    assert any(red > blue + 60 for red, _, blue in colours)


def test_a_link_opens_its_class(browser, page_file):
    page = browser.open(page_file, width=WIDTHS["wide"])
    page.click("#class-0 summary")
    assert page.shown("#class-0 img") == 0
    page.click("#classes td a")
    assert page.run("location.hash") == "#class-0"
    page.wait_until("document.getElementById('class-0').open")
    assert page.shown("#class-0 img") == 1
    page.close()


BROKEN = {
    "console.error('mine', 7)": "mine 7",
    "console.warn('careful')": "careful",
    "nothing.there()": "ReferenceError: nothing is not defined",
    "Promise.reject(new Error('later'))": "Error: later",
    "new Image().src = 'gone.png'": "gone.png",
    "fetch('http://127.0.0.1:9/x').catch(() => 0)": "127.0.0.1:9",
}


@pytest.mark.parametrize("script", BROKEN)
def test_a_broken_page_is_noticed(browser, tmp_path, script):
    (tmp_path / "page.html").write_text(f"<p>text</p><script>{script}</script>")
    page = browser.open(tmp_path / "page.html", width=600)
    page.wait_for_problem(BROKEN[script])
    page.close()


def test_what_is_hidden_or_covered_is_noticed(browser, tmp_path):
    (tmp_path / "page.html").write_text(
        "<b>1</b><b hidden>2</b><b style='opacity: 0'>3</b><b style='visibility: hidden'>4</b>"
        "<button>5</button><i style='position: fixed; inset: 0'></i>"
        "<div style='width: 900px; height: 1px'></div>"
    )
    page = browser.open(tmp_path / "page.html", width=600)
    assert page.texts("b") == ["1"]
    assert page.overflow() == 308  # beside the body's margin of 8
    with pytest.raises(AssertionError, match="something covers button"):
        page.click("button")
    with pytest.raises(AssertionError, match="nothing on the page is h1"):
        page.click("h1")
    page.close()
