# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The tables of recipes say what the configurations and the networks they build are."""

from __future__ import annotations

import functools
import re

import pytest

from mindspore_hub_conf import recipes
from src.assembly.training import make_detector
from src.model_utils.config import Config, load_config
from src.model_utils.paths import project_folder
from src.sweep.paper_figures import reported

FOLDER = project_folder() / "configs"
RECIPES = recipes()
TABLES = ("README.md", "README_CN.md")
NOT_RUN = {"README.md": "not run", "README_CN.md": "未运行"}
# Classes that the data decide: nine and three shapes; two, one and three kinds of cells.
OF_THE_DATA = {"shapes_base": 9, "shapes_fsod_5shot": 3, "bccd_base": 2, "bccd_fsod_10shot": 1} | {
    "bccd_gfsod_10shot": 3
}


def rows(table: str) -> dict[str, list[str]]:
    """The other cells of each row, by the recipe's name; the link leads to its file."""
    found = {}
    for line in (FOLDER / table).read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"\| \[`(\w+)`\]\(([\w./]+)\) \|(.*)\|", line):
            assert RECIPES[match[1]] == FOLDER / match[2]
            found[match[1]] = [cell.strip() for cell in match[3].split("|")]
    return found


@functools.cache
def config_of(name: str) -> Config:
    return load_config(RECIPES[name])


@pytest.fixture(scope="module")
def parameters():
    """How many numbers a recipe's network trains and has; equal networks are built once."""
    known: dict[tuple, tuple[int, int]] = {}

    def count(name: str) -> tuple[int, int]:
        model = config_of(name).model
        num_classes = model.num_classes or OF_THE_DATA[name]
        what = (str(model.backbone), len(model.anchors.sizes), num_classes)
        key = (*what, model.rpn.freeze, model.roi_heads.freeze_feat)
        if key not in known:
            net = make_detector(config_of(name), tuple(map(str, range(num_classes))))
            trained, every = net.trainable_params(), net.get_parameters()
            known[key] = (sum(p.size for p in trained), sum(p.size for p in every))
        return known[key]

    return count


@pytest.mark.parametrize("table", TABLES)
def test_every_recipe_has_a_row(table):
    assert set(rows(table)) == set(RECIPES)


def test_both_languages_show_the_same():
    first, second = (rows(table) for table in TABLES)
    assert list(first) == list(second)
    for name, cells in first.items():
        assert cells[:-1] == second[name][:-1], name
        assert cells[-1] == second[name][-1] or cells[-1] == NOT_RUN["README.md"], name


@pytest.mark.parametrize("table", TABLES)
def test_only_what_was_measured_has_a_figure(table):
    with_figures = {name for name, cells in rows(table).items() if cells[-1] != NOT_RUN[table]}
    assert with_figures == set(OF_THE_DATA)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_schedule_input_and_the_papers_figure(name):
    config = config_of(name)
    solver, edges = config.solver, config.input.min_size_train
    _, _, _, batch, edge, iterations, rate, scale, paper, _ = rows("README.md")[name]
    assert batch == str(solver.images_per_batch)
    assert edge == f"{min(edges)}–{max(edges)}"
    assert iterations == f"{solver.max_iter:,} ({', '.join(f'{step:,}' for step in solver.steps)})"
    assert (float(rate), float(scale)) == (solver.base_lr, config.model.roi_heads.backward_scale)
    assert config.input.min_size_test == (800 if "r101" in name else edges[-2])
    assert config.input.max_size_train == (1333 if "r101" in name else 288)
    found = re.fullmatch(r"defrcn_(g?fsod)_r101_novel(\d?)_(\d+)shot", name)
    wanted = "–"
    if found:
        figures = reported(RECIPES[name].parent.name, found[1], int(found[2] or 0), source="paper")
        wanted = str(figures[int(found[3])])
    assert paper == wanted


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_parameters_and_size(name, parameters):
    classes, counts, megabytes = rows("README.md")[name][:3]
    assert int(classes) == (config_of(name).model.num_classes or OF_THE_DATA[name])
    trained, everything = parameters(name)
    digits = 2 if "r101" in name else 3
    assert counts == f"{trained / 1e6:.{digits}f} / {everything / 1e6:.{digits}f}"
    # The file holds names and checksums too.
    assert 0 <= float(megabytes) + 0.05 - 4 * everything / 1e6 < 0.2
