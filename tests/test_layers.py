"""Imports go down, never up (docs/architecture.md); files of the same upper layer stay apart."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Layer 2: the detector's parts; layer 3: their composition; layer 4: data, builder, evaluation.
LAYER_2 = {
    f"src.defrcn.{name}"
    for name in (
        "rpn",
        "proposal_generator",
        "portable",
        "bbox_assign_sample",
        "bbox_assign_sample_stage2",
        "roi_align",
        "rcnn",
        "resnet",
        "pcb_resnet",
        "pcb_encoder",
    )
}
LAYER_3 = {"src.defrcn.de_frcn", "src.defrcn.pcb"}
LAYER_4 = {
    f"src.{name}"
    for name in (
        "dataset",
        "network_define",
        "detecteval",
        "pkl2ckpt",
        "pth2ckpt",
        "trainer",
        "inference",
        "export_network",
    )
}
# Layer 5, beside the files of the top folder: tools that are run as python -m src.NAME.
TOOLS = {
    f"src.{name}"
    for name in (
        "prepare_coco",
        "make_demo_data",
        "demo_summary",
        "pretrain_encoder",
        "draw_kshot",
        "model_surgery",
        "sweep",
        "launch",
        "predict",
        "report",
    )
}
# What the entry points share: from the configuration to data, network and evaluation.
ASSEMBLY = {
    f"src.assembly{part}"
    for part in ("", "_data", "_eval", "_export", "_modelarts", "_pcb", "_watch")
}
CONFIG = "src.model_utils.config"
CONFIG_PARTS = {CONFIG, f"{CONFIG}_model", f"{CONFIG}_run", f"{CONFIG}_schema"}
READS_CONFIG = {"src.network_define"}
# What the project must run without: the libraries that the official vectors were made with.
FORBIDDEN = {"torch", "torchvision", "detectron2", "fvcore"}
NEEDS_NO_MINDSPORE = {
    *CONFIG_PARTS,
    "src.util",
    "src.assembly_data",
    "src.model_utils.moxing_adapter",
    "src.watch",
    "src.detecteval",
    "src.detection_rows",
    "src.evaluation",
    "src.voc_eval",
    "src.analysis",
    "src.report_plots",
    "src.report_page",
    "src.visualize",
    "src.lr_schedule",
} | {f"src.defrcn.{name}" for name in ("built_datacategory", "meta_coco", "meta_voc")}


def modules() -> dict[str, Path]:
    """Every module of the project but its tests, by dotted name."""
    paths = [*ROOT.glob("*.py"), *(ROOT / "src").rglob("*.py")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in names.items()}


def layer(name: str) -> int:
    """0 settings and devices; 1 helpers; 2 parts; 3 detector; 4 users of it; 5 entry points."""
    if not name.startswith("src") or name in TOOLS or name in ASSEMBLY:
        return 5
    if name.startswith("src.model_utils"):
        return 0
    return 4 if name in LAYER_4 else 3 if name in LAYER_3 else 2 if name in LAYER_2 else 1


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in the file, relative ones made absolute."""
    package = path.relative_to(ROOT).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def problems(name: str, imported: set[str]) -> list[str]:
    """What is wrong with a module's imports, in words."""
    known = modules()
    wrong = []
    for target in sorted(imported & set(known) - {name}):
        if layer(target) > layer(name):
            wrong.append(f"{name} imports {target}, which is above it")
        if layer(name) == layer(target) >= 4 and target not in ASSEMBLY:
            wrong.append(f"{name} imports {target}, of the same layer")
        may_read = layer(name) in (0, 5) or name in READS_CONFIG
        if target in CONFIG_PARTS and not may_read:
            wrong.append(f"{name} reads the configuration; hand it plain values")
    if name in NEEDS_NO_MINDSPORE and "mindspore" in roots(imported):
        wrong.append(f"{name} imports mindspore")
    wrong += [f"{name} imports {top}" for top in sorted(roots(imported) & FORBIDDEN)]
    return wrong


def roots(imported: set[str]) -> set[str]:
    """The packages that dotted names belong to."""
    return {target.split(".")[0] for target in imported}


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_go_down(name):
    assert problems(name, imports(modules()[name])) == []


@pytest.mark.parametrize(
    ("name", "imported", "expected"),
    [
        ("src.util", {"src.make_demo_data"}, "above"),
        ("src.demo_summary", {"src.make_demo_data"}, "same layer"),
        ("src.detecteval", {CONFIG}, "plain values"),
        ("src.detecteval", {"mindspore.ops"}, "mindspore"),
        ("src.util", {f"{CONFIG}_model"}, "plain values"),
        ("src.defrcn.gdl", {CONFIG}, "plain values"),
        ("train", {"torch.nn"}, "imports torch"),
        ("src.defrcn.box_ops", {"src.defrcn.rpn"}, "above"),
    ],
)
def test_the_check_notices(name, imported, expected):
    (found,) = problems(name, imported)
    assert expected in found


def test_relative_and_nested_imports_are_seen(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "src" / "defrcn" / "rpn.py"
    path.parent.mkdir(parents=True)
    path.write_text("def f():\n    from ..model_utils import config\n    import src.util\n")
    assert {"src.model_utils.config", "src.util"} <= imports(path)
