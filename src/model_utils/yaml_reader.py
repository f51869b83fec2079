# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Reading configuration YAML: plain values only, one document, no key twice, `base:` merged.

A *tree* here is a dictionary with text keys whose values are trees, lists, text, numbers,
booleans or None. *Sources* tell, for each dotted key, which file or flag set it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from src.model_utils.errors import InputError
from src.model_utils.paths import require_path
from src.util import read_regular

Tree = dict[str, Any]
Sources = dict[str, str]

# Flat top-level keys that no configuration of this project has and every one of the older has.
_OLDER_PORT_KEYS = frozenset(
    "activate_num_classes anchor_ratios anchor_scales anchor_strides epoch_size expand_ratio "
    "feature_shapes flip_ratio img_height img_width keep_ratio lr_type milestones neg_iou_thr "
    "num_anchors num_bboxes_stage2 num_expected_neg num_expected_pos num_expected_pos_stage2 "
    "num_gts pos_iou_thr rcnn_do_cls_dropout rcnn_num_layers resnet_block resnet_out_channels "
    "roi_align_featmap_strides roi_align_finest_scale roi_align_out_channels roi_layer "
    "roi_sample_num rpn_feat_channels rpn_in_channels rpn_nms_across_levels "
    "rpn_proposal_nms_across_levels rpn_proposal_nms_pre rpn_target_stds test_score_thr "
    "use_sigmoid_cls warmup_iter".split()
)
_ENOUGH_OLDER_KEYS = 3
_MAX_BYTES = 1 << 17
_MAX_DEPTH = 32  # PyYAML's time grows with the square of it


class _PlainLoader(yaml.SafeLoader):
    """Safe loader with decimal exponents as numbers, without dates, refusing repeated keys."""


# PyYAML follows YAML 1.1, where `1e-4` is text, `1:30` is ninety and `2014-05-01` a date.
_PlainLoader.yaml_implicit_resolvers = {
    letter: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith(("timestamp", "merge"))]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_NUMBERS = {
    "tag:yaml.org,2002:int": r"^[-+]?(?:0|[1-9][0-9]*)$",
    "tag:yaml.org,2002:float": (
        r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"
        r"|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
}
for _letter, _resolvers in _PlainLoader.yaml_implicit_resolvers.items():
    _resolvers[:] = [entry for entry in _resolvers if entry[0] not in _NUMBERS]
for _tag, _pattern in _NUMBERS.items():
    _PlainLoader.add_implicit_resolver(_tag, re.compile(_pattern), list("-+.0123456789"))


def _construct_mapping(loader: _PlainLoader | _TextLoader, node: yaml.MappingNode) -> Tree:
    tree: Tree = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is not text", key_node.start_mark
            )
        if key in tree:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key '{key}' appears twice", key_node.start_mark
            )
        tree[key] = loader.construct_object(value_node, deep=True)
    return tree


_PlainLoader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


class _TextLoader(yaml.BaseLoader):
    """Loader for which every value is text as it is written, refusing repeated keys."""


_TextLoader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def parse_value(text: str) -> object:
    """Parse one command-line value as YAML.

    Raises:
        ValueError: If the text is not one plain YAML value.
    """
    try:
        documents = _documents(text, _PlainLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(_yaml_problem(error)) from error
    if len(documents) > 1:
        raise ValueError("more than one YAML document")
    return documents[0] if documents else None


def read_tree(path: Path, flag: str = "config_path") -> Tree:
    """Read one YAML file into a tree, without following `base:`; `flag` named it.

    Raises:
        InputError: If the file is missing, not UTF-8, no single plain YAML mapping, or a
            configuration of the older MindSpore port.
    """
    require_path(flag, path, "give a YAML file such as those in configs/", kind="file")
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path} is larger than a configuration can be (128 KiB)")
    text = _decoded(path, path.read_bytes())
    _refuse_older_port(path, text)
    return _tree(path, text, _PlainLoader)


def read_texts(path: Path) -> Tree:
    """Read a YAML file that other programs wrote: all its values are text, so `no` is no boolean.

    Raises:
        InputError: it cannot be read, or is no single YAML mapping without tags and aliases.
    """
    try:
        content = read_regular(path, _MAX_BYTES)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return _tree(path, _decoded(path, content), _TextLoader)


