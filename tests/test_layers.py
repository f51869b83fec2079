# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Imports go down, never up (docs/architecture.md); rooms of one floor stay apart."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from src.model_utils.paths import project_folder

ROOT = project_folder()

# Floors from the ground up. A name is a module, or a folder with all that is in it; every module
# of the project has to be below one of them.
FLOORS = (
    {"src.model_utils", "src.util", "src.lr_schedule"},
    {"src.weights", "src.kernels"},
    {"src.defrcn", "src.sgd_optimizer", "src.adamw_optimizer"},
    {"src.network_define", "src.data"},
    {"src.dataset", "src.calibration", "src.evaluation", "src.export"},
    {"src.detecteval", "src.engine"},
    {"src.assembly"},
    {"src.model_surgery", "src.pkl2ckpt", "src.pth2ckpt", "src.predict", "src.sweep"}
    | {"src.tools", "src.demo", "src.launch"}
    | {"train", "eval", "export", "preprocess", "postprocess", "mindspore_hub_conf"},
)
# Rooms that may use more than what is below them: the sweep operates on base checkpoints.
ALSO = {"src.sweep": {"src.model_surgery"}}
# Rooms that stand on the ground floor only, whatever floor they are on.
ON_THE_GROUND = {"src.launch"}
# Inside the detector: its parts stand on helpers, the composition on its parts.
PARTS = {
    f"src.defrcn.{name}"
    for name in (
        "rpn",
        "proposal_generator",
        "portable",
        "fast",
        "half",
        "kernel_blocks",
        "kernels",
        "bbox_assign_sample",
        "bbox_assign_sample_stage2",
        "roi_align",
        "rcnn",
        "resnet",
        "pcb_resnet",
        "pcb_encoder",
    )
}
WHOLE = {"src.defrcn.de_frcn", "src.defrcn.pcb"}
CONFIG = "src.model_utils.config"
CONFIG_PARTS = {CONFIG, f"{CONFIG}_model", f"{CONFIG}_run", f"{CONFIG}_schema"}
READS_CONFIG = ("src.network_define", "src.assembly", "src.model_utils")
# What the project must run without: the libraries that the official vectors were made with.
FORBIDDEN = {"torch", "torchvision", "detectron2", "fvcore"}
NEEDS_NO_MINDSPORE = (
    *CONFIG_PARTS,
    "src.util",
    "src.lr_schedule",
    "src.assembly.data",
    "src.model_utils.moxing_adapter",
    "src.engine.watch.watch",
    "src.detecteval",
    "src.evaluation",
    "src.launch",
    "src.kernels",
    "src.defrcn.built_datacategory",
    "src.defrcn.meta_coco",
    "src.defrcn.meta_voc",
    "src.defrcn.meta_yolo",
)
# What a bundle of ONNX graphs is run by: at import these need nothing but the four packages.
FOUR_PACKAGES = {"numpy", "cv2", "PIL", "onnxruntime"}
NEEDS_FOUR_PACKAGES = (
    "src.calibration.pictures",
    "src.data.batching",
    "src.data.mindrecord_io",
    "src.data.transforms",
    "src.defrcn.data_types",
    "src.defrcn.detections",
    "src.defrcn.onnx_session",
    "src.defrcn.pcb",
    "src.defrcn.pcb_pooling",
    "src.defrcn.picture_file",
    "src.engine.claims",
    "src.engine.inference",
    "src.evaluation.detection_rows",
    "src.evaluation.result_folder",
    "src.evaluation.visualize",
    "src.export.bundle",
    "src.export.bundle_files",
    "src.export.graphs",
    "src.export.json_node",
    "src.model_utils.command_line",
    "src.model_utils.errors",
    "src.model_utils.folder_lock",
    "src.model_utils.interruption",
    "src.model_utils.paths",
    "src.predict.__main__",
    "src.predict.bundle",
    "src.predict.formats",
    "src.predict.inputs",
    "src.predict.look",
    "src.predict.output",
    "src.util",
)


def modules() -> dict[str, Path]:
    """Every module of the project but its tests, by dotted name."""
    paths = [*ROOT.glob("*.py"), *(ROOT / "src").rglob("*.py")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in names.items()}


