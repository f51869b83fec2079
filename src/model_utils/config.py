# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Reading the configuration: YAML with `base:`, then `--key=value` flags, then one typed check.

Imported by the entry points and `src/network_define.py` only; everything else takes plain
values. Nothing here needs MindSpore or looks at the disk beyond the YAML files.
"""

from __future__ import annotations

import collections
import difflib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from src.model_utils.command_line import command_parser
from src.model_utils.config_model import ModelSection, Section
from src.model_utils.config_schema import Config, Solver
from src.model_utils.custom_sets import CustomDataset
from src.model_utils.errors import InputError
from src.model_utils.paths import require_path
from src.model_utils.removed_keys import removal
from src.model_utils.set_names import fill_seed
from src.model_utils.yaml_reader import Sources, Tree, load_tree, merge, parse_value, read_tree

__all__ = [
    "Config",
    "ModelSection",
    "Solver",
    "config_from_arguments",
    "describe_keys",
    "fill_shot_seed",
    "load_config",
    "read_section",
    "require_path",
    "to_plain",
    "to_yaml",
]

AnySection = TypeVar("AnySection", bound=Section)
OVERLAY = "overlay"  # the flag of files that are laid over a configuration
_CUSTOM = "data.custom"
_MOST_PROBLEMS = 100  # told at once
_SHOT_FOLDERS = (
    "train_mindrecord_dir",
    "test_mindrecord_dir",
    "save_checkpoint_path",
    "eval_checkpoint_path",
    "result_path",
)


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file with all that its `base:` names, apply flags, and check everything.

    Args:
        path: The YAML file.
        overrides: Command-line words: `--a.b=value`, or `--a.b value`; a lone `--flag` turns a
            true/false key on. Values are read as YAML, except that keys of type text take the
            words as they are. `--overlay=FILE` names a YAML file whose keys count more than those
            of `path`, and less than flags; a later one counts more than an earlier one.

    Returns:
        The configuration, with `seedx` replaced: see `fill_shot_seed`.

    Raises:
        InputError: One message that names, for every problem found, the file or flag, the key
            and, where a key looks like a known one, that one.
    """
    tree, sources = load_tree(Path(path))
    problems: list[str] = []
    flags = list(_parse_overrides(overrides, problems))
    for overlay in (str(value) for key, value in flags if key == OVERLAY):
        keys = read_tree(Path(overlay), f"--{OVERLAY}")
        if "base" in keys:
            raise InputError(
                f"--{OVERLAY} {overlay}: it has a base, so it is a configuration of its own; name "
                "it in --config_path, or take the line out"
            )
        merge(tree, keys, overlay, sources)
    for key, value in flags:
        if key == OVERLAY:
            continue
        if problem := _override_problem(key):
            problems.append(f"--{key}: {problem}")
        else:
            merge(tree, _nested(key, value), f"--{key}", sources)
    try:
        config = Config.model_validate(_tuples(tree))
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start : error.end])
        problems.append(f"{path}: a text holds {half}, which is half a character; correct it")
    except ValidationError as error:
        problems += _validation_problems(error, sources, str(path))
    if problems:
        raise _refusal(problems, path)
    return fill_shot_seed(config)


def read_section(path: Path, kind: type[AnySection], flag: str) -> AnySection:
    """Read a YAML file of its own, with the checks of a configuration; `flag` named it.

    Raises:
        InputError: As `load_config`.
    """
    tree = read_tree(path, flag)
    try:
        return kind.model_validate(_tuples(tree))
    except ValidationError as error:
        known = _all_keys(kind)
        raise _refusal(_validation_problems(error, {}, str(path), known), path) from error


def _refusal(problems: Sequence[str], path: str | os.PathLike[str]) -> InputError:
    """One problem as a sentence, several as lines below the file's name."""
    if len(problems) == 1:
        return InputError(problems[0])
    more = "" if len(problems) < _MOST_PROBLEMS else " or more"
    shown = "\n  ".join(problems[:_MOST_PROBLEMS])
    return InputError(f"{path}: {len(problems)} problems{more}\n  {shown}")