def _decoded(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}") from error


def _tree(path: Path, text: str, loader: type[_PlainLoader | _TextLoader]) -> Tree:
    try:
        documents = _documents(text, loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path} is not a plain YAML file: {_yaml_problem(error)}") from error
    if len(documents) > 1:
        raise InputError(f"{path} holds {len(documents)} YAML documents; write one, without '---'")
    tree = documents[0] if documents else None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise InputError(f"{path} holds a {type(tree).__name__}; write 'key: value' lines")
    return tree


def load_tree(path: Path) -> tuple[Tree, Sources]:
    """Read a YAML file and the files that its `base:` names; what is nearer wins.

    Nested mappings are merged; lists and all other values are replaced as a whole.

    Returns:
        The merged tree without `base`, and the file that set each dotted key.

    Raises:
        InputError: As `read_tree`, and for a `base` that is not a path or leads back to itself.
    """
    chain: list[tuple[Path, Tree]] = []
    following: Path | None = path
    while following is not None:
        names = [str(file) for file, _ in chain] + [str(following)]
        if following.resolve() in [file.resolve() for file, _ in chain]:
            raise InputError(
                f"{path}: base leads back to a file already read: {' -> '.join(names)}"
            )
        tree = read_tree(following)
        chain.append((following, tree))
        base = tree.pop("base", None)
        if base is not None and not (isinstance(base, str) and base):
            raise InputError(f"{following}: base must be the path of one YAML file, not {base!r}")
        if base is not None and not (following.parent / base).is_file():
            raise InputError(f"{following}: base {base} does not exist beside this file")
        following = None if base is None else following.parent / base
    merged: Tree = {}
    sources: Sources = {}
    for file, tree in reversed(chain):
        merge(merged, tree, str(file), sources)
    return merged, sources


def merge(into: Tree, tree: Mapping[str, Any], source: str, sources: Sources, at: str = "") -> None:
    """Merge `tree` into `into` in place and note `source` for each key; None keeps a mapping."""
    for key, value in tree.items():
        dotted = f"{at}.{key}" if at else key
        if isinstance(into.get(key), dict) and (value is None or isinstance(value, dict)):
            merge(into[key], value or {}, source, sources, dotted)
            continue
        sources[dotted] = source
        if isinstance(value, dict):
            into[key] = {}
            merge(into[key], value, source, sources, dotted)
        else:
            into[key] = value


def _documents(text: str, loader: type[_PlainLoader | _TextLoader]) -> list[Any]:
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise yaml.constructor.ConstructorError(
                None, None, "it is nested too deeply", event.start_mark
            )
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise yaml.constructor.ConstructorError(
                None, None, f"tags such as {tag} are not allowed", event.start_mark
            )
        if getattr(event, "anchor", None) is not None:
            raise yaml.constructor.ConstructorError(
                None, None, "anchors and aliases are not allowed", event.start_mark
            )
    return list(yaml.load_all(text, Loader=loader))  # noqa: S506 - neither makes objects


def _yaml_problem(error: Exception) -> str:
    """Return the parser's complaint on one line, with its place."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem} (line {mark.line + 1}, column {mark.column + 1})"
    return " ".join(str(error).split())


def _refuse_older_port(path: Path, text: str) -> None:
    # By the text, so that the reason is given even where such a file is no plain YAML.
    found = sorted(_OLDER_PORT_KEYS.intersection(re.findall(r"(?m)^(\w+)[ \t]*:", text)))
    if len(found) >= _ENOUGH_OLDER_KEYS:
        raise InputError(
            f"{path} is a configuration of the older MindSpore port (it sets "
            f"{', '.join(found[:_ENOUGH_OLDER_KEYS])}): there class 0 is the background and boxes "
            "are one pixel wider (+1), so neither its settings nor its checkpoints fit this "
            "project; start from configs/coco/defrcn_det_r101_base.yaml, carry your own paths "
            "over with --key=value, and take weights from src/pkl2ckpt.py or src/pth2ckpt.py"
        )
