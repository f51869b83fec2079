# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The READMEs promise only what is there: keys with their defaults, files, commands, links."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from src.model_utils.config import Config, load_config, to_plain
from src.model_utils.paths import project_folder

ROOT = project_folder()
READMES = ("README.md", "README_CN.md")
DOCUMENTS = tuple(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "configs/*.md", "datasets/README.md", "*/README.md")
    for path in sorted(ROOT.glob(pattern))
)
TRANSLATED = [name for name in DOCUMENTS if name.replace(".md", "_CN.md") in DOCUMENTS]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def value_of(key):
    """The default of a dotted key, or fail."""
    value = to_plain(Config())
    for part in key.split("."):
        value = value[part]
    return value


def key_rows(name):
    """(key, default as text) of the table of keys."""
    for line in text(name).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not re.fullmatch(r"`[a-z][\w.]*`(, `[a-z][\w.]*`)*", cells[0]) or ".pth" in cells[0]:
            continue
        keys = re.findall(r"`([^`]+)`", cells[0])
        defaults = re.findall(r"`([^`]+)`", cells[1])
        assert len(defaults) in (0, len(keys)), line
        yield from zip(keys, defaults or [""] * len(keys))


@pytest.mark.parametrize("name", READMES)
def test_keys_have_the_defaults_that_the_table_says(name):
    rows = list(key_rows(name))
    assert len(rows) > 40
    for key, shown in rows:
        if key not in ("config_path", "overlay"):
            assert (yaml.safe_load(shown) if shown else "") == value_of(key), key


def test_both_languages_list_the_same_keys():
    assert list(key_rows(READMES[0])) == list(key_rows(READMES[1]))


@pytest.mark.parametrize("name", TRANSLATED)
def test_both_languages_show_the_same_commands(name):
    both = (name, name.replace(".md", "_CN.md"))
    shown = [re.findall(r"```bash\n(.*?)```", text(one), re.DOTALL) for one in both]
    without_comments = [[re.sub(r"\s*#.*", "", block) for block in blocks] for blocks in shown]
    assert without_comments[0] == without_comments[1]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_exist(name):
    folder = (ROOT / name).parent
    for target in re.findall(r"\]\(([^)#]+)\)", text(name)):
        if "://" not in target:
            assert (folder / target).exists(), target
    for path in re.findall(
        r"(?:bash|python|--config_path=)\s*([\w./]+\.(?:sh|py|yaml))", text(name)
    ):
        assert (ROOT / path).is_file(), path
    for module in re.findall(r"python -m (src(?:\.\w+)+)", text(name)):
        if not module.endswith("NAME"):
            place = ROOT / module.replace(".", "/")
            assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), module


def test_every_source_file_names_its_authors_and_licence():
    """Except the vectors' own script, which is kept as it came."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    if not names:
        pytest.skip("no git checkout")
    sources = [
        name
        for name in names.splitlines()
        if name.endswith((".py", ".sh", ".cc", ".h", "CMakeLists.txt")) or name == ".ci/run"
    ]
    assert len(sources) > 300
    for name in sorted({*sources} - {"tests/golden/weights.py"}):
        if (ROOT / name).is_file():
            head = "".join(text(name).splitlines(keepends=True)[:2])
            assert "DeFRCN on MindSpore authors" in head and "Apache License 2.0" in head, name


@pytest.mark.parametrize("name", DOCUMENTS)
def test_modules_that_are_named_exist(name):
    """By the end of their path; programs that a reader writes are no modules of ours."""
    rooms = (ROOT / room for room in ("src", "tests", "benchmarks"))
    paths = [*ROOT.glob("*.py"), *(path for room in rooms for path in room.rglob("*.py"))]
    there = "\n".join(path.as_posix() for path in paths)
    for module in re.findall(r"`([\w/]*\w\.py)`", text(name)):
        assert re.search(rf"/{re.escape(module)}$", there, re.MULTILINE), module


def anchors(name):
    """Names of a page's headings, as GitHub and Gitee make them."""
    without_code = re.sub(r"```.*?```", "", text(name), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", without_code, re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return [word.replace(" ", "-") for word in words]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_to_headings_lead_to_one(name):
    for file, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text(name)):
        target = (ROOT / name).parent / file if file else ROOT / name
        assert anchor in anchors(target.resolve().relative_to(ROOT)), f"{file}#{anchor}"


@pytest.mark.parametrize("name", READMES)
def test_the_contents_name_every_section(name):
    sections = re.findall(r"^## (.*)$", re.sub(r"```.*?```", "", text(name), flags=re.DOTALL), re.M)
    listed = re.findall(r"^\* \[([^]]*)\]\(#", text(name), re.MULTILINE)
    assert listed == sections[1:]


@pytest.mark.parametrize("name", READMES)
def test_the_tree_shows_every_program_and_every_room(name):
    (tree,) = re.findall(r"```text\n(train\.py .*?)```", text(name), re.DOTALL)
    shown = set()
    for line in tree.splitlines():
        inside = "src/" if line.startswith("  ") else ""
        shown |= {inside + word.rstrip("/") for word in line[:38].split()}
    rooms = {path.parent for path in (ROOT / "src").glob("*/__init__.py")}
    programs = {*ROOT.glob("*.py"), *(ROOT / "src").glob("[!_]*.py")}
    wanted = {path.relative_to(ROOT).as_posix() for path in rooms | programs}
    assert wanted <= shown
    assert [word for word in sorted(shown) if not (ROOT / word).exists()] == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
def test_nothing_lies_at_the_root_by_accident():
    """A command that went wrong can leave a file, and `git add` a link to somebody's folder."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "--stage"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    entries = [line.split(maxsplit=3) for line in listed.stdout.splitlines()]
    assert [name for mode, _, _, name in entries if mode == "120000"] == []
    kept = re.compile(r"\.\S*|[\w-]+\.(py|md|toml|txt)|LICENSE|CPPLINT\.cfg")
    alone = [name for *_, name in entries if "/" not in name]
    assert [name for name in alone if not kept.fullmatch(name)] == []


@pytest.mark.parametrize("name", READMES)
def test_the_example_of_own_data_is_valid(name, tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", text(name), re.DOTALL)
    path = tmp_path / "own.yaml"
    path.write_text(block, encoding="utf-8")
    assert "mine" in load_config(path).data.custom


def test_every_configuration_file_can_be_read():
    paths = sorted((ROOT / "configs").rglob("*.yaml"))
    assert len(paths) >= 2
    for path in paths:
        load_config(path)