def fill_shot_seed(config: Config) -> Config:
    """Replace the placeholder `seedx` by `seed<shot_seed>` (by default `seed<seed>`).

    It stands for the number of the K-shot set in the names of training and test sets, and in the
    folders of a run that shall not be shared by several numbers.
    """
    number = config.seed if config.shot_seed is None else config.shot_seed

    def filled(text: str) -> str:
        return fill_seed(text, number)

    data = {"train": tuple(map(filled, config.data.train))}
    data["test"] = tuple(map(filled, config.data.test))
    folders = {key: filled(getattr(config, key)) for key in _SHOT_FOLDERS}
    return config.model_copy(update={**folders, "data": config.data.model_copy(update=data)})


def config_from_arguments(argv: Sequence[str] | None, description: str) -> Config:
    """Read the command line of an entry point: `--config_path=FILE [--key=value …]`.

    Args:
        argv: The words after the program's name; None takes them from the process.
        description: First line of `--help`, which also lists every key.

    Raises:
        InputError: As `load_config`.
    """
    parser = command_parser(
        {
            "--config_path": dict(help="YAML file, see configs/"),
            f"--{OVERLAY}": dict(
                metavar="FILE",
                action="append",
                default=[],
                help="YAML file whose keys count more, such as configs/gpu.yaml",
            ),
        },
        description=description,
        epilog="keys, each settable as --key=value (defaults shown):\n" + describe_keys(),
    )
    known, overrides = parser.parse_known_args(argv)
    if known.config_path is None:
        raise InputError("give --config_path=FILE, such as configs/coco/defrcn_det_r101_base.yaml")
    overlays = [f"--{OVERLAY}={path}" for path in known.overlay]
    return load_config(known.config_path, [*overlays, *overrides])


def describe_keys() -> str:
    """Return one line a key: its dotted name, default and meaning."""
    lines = []
    for key, field in _fields(Config):
        if _section(field) is None:
            default = yaml.safe_dump(field.default, default_flow_style=True, width=1000)
            shown = default.replace("...\n", "").strip()
            lines.append(f"  --{key}={shown}  {field.description or ''}".rstrip())
    return "\n".join(lines)


def to_plain(config: Section) -> dict[str, Any]:
    """Return a configuration (or a section) as plain dictionaries and lists."""
    return config.model_dump(mode="json")


def to_yaml(config: Section) -> str:
    """Return a configuration as YAML text that `load_config` reads back to an equal one."""
    return str(yaml.safe_dump(to_plain(config), sort_keys=False, default_flow_style=None))


def _parse_overrides(words: Sequence[str], problems: list[str]) -> Iterator[tuple[str, object]]:
    """Yield dotted keys and values; what cannot be read goes into `problems`."""
    waiting = collections.deque(words)
    while waiting:
        word = waiting.popleft()
        if not word.startswith("--") or len(word) == 2:
            problems.append(f"'{word}' is not a flag; write --key=value")
            continue
        key, equals, text = word[2:].partition("=")
        if not equals:
            if waiting and not waiting[0].startswith("--"):
                text = waiting.popleft()
            elif _annotation(key) is bool:
                text = "true"
            else:
                problems.append(f"--{key}: {_override_problem(key) or 'give a value'}")
                continue
        try:
            yield key, _value(key, text)
        except ValueError as error:
            problems.append(f"--{key}: cannot read '{text}': {error}")


def _value(key: str, text: str) -> object:
    """Read a flag's text: as it stands for keys of type text, as YAML for all others."""
    if _annotation(key) is str:
        return text
    value = parse_value(text)
    of_text = key.startswith(f"{_CUSTOM}.") and not isinstance(value, (str, list, dict))
    return text if of_text and value is not None else value


