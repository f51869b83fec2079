# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""From numbers to sentences: what was found, where, and what to change.

An *error* is what training refuses or what makes its figures worthless, a *warning* what is wrong
most of the time, a *hint* what may be worth a thought.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from src.tools.data_check.analysis import ENLARGED, Settings
from src.tools.data_check.boxes import SUSPICIOUS

WEIGHTS = ("error", "warning", "hint")
FEW_BOXES = 20  # of a class in a full training set
BAD_FIT = 0.05  # share of boxes below IoU 0.5 that is worth a word, and what a change must gain
MANY_FAR = 0.1  # share of boxes beyond the anchors' reach from which on it is a warning
MANY_ENLARGED = 0.02  # share of enlarged pictures that is worth a word
_REMEDIES = {
    "no_area": "training leaves them out; correct or remove them in the annotations",
    "outside": "they are clipped; see whether the annotations count in another frame or unit",
    "tiny": "remove them, or raise input.min_size_{part}",
    "whole_picture": "see whether they are meant so, and remove them otherwise",
    "extreme_aspect": "see whether they are meant so; no ratio of model.anchors.aspect_ratios is "
    "near them",
    "twice": "remove the second ones in the annotations",
    "two_classes": "decide for one class in the annotations",
    "out_of_reach": "change model.anchors.sizes, or input.min_size_{part}",
}
_BOX_WEIGHTS = {
    **dict.fromkeys(("no_area", "outside", "twice", "two_classes"), "warning"),
    **dict.fromkeys(("tiny", "whole_picture", "extreme_aspect", "out_of_reach"), "hint"),
}


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        weight: "error", "warning" or "hint".
        kind: a word to know it by.
        sets: names of the sets that it is about.
        text: one sentence.
        items: files, or files with boxes; all of them.
    """

    weight: str
    kind: str
    sets: list[str]
    text: str
    items: list[str] = field(default_factory=list)


def all_findings(check: Mapping[str, Any], settings: Settings) -> list[dict[str, Any]]:
    """The findings, weightiest first; of one weight in the order of sets.

    Args:
        check: `sets`, `duplicates`, `few_shot` as `analysis` and `shots` make them.
        settings: of the configuration.
    """
    found = list(_about_classes(check["sets"], settings))
    found += _about_duplicates(check["duplicates"])
    for one in check["sets"]:
        found += _about_pictures(one)
        found += _about_counts(one)
        found += _about_boxes(one)
        found += _about_anchors(one, settings)
    for one in check["few_shot"]:
        found += _about_shots(one)
    return [asdict(one) for one in sorted(found, key=lambda one: WEIGHTS.index(one.weight))]


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _about_classes(sets: Sequence[Mapping[str, Any]], settings: Settings) -> Iterator[Finding]:
    """Classes that the programs would refuse together."""
    named = [(one["name"], [row["class"] for row in one["classes"]]) for one in sets]
    first, wanted = named[0]
    number = settings.num_classes
    if number is not None and number != len(wanted):
        text = (
            f"{first} has {count(len(wanted), 'class', 'classes')}, but model.num_classes is "
            f"{number}; set it to null."
        )
        yield Finding("error", "num_classes", [first], text)
    for name, classes in named[1:]:
        if classes != wanted:
            text = (
                f"{name} has other classes than {first}, so that nothing trained on the one can be "
                "evaluated on the other; name sets of the same classes in data.train and data.test."
            )
            yield Finding("error", "classes", [first, name], text)


def _about_duplicates(duplicates: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Finding]:
    for kind, leaks, weight, one, many, rest in (
        (
            *("same", True, "error", "picture is", "pictures are"),
            "in training and in test; take each out of one of them (data.train, data.test), "
            "because figures are too good with it",
        ),
        (
            *("near", True, "warning", "picture of training has", "pictures of training have"),
            "nearly the same one in test; look at them, and keep each scene in one of them "
            "(data.train, data.test)",
        ),
        (
            *("same", False, "warning", "picture is", "pictures are"),
            "there more than once, byte for byte; keep one of each in the annotations, with all "
            "its boxes",
        ),
        (
            *("near", False, "hint", "picture has", "pictures have"),
            "others that are nearly the same; look at them, and keep one of each in the "
            "annotations if they are one",
        ),
    ):
        groups = [group for group in duplicates[kind] if group["leaks"] == leaks]
        if groups:
            sets = list(dict.fromkeys(name for group in groups for name in group["sets"]))
            name = f"{'leak' if leaks else 'duplicates'}_{kind}"
            items = [" = ".join(group["pictures"]) for group in groups]
            text = f"{', '.join(sets)}: {count(len(groups), one, many)} {rest}."
            yield Finding(weight, name, sets, text, items)


def _about_pictures(one: Mapping[str, Any]) -> Iterator[Finding]:
    name, sets = one["name"], [one["name"]]
    if one["problems"]:
        text = (
            f"{name}: {count(len(one['problems']), 'picture')} of {one['pictures']:,} cannot be "
            "used, and train.py and eval.py refuse the set with them; correct the files, or take "
            "them out of the annotations."
        )
        yield Finding("error", "problems", sets, text, one["problems"])
    for kind, words in (
        ("deep", "grey with 16 bits, of which the upper 8 are used: see that little is lost"),
        ("rotated", "turned by an EXIF orientation: see that the boxes are those after turning"),
    ):
        items = one["oddities"][kind]
        if items:
            text = f"{name}: {count(len(items), 'picture is', 'pictures are')} {words}."
            yield Finding("hint", kind, sets, text, items)
    enlarged = one["picture_sizes"]["enlarged"]
    if enlarged > MANY_ENLARGED * one["pictures"]:
        text = (
            f"{name}: {count(enlarged, 'picture')} of {one['pictures']:,} are enlarged more than "
            f"{ENLARGED:g} times, which costs time and adds nothing; "
            f"input.min_size_{one['part']} may be less."
        )
        yield Finding("hint", "enlarged", sets, text)
    if one["pictures_left_out"]:
        text = (
            f"{name}: {one['pictures_left_out']:,} of {one['pictures']:,} pictures were compared "
            "as files only and not decoded; --max_pictures takes more."
        )
        yield Finding("hint", "not_read", sets, text)


def _about_counts(one: Mapping[str, Any]) -> Iterator[Finding]:
    name, sets, training = one["name"], [one["name"]], one["part"] == "train"
    if not one["boxes"]:
        text = f"{name}: none of {count(one['pictures'], 'picture')} has a box to "
        text += "train on; see data.train." if training else "judge by; see data.test."
        yield Finding("error" if training else "warning", "no_boxes", sets, text)
        return
    without = one["pictures_without_boxes"]
    if without:
        has = count(without, "picture has", "pictures have")
        text = f"{name}: {has} no usable box, of {one['pictures']:,}"
        if one["drops_them"]:
            text += "; training leaves them out (data.filter_empty: false takes them, too)."
        elif training:
            text += "; all in them is background (data.filter_empty: true leaves them out)."
        else:
            text += "; every detection in them counts as false."
        yield Finding("hint", "empty", sets, text)
    lacking = [row["class"] for row in one["classes"] if not row["boxes"]]
    if lacking:
        end = "it cannot be learned" if training else "it gets no AP"
        text = (
            f"{name}: {count(len(lacking), 'class has', 'classes have')} no box "
            f"({end}); annotate some, or take the name out of the classes."
        )
        yield Finding("warning", "class_without_boxes", sets, text, lacking)
    few = [row for row in one["classes"] if 0 < row["boxes"] < FEW_BOXES]
    if few and training and not one["few_shot"]:
        text = (
            f"{name}: {count(len(few), 'class has', 'classes have')} fewer than {FEW_BOXES} "
            "boxes; a few-shot class belongs into novel_classes of data.custom."
        )
        items = [f"{row['class']}: {count(row['boxes'], 'box', 'boxes')}" for row in few]
        yield Finding("hint", "few_boxes", sets, text, items)


def _about_boxes(one: Mapping[str, Any]) -> Iterator[Finding]:
    total = max(one["boxes"], 1)
    for kind, items in one["suspicious"].items():
        if not items:
            continue
        weight = _BOX_WEIGHTS[kind]
        if kind == "out_of_reach" and len(items) > MANY_FAR * total:
            weight = "warning"
        text = (
            f"{one['name']}: {count(len(items), 'box', 'boxes')} {SUSPICIOUS[kind]}; "
            f"{_REMEDIES[kind].format(part=one['part'])}."
        )
        yield Finding(weight, kind, [one["name"]], text, items)


def _about_anchors(one: Mapping[str, Any], settings: Settings) -> Iterator[Finding]:
    fit = one["anchors"]
    small = [row for row in one["classes"] if row["boxes"] and row["size_median"] < settings.stride]
    if small:
        text = (
            f"{one['name']}: {count(len(small), 'class has', 'classes have')} a median size below "
            f"{settings.stride} pixels, one cell of the network's grid (model.anchors.stride); "
            f"raise input.min_size_{one['part']} and input.max_size_{one['part']}."
        )
        items = [f"{row['class']}: {row['size_median']} pixels" for row in small]
        yield Finding("hint", "small_objects", [one["name"]], text, items)
    # K boxes say little of sizes, and anchors have to stay those of base training
    if one["part"] != "train" or one["few_shot"] or fit["chosen"] is None:
        return
    bad, better = fit["below_0.5"], fit["chosen"]["below_0.5"]
    novel = " (novel classes do not count)" if one["split"] == "base" else ""
    if bad >= BAD_FIT and bad - better >= BAD_FIT / 2:
        text = (
            f"{one['name']}: {bad:.1%} of the boxes{novel} have no anchor with an IoU of 0.5 in "
            f"size and shape; with model.anchors.sizes: {fit['chosen']['sizes']} it would be "
            f"{better:.1%} (not for a start from weights that were trained with other anchors)."
        )
        yield Finding("warning", "anchor_sizes", [one["name"]], text)
    if fit["ratio_below_0.5"] >= BAD_FIT:
        text = (
            f"{one['name']}: {fit['ratio_below_0.5']:.1%} of the boxes{novel} are more than 2.25 "
            "times longer or wider than every ratio of model.anchors.aspect_ratios, which no size "
            f"can mend; k-means would choose {fit['chosen_ratios']['ratios']}."
        )
        yield Finding("hint", "anchor_ratios", [one["name"]], text)


def _about_shots(one: Mapping[str, Any]) -> Iterator[Finding]:
    name, sets = one["set"], [one["set"]]
    few = [row for row in one["classes"] if row["boxes"] < row["wanted"]]
    if few:
        text = (
            f"{name}: {count(len(few), 'class has', 'classes have')} fewer than {one['shots']} "
            "usable boxes; add to the class's K-shot file, or draw sets with src.tools.draw_kshot."
        )
        items = [f"{row['class']}: {row['boxes']} of {row['wanted']}" for row in few]
        yield Finding("warning", "shots_lacking", sets, text, items)
    odd = [row for row in one["classes"] if row["unlikely"]]
    if odd:
        text = (
            f"{name}: the boxes of {count(len(odd), 'class', 'classes')} are all small or all "
            "large for the full set; another set may serve better (--shot_seed)."
        )
        items = [
            f"{row['class']}: {row['unlikely']}, median {row['size_median']} pixels instead of "
            f"{row['full_median']} (by chance {row['chance']:.2g})"
            for row in odd
        ]
        yield Finding("hint", "shots_sizes", sets, text, items)
    without = [row for row in one["classes"] if row["without_box"]]
    if without:
        total = sum(row["without_box"] for row in without)
        labelled = sum(row["boxes"] for row in one["classes"])
        text = (
            f"{name}: its pictures show {count(total, 'object')} of its classes without a box, "
            f"beside {labelled:,} with one, and they are trained as background; choose another set "
            "(--shot_seed), or annotate its pictures completely."
        )
        items = [
            f"{row['class']}: {row['without_box']} without a box, {row['boxes']} with one"
            for row in without
        ]
        yield Finding(
            "warning" if total > labelled else "hint", "shots_unlabelled", sets, text, items
        )
    if one["full_problem"]:
        text = (
            f"{name}: the full set cannot be read, so that the K boxes were compared with nothing "
            f"({one['full_problem']}); that is needed for this check only."
        )
        yield Finding("hint", "shots_alone", sets, text)
