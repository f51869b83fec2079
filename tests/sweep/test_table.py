# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Statistics and tables of sweeps against numbers done by hand and by scipy."""

import csv
import io
import math

import pytest
from scipy import stats

from src.sweep import paper_figures
from src.sweep.plot import plot
from src.sweep.table import (
    RunFigures,
    Sweep,
    main_table,
    markdown,
    means_table,
    runs_csv,
    summarize,
    table_csv,
)

COCO = Sweep("coco", "fsod", 0, "fsrw", "nAP", "coco14_test_novel", ("cat",), "COCO AP.")


def run(shot, seed, value, **more):
    per_class = {"cat": value * 2, "car": 1.0}
    results = {"AP": value / 2, "nAP": value, "bAP": -100.0}
    return RunFigures(shot, 0, seed, 1000 * shot, 16000 * shot, 60.0, results, per_class, **more)


RUNS = [run(1, 0, 9.0), run(1, 1, 10.0), run(1, 2, 14.0), run(30, 0, 22.0)]


def cells(table):
    """Rows of a pipe table, as {header: cell}."""
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()]
    return [dict(zip(lines[0], line)) for line in lines[2:]]


def test_three_values_by_hand():
    found = summarize([9.0, 10.0, 14.0])
    # mean 11, deviations -2, -1, 3: squares sum to 14
    assert found.mean == pytest.approx(11.0)
    assert found.sigma == pytest.approx(math.sqrt(14 / 3))
    assert found.deviation == pytest.approx(math.sqrt(7))
    # t table: 4.3027 for two degrees of freedom at 97.5 %
    assert found.t_half == pytest.approx(4.302653 * math.sqrt(7) / math.sqrt(3), rel=1e-6)
    assert found.z_half == pytest.approx(1.96 * math.sqrt(14 / 3) / math.sqrt(3))
    assert (found.count, found.low, found.high) == (3, 9.0, 14.0)


def test_t_interval_is_scipys():
    values = [18.1, 18.9, 17.2, 18.0, 19.4, 18.3, 17.7, 18.8, 18.2, 18.5]
    found = summarize(values)
    low, high = stats.t.interval(0.95, 9, loc=sum(values) / 10, scale=stats.sem(values))
    assert found.mean - found.t_half == pytest.approx(low)
    assert found.mean + found.t_half == pytest.approx(high)
    # what the module says of ten runs
    assert found.z_half / found.t_half == pytest.approx(0.822, abs=0.001)


def test_one_value_has_no_interval():
    found = summarize([5.0])
    assert (found.mean, found.sigma) == (5.0, 0.0)
    assert all(map(math.isnan, (found.t_half, found.z_half, found.deviation)))


def test_undefined_values_do_not_count():
    assert summarize([-100.0, 4.0, 6.0]).mean == 5.0
    nothing = summarize([-100.0])
    assert nothing.count == 0 and math.isnan(nothing.mean)
    assert math.isnan(summarize([]).mean)
    assert summarize([0.0, 0.0]).mean == 0.0


def test_main_table():
    first, last = cells(main_table(RUNS, COCO))
    assert first["shot"] == "1" and first["runs"] == "3" and first["nAP"] == "11.00"
    assert first["95 % (t)"] == "± 6.57" and first["95 % (z, official)"] == "± 2.44"
    assert first["sigma"] == "2.16" and first["min"] == "9.00" and first["max"] == "14.00"
    assert first["paper"] == "9.3" and first["repository"] == "9.7"
    assert first["iterations"] == "1000" and first["images seen"] == "16000"
    assert first["official images"] == "16000" and first["% of official"] == "100"
    assert last["95 % (t)"] == last["95 % (z, official)"] == "n/a" and last["paper"] == "22.6"
    # 30 * 16000 images against 4000 iterations of 16
    assert last["official images"] == "64000" and last["% of official"] == "750"


def test_other_metrics_are_not_held_against_the_paper():
    other = Sweep("coco", "fsod", 0, "fsrw", "AP", "coco14_test_all")
    assert "paper" not in cells(main_table(RUNS, other))[0]
    own = Sweep("own", "fsod", 0, "tfa", "nAP")
    assert not {"paper", "official images"} & set(cells(main_table(RUNS, own))[0])