def _nested(key: str, value: object) -> Tree:
    for part in reversed(key.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def _override_problem(key: str) -> str | None:
    """Return what is wrong with a flag's key, or None if there is such a key or section."""
    known = _all_keys()
    if key in known or (key.startswith(f"{_CUSTOM}.") and key.count(".") > 1):
        return None
    return removal(key, None) or f"unknown key{_hint(key, known, '--')}"


def _hint(key: str, known: Iterable[str], dashes: str = "") -> str:
    """Return " (did you mean …?)" for the known keys that `key` most probably stands for.

    First those that end in the very same name, then those spelt alike beside it, then any.
    """
    names = sorted(known)
    parent, _, leaf = key.rpartition(".")
    found = [name for name in names if name.rpartition(".")[2] == leaf and name != key]
    leaves = {name.rpartition(".")[2]: name for name in names}
    siblings = {n.rpartition(".")[2]: n for n in names if n.rpartition(".")[0] == parent}
    for word, candidates, cutoff in (
        (leaf, siblings, 0.6),
        (leaf.lower(), siblings, 0.6),
        (key, dict(zip(names, names)), 0.6),
        (leaf.lower(), leaves, 0.75),
    ):
        close = difflib.get_close_matches(word, list(candidates), n=1, cutoff=cutoff)
        found = found or [candidates[name] for name in close]
    return f" (did you mean {' or '.join(dashes + name for name in found[:3])}?)" if found else ""


def _validation_problems(
    error: ValidationError, sources: Sources, path: str, known: Sequence[str] = ()
) -> list[str]:
    """Return one line a problem: the file or flag that set the key, the key, what is wrong.

    `known` are the keys that there are, if not those of a configuration.
    """
    lines = []
    for problem in error.errors(include_url=False)[:_MOST_PROBLEMS]:
        key = ".".join(str(part) for part in problem["loc"])
        source = _source(key, sources, path)
        kind, message = problem["type"], problem["msg"].removeprefix("Value error, ")
        gone = None if known else removal(key, problem["input"])
        if gone:
            message = gone
        elif kind == "extra_forbidden":
            dotted = "." in str(problem["loc"][-1])
            names = known or _keys_for(key)
            hint = "; nest it: dots are for flags only" if dotted else _hint(key, names)
            message = f"unknown key{hint}"
        elif kind == "missing":
            message = "is missing"
        elif kind != "value_error":
            message = f"{message[0].lower()}{message[1:]}, not {_shown(problem['input'])}"
        place = source if source == f"--{key}" else f"{source}: {key}" if key else source
        lines.append(f"{place}: {message}")
    return lines


def _source(key: str, sources: Mapping[str, str], path: str) -> str:
    """Return who set `key`, or the nearest key above it, or last anything below it."""
    at = key
    while at:
        if at in sources:
            return sources[at]
        below = [source for name, source in sources.items() if name.startswith(f"{at}.")]
        if below:
            flags = [source for source in below if source.startswith("--")]
            return (flags or below)[-1]
        at = at.rpartition(".")[0]
    return path


def _shown(value: object) -> str:
    text = repr(json.loads(json.dumps(value)))  # lists as they were written, not tuples
    return text if len(text) <= 60 else f"{text[:57]}..."


def _keys_for(key: str) -> list[str]:
    """Return the keys that an unknown one may be compared with (those of its own data set)."""
    parts = key.split(".")
    if key.startswith(f"{_CUSTOM}.") and len(parts) > 3:
        return _all_keys(CustomDataset, ".".join(parts[:3]) + ".")
    return _all_keys()


def _annotation(key: str) -> object:
    """Return the type of a dotted key; text for choices among texts; None if unknown."""
    field = dict(_fields(Config)).get(key)
    if field is None:
        return None
    choices = get_args(field.annotation)
    is_word = choices and all(isinstance(choice, str) for choice in choices)
    return str if is_word else field.annotation


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key, dotted, in order: a section's own before those in it."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}", field
        section = _section(field)
        if section is not None:
            yield from _fields(section, f"{prefix}{name}.")


def _all_keys(model: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    return [key for key, _ in _fields(model, prefix)]


def _section(field: FieldInfo) -> type[Section] | None:
    """Return the model of a key that is a section, or None."""
    annotation = field.annotation
    # On Python 3.9 and 3.10 `tuple[int, ...]` passes for a type, so ask for its origin first.
    if get_origin(annotation) is None and isinstance(annotation, type):
        return annotation if issubclass(annotation, Section) else None
    return None


def _tuples(value: object) -> object:
    """Turn lists into tuples, all the way down: a frozen configuration holds no lists."""
    if isinstance(value, dict):
        return {key: _tuples(entry) for key, entry in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
