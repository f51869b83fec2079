# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Keys of what surrounds a run: watching it, profiling it, copying for it on ModelArts."""

# Annotations are evaluated by pydantic at run time: no postponed ones, for Python 3.9.
from pydantic import Field

from src.model_utils.config_model import Count, CountOrZero, Positive, Section


class Watch(Section):
    """Losses, learning rate, speed, AP, pictures and the configuration, for a viewer."""

    tensorboard: bool = Field(default=False, description="write TensorBoard event files")
    dir: str = Field(default="", description="their folder; empty: watch below the run's folder")
    images: CountOrZero = Field(default=8, description="pictures an evaluation, of those drawn")


class Profile(Section):
    """The steps that `enable_profiling` looks at."""

    start_step: Count = Field(
        default=11, description="first step, counted from this run's (or its resumption's) start"
    )
    steps: Count = Field(default=5, description="how many")
    dir: str = Field(default="", description="folder; empty: profile below the run's folder")


class ModelArts(Section):
    """Where `enable_modelarts` copies to, and how long it waits."""

    cache_dir: str = Field(
        default="/cache", min_length=1, description="local disk that data and results are copied to"
    )
    copy_seconds: Positive = Field(
        default=7200.0, description="limit for a copy, and for waiting for another process's"
    )
    leave_seconds: Positive = Field(
        default=120.0,
        description="how long the first process of a machine waits for the others to end",
    )
