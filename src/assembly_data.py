"""From the configuration to data sets: reading them by name, and knowing their content again.

No MindSpore here: tools that train nothing read data sets too.
"""

from __future__ import annotations

from src.dataset import load_dataset
from src.defrcn.data_types import CustomDataset, CustomSource, DatasetInfo, Record
from src.model_utils.config import Config


def custom_sets(config: Config) -> dict[str, CustomDataset]:
    """The data sets of one's own that the configuration names."""
    return {
        name: CustomDataset(
            format=own.format,
            train=CustomSource(**own.train.model_dump()),
            test=CustomSource(**own.test.model_dump()),
            novel_classes=own.novel_classes,
            classes=own.classes,
            few_shot=own.few_shot,
        )
        for name, own in config.data.custom.items()
    }


def read_sets(config: Config, names: tuple[str, ...]) -> tuple[DatasetInfo, list[Record]]:
    """Read data sets by name.

    Returns:
        The first one's description, and all records.

    Raises:
        InputError: a name is unknown, a file is wrong, or the classes differ.
    """
    return load_dataset(
        names,
        datasets_root=config.datasets_root,
        coco_root=config.coco_root,
        custom=custom_sets(config),
        official_vocsplit_sampling=config.data.official_vocsplit_sampling,
    )