def test_figures_and_classes():
    rows = {row["figure"]: row for row in cells(means_table(RUNS, COCO, "figure"))}
    assert rows["nAP"]["1-shot"] == "11.00 ± 6.57" and rows["nAP"]["30-shot"] == "22.00"
    assert rows["AP"]["1-shot"] == "5.50 ± 3.29"
    assert rows["bAP"]["1-shot"] == "n/a"
    (cat,) = cells(means_table(RUNS, COCO, "class"))  # the novel one only
    assert cat == {"class": "cat", "1-shot": "22.00 ± 13.14", "30-shot": "44.00"}
    without_split = Sweep("own", "fsod", 0, "tfa", "AP")
    assert [row["class"] for row in cells(means_table(RUNS, without_split, "class"))] == [
        "cat",
        "car",
    ]


def test_ap50_of_classes_goes_with_ap50():
    runs = [run(1, 0, 9.0, per_class_50={"cat": 77.0})]
    voc = Sweep("voc", "fsod", 1, "fsrw", "nAP50", novel_classes=("cat",))
    assert cells(means_table(runs, voc, "class")) == [{"class": "cat", "1-shot": "77.00"}]


def test_markdown_says_what_it_shows():
    text = markdown(RUNS, COCO, 20, "plot.png")
    assert "# Sweep: COCO, fsod, fsrw-like" in text and "4 of 20 runs" in text
    assert "nAP in percent on coco14_test_novel. COCO AP." in text
    assert "divided by n-1" in text and "divided by n)" in text
    assert "![nAP over shots](plot.png)" in text and "AP of each novel class" in text
    assert "another mean" not in text
    gfsod = Sweep("coco", "gfsod", 0, "fsrw", "nAP")
    assert "gfsod figures are tfa-like: its line is another mean" in markdown(RUNS, gfsod, 4)


def test_csv_files():
    rows = list(csv.DictReader(io.StringIO(runs_csv(list(reversed(RUNS))))))
    assert [(row["shot"], row["seed"]) for row in rows] == [
        ("1", "0"),
        ("1", "1"),
        ("1", "2"),
        ("30", "0"),
    ]
    assert rows[2]["nAP"] == "14.0000" and rows[2]["bAP"] == "" and rows[2]["AP cat"] == "28.0000"
    table = list(csv.DictReader(io.StringIO(table_csv(RUNS, COCO))))
    (line,) = [row for row in table if row["name"] == "nAP" and row["shot"] == "1"]
    assert (line["runs"], line["mean"], line["t95"]) == ("3", "11.0000", "6.5724")
    assert (line["sigma"], line["sample_deviation"]) == ("2.1602", "2.6458")
    assert (line["paper"], line["repository"]) == ("9.3", "9.7")
    assert [row["paper"] for row in table if row["name"] == "AP"] == ["", ""]
    assert {row["name"] for row in table if row["kind"] == "class"} == {"cat"}


def test_the_plot_is_a_picture(tmp_path):
    from PIL import Image

    for sweep, shots in ((COCO, RUNS), (Sweep("own", "fsod", 0, "tfa", "AP"), RUNS[:1])):
        plot(tmp_path / "plot.png", shots, sweep)
        with Image.open(tmp_path / "plot.png") as image:
            image.load()
            assert image.size == (1080, 690)


def test_reported_tables_are_complete():
    for (dataset, setting, _), tables in paper_figures.REPORTED.items():
        count = len(paper_figures.SHOTS[dataset])
        assert len(tables["paper"]) == len(tables["repository"]) == count
        assert len(paper_figures.ITERATIONS[dataset, setting]) == count
    assert len(paper_figures.REPORTED) == 8
    assert paper_figures.reported("voc", "gfsod", 3, "repository")[10] == 61.9
    assert paper_figures.reported("coco", "fsod", 0, "paper")[10] == 18.5
    assert paper_figures.reported("own", "fsod", 0, "paper") == {}
    assert paper_figures.official_images("coco", "gfsod")[30] == 192000
    assert paper_figures.official_images("own", "fsod") == {}