def below(name: str, rooms) -> bool:
    """Whether a module is one of these rooms or in one of them."""
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def room_of(name: str) -> tuple[int, str]:
    """Floor and room of a module; a module in no room is an error."""
    for floor, rooms in enumerate(FLOORS):
        for room in rooms:
            if below(name, {room}):
                return floor, room
    raise LookupError(f"{name} is in no room; say in FLOORS where it belongs")


def inner_floor(name: str) -> int:
    """Within the detector: 0 helpers, 1 parts, 2 their composition."""
    return 2 if name in WHOLE else 1 if name in PARTS else 0


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


def imported_at_once(path: Path) -> set[str]:
    """Dotted names that are imported with a file: not in its functions, nor for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not (
            isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        ):
            waiting += ast.iter_child_nodes(node)
    return found


def problem(name: str, target: str) -> str | None:
    """What is wrong with one import of a module of the project, in words."""
    (floor, room), (target_floor, target_room) = room_of(name), room_of(target)
    if room == target_room:
        up = room == "src.defrcn" and inner_floor(target) > inner_floor(name)
        return f"{name} imports {target}, which is above it" if up else None
    if target_room in ALSO.get(room, ()):
        return None
    if target_floor > floor:
        return f"{name} imports {target}, which is above it"
    if target_floor == floor > 0:
        return f"{name} imports {target}, another room of its floor"
    if room in ON_THE_GROUND and target_floor > 0:
        return f"{name} imports {target}; {room} stands on the ground floor only"
    return None


def problems(name: str, imported: set[str]) -> list[str]:
    """What is wrong with a module's imports, in words."""
    targets = sorted((imported & set(modules())) - {name, "src"})
    wrong = [found for target in targets if (found := problem(name, target))]
    top = len(FLOORS) - 1
    may_read = below(name, READS_CONFIG) or room_of(name)[0] == top
    for target in targets:
        if target in CONFIG_PARTS and not may_read:
            wrong.append(f"{name} reads the configuration; hand it plain values")
    if below(name, NEEDS_NO_MINDSPORE) and "mindspore" in roots(imported):
        wrong.append(f"{name} imports mindspore")
    wrong += [f"{name} imports {library}" for library in sorted(roots(imported) & FORBIDDEN)]
    return wrong


def roots(imported: set[str]) -> set[str]:
    """The packages that dotted names belong to."""
    return {target.split(".")[0] for target in imported}


@pytest.mark.parametrize("name", sorted(set(modules()) - {"src"}))
def test_imports_go_down(name):
    assert problems(name, imports(modules()[name])) == []


@pytest.mark.parametrize("name", NEEDS_FOUR_PACKAGES)
def test_a_bundle_needs_four_packages(name):
    """That the program itself does is in tests/predict/test_bundle.py."""
    found = imported_at_once(modules()[name])
    others = roots(found) - FOUR_PACKAGES - {"src"}
    assert [root for root in sorted(others) if is_installed(root)] == []
    inner = {target for target in found if target in modules()} - {"src"}
    assert inner - set(NEEDS_FOUR_PACKAGES) <= {room for room in inner if is_package(room)}


def is_installed(root: str) -> bool:
    """Whether a package is none of Python's own."""
    found = importlib.util.find_spec(root)
    return found is None or "site-packages" in str(found.origin)


def is_package(name: str) -> bool:
    return modules()[name].name == "__init__.py"


def test_the_page_shows_these_floors():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| (.*?) \|", page, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(len(FLOORS)))
    for (_, cell), rooms in zip(rows, FLOORS):
        shown = {f"src.{name.removesuffix('.py')}" for name in re.findall(r"`([\w.]+)`", cell)}
        assert shown == {room for room in rooms if room.startswith("src.")}


def test_a_module_in_no_room_is_noticed():
    with pytest.raises(LookupError, match=r"src\.drawer"):
        room_of("src.drawer")


@pytest.mark.parametrize(
    ("name", "imported", "expected"),
    [
        ("src.util", {"src.demo.make_data"}, "above"),
        ("src.demo.summary", {"src.tools.report"}, "another room"),
        ("src.data.batching", {"src.network_define"}, "another room"),
        ("src.detecteval", {CONFIG}, "plain values"),
        ("src.detecteval", {"mindspore.ops"}, "mindspore"),
        ("src.util", {f"{CONFIG}_model"}, "plain values"),
        ("src.defrcn.gdl", {CONFIG}, "plain values"),
        ("src.launch.recipes", {"src.weights.checkpoint"}, "ground floor"),
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
