# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Which classes a checkpoint has, and with which ids."""

from src.assembly.classes import describe_classes
from src.model_utils.config import load_config


def test_classes_of_built_in_sets():
    def config(name):
        return load_config("configs/defrcn_base.yaml", [f"--data.test=[{name}]"])

    info, own = describe_classes(config("coco14_test_novel"), ())
    assert own and len(info.class_names) == 20 and info.category_ids[:2] == (1, 2)
    # a checkpoint of all classes with a configuration for base classes: COCO's own ids
    every, _ = describe_classes(config("coco14_test_all"), ())
    info, own = describe_classes(config("coco14_test_base"), every.class_names)
    assert own and info.category_ids == every.category_ids and len(info.base_classes) == 60
    info, own = describe_classes(config("coco14_test_base"), ("gnu", "cat"))
    assert not own and info.category_ids == (1, 2) and info.class_names == ("gnu", "cat")
