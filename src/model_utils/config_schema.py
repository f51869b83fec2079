# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Every configuration key with its type, range, default and meaning: typed, frozen, closed.

Reached through `src.model_utils.config`; the defaults are the paper's base training on COCO.
"""

# Annotations are evaluated by pydantic at run time: no postponed ones, for Python 3.9.
import math
import re
from typing import Annotated, Literal, Optional, Union

from pydantic import BeforeValidator, Field, field_validator, model_validator

from src.model_utils.config_model import (
    Count,
    CountOrZero,
    Counts,
    Fraction,
    ModelSection,
    Names,
    NotNegative,
    Positive,
    Section,
    listed,
)
from src.model_utils.config_run import ModelArts, Profile, Watch
from src.model_utils.custom_sets import CustomDataset, no_repetition
from src.model_utils.set_names import is_reserved


class Data(Section):
    """Which sets, and how their pictures are read."""

    train: Names = Field(default=("coco14_trainval_base",), description="training sets by name")
    test: Names = Field(default=("coco14_test_base",), description="test sets by name")
    custom: dict[str, CustomDataset] = Field(default={}, description="data sets of one's own")
    num_workers: CountOrZero = Field(default=2, description="threads that prepare pictures")
    filter_empty: bool = Field(
        default=True, description="drop training pictures without usable boxes"
    )
    aspect_ratio_grouping: bool = Field(
        default=True, description="a batch is all landscape or portrait"
    )
    max_image_pixels: Count = Field(default=178956970, description="larger pictures are refused")
    wait_minutes: Positive = Field(
        default=240.0, description="longest wait for another process that builds MindRecord"
    )
    official_vocsplit_sampling: bool = Field(
        default=False,
        description="VOC K-shot sets: drawn without a seed, as officially",
    )

    @field_validator("train", "test")
    @classmethod
    def _at_least_one_set(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or "" in names:
            raise ValueError("name at least one set, such as [coco14_trainval_base]")
        no_repetition(names)
        return names

    @field_validator("custom", mode="before")
    @classmethod
    def _check_custom_names(cls, custom: object) -> object:
        for name in custom if isinstance(custom, dict) else ():
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
                raise ValueError(f"the name '{name}' may hold only letters, digits, '_' and '-'")
            if is_reserved(name):
                raise ValueError(f"the name '{name}' belongs to a built-in data set")
        return {} if custom is None else custom


class Input(Section):
    """From a picture to the network's input. Sizes in pixels; channels blue, green, red."""

    min_size_train: Counts = Field(
        default=(640, 672, 704, 736, 768, 800), description="short edge, one drawn for each picture"
    )
    max_size_train: Count = Field(default=1333, description="limit of the long edge in training")
    min_size_test: Count = Field(default=800, description="short edge in evaluation")
    max_size_test: Count = Field(default=1333, description="limit of the long edge in evaluation")
    flip_probability: Fraction = Field(default=0.5, description="horizontal flip in training")
    pixel_mean: tuple[float, float, float] = Field(
        default=(103.53, 116.28, 123.675), description="subtracted, B G R"
    )
    pixel_std: tuple[Positive, Positive, Positive] = Field(
        default=(1.0, 1.0, 1.0), description="divided by, B G R"
    )
    input_shapes: Union[Literal["exact"], tuple[tuple[int, int], ...]] = Field(
        default="exact", description="exact, or a list of [height, width] to pad to (accelerators)"
    )

    @field_validator("input_shapes", mode="before")
    @classmethod
    def _check_shapes(cls, value: object) -> object:
        if value == "exact":
            return value
        pairs = value if isinstance(value, tuple) and value else (None,)
        for pair in pairs:
            if not (isinstance(pair, tuple) and len(pair) == 2 and all(map(_is_size, pair))):
                raise ValueError("write exact, or a list such as [[800, 1344], [1344, 800]]")
        if len(set(pairs)) < len(pairs):
            raise ValueError("a shape is listed twice")
        return value

    @model_validator(mode="after")
    def _check_limits(self) -> "Input":
        for short, longest, kind in (
            (max(self.min_size_train), self.max_size_train, "train"),
            (self.min_size_test, self.max_size_test, "test"),
        ):
            if longest < short:
                raise ValueError(
                    f"max_size_{kind} {longest} is below min_size_{kind} {short}, "
                    "which no picture could then reach"
                )
        return self


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


_ALL_AT_ONCE = "for a whole schedule of another length leave all three and set solver.scale_to_iter"


class Solver(Section):
    """SGD. Rates and iterations are given for `images_per_batch` images an iteration."""

    images_per_batch: Count = Field(
        default=16, description="the batch that the numbers here are for"
    )
    images_per_card: Count = Field(default=1, description="pictures a card and iteration, really")
    scale_to_batch: bool = Field(
        default=True, description="convert rate and iterations to the real batch"
    )
    scale_to_iter: Optional[Count] = Field(
        default=None, description="then stretch or shorten the schedule to so many real iterations"
    )
    optimizer: Literal["sgd", "adamw"] = Field(
        default="sgd", description="sgd as the paper; adamw to train from scratch"
    )
    base_lr: Positive = Field(default=0.02, description="learning rate after the warm-up")
    max_iter: Count = Field(default=110000, description="iterations")
    steps: Annotated[tuple[Count, ...], BeforeValidator(listed)] = Field(
        default=(85000, 100000), description="iterations at which the rate falls"
    )
    gamma: float = Field(default=0.1, gt=0, le=1, description="factor at each of the steps")
    warmup_iters: CountOrZero = Field(default=1000, description="linear warm-up; 0 for none")
    warmup_factor: Fraction = Field(default=0.001, description="share of base_lr at the start")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of SGD")
    nesterov: bool = Field(default=False, description="Nesterov's momentum")
    weight_decay: NotNegative = Field(default=5.0e-5, description="of weights")
    weight_decay_bias: NotNegative = Field(default=1.0e-4, description="of biases")
    weight_decay_norm: NotNegative = Field(default=0.0, description="of normalisation layers")

    max_skipped_steps: CountOrZero = Field(
        default=0, description="steps without a finite loss left out before one stops the training"
    )
    loss_scale: Optional[Positive] = Field(
        default=None,
        description="with amp_level: a fixed factor of the loss; null: one that adapts itself",
    )
    loss_scale_window: Count = Field(
        default=1000, description="steps without overflow after which that factor doubles"
    )

    @model_validator(mode="after")
    def _check_schedule(self) -> "Solver":
        if any(later <= earlier for earlier, later in zip(self.steps, self.steps[1:])):
            raise ValueError(f"steps must increase, not {list(self.steps)}")
        if self.steps and self.steps[-1] >= self.max_iter:
            raise ValueError(
                f"steps {list(self.steps)} must lie below max_iter {self.max_iter}; "
                f"for example steps: [{max(1, math.floor(0.8 * self.max_iter))}], or [] for none; "
                f"{_ALL_AT_ONCE}"
            )
        if self.warmup_iters > 0 and self.warmup_iters >= self.max_iter:
            raise ValueError(
                f"warmup_iters {self.warmup_iters} must lie below max_iter {self.max_iter}; "
                f"{_ALL_AT_ONCE}"
            )
        return self


class PCB(Section):
    """Prototypical calibration block, in evaluation after few-shot training (section 3.4)."""

    enable: bool = Field(default=False, description="calibrate the scores of detections")
    encoder: str = Field(
        default="", description="a ResNet's .ckpt or an ONNX file's .yaml; empty: pcb_modelpath"
    )
    alpha: Fraction = Field(default=0.5, description="alpha score + (1 - alpha) cosine")
    upper: Fraction = Field(default=1.0, description="scores above this stay as they are")
    lower: Fraction = Field(default=0.05, description="scores up to this stay as they are")
    cache_dir: str = Field(
        default="", description="folder that prototypes are kept in; empty: not kept"
    )
    cache_features: bool = Field(
        default=False, description="keep the test pictures' features in cache_dir too"
    )
    cache_gigabytes: Positive = Field(default=20.0, description="limit for those features on disk")
    max_pixels: Count = Field(
        default=8000000, description="larger pictures are encoded in pieces, with the same result"
    )
    any_support: bool = Field(
        default=False, description="accept another support set than the checkpoint's"
    )


class Test(Section):
    """Evaluation."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    score_threshold: Fraction = Field(default=0.05, description="detections must score above")
    nms_threshold: Fraction = Field(default=0.5, description="IoU above which the lower score goes")
    detections_per_image: Count = Field(default=100, description="best detections kept")
    eval_period: CountOrZero = Field(default=0, description="evaluate every N iterations; 0 never")
    visualize_images: CountOrZero = Field(default=8, description="pictures drawn with detections")
    eval_at_end: bool = Field(default=True, description="evaluate when training ends")
    report: bool = Field(default=False, description="write a page with curves and pictures")
    report_before: str = Field(
        default="", description="the base detector's results, to show there what was forgotten"
    )
    metric: Literal["auto", "coco", "voc07", "voc12"] = Field(
        default="auto", description="auto: VOC's for the built-in VOC sets, else COCO's"
    )
    pcb: PCB = PCB()


class Log(Section):
    """What training reports."""

    period: Count = Field(default=20, description="iterations between log lines")


class Checkpoint(Section):
    """What training keeps."""

    period: Count = Field(default=5000, description="iterations between checkpoints")
    keep_last: Count = Field(default=3, description="older checkpoints are removed")


class Config(Section):
    """Everything that a run is told."""

    device_target: Literal["CPU", "GPU", "Ascend"] = Field(
        default="CPU", description="Ascend, GPU or CPU"
    )
    device_id: CountOrZero = Field(default=0, description="card of this machine")
    conv_allow_tf32: bool = Field(
        default=False,
        description="GPU: convolutions may round their inputs to 10 bits (TF32); faster",
    )
    amp_level: Literal["O0", "O2", "O3", "auto"] = Field(
        default="O0",
        description="O2: backbone and res5 in half precision, O3: their norms too; "
        "auto: O2 on GPU, O3 on Ascend",
    )
    amp_dtype: Literal["float16", "bfloat16"] = Field(
        default="float16", description="half precision of amp_level"
    )
    jit_level: Optional[Literal["O0", "O1", "O2"]] = Field(
        default=None, description="of MindSpore's compiler; O2: Ascend with fixed input_shapes"
    )
    device_num: Count = Field(default=1, description="cards in all; the launcher sets it")
    rank_id: CountOrZero = Field(default=0, description="not needed: the launcher says it")
    run_distribute: bool = Field(default=False, description="train on several cards")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of every random number")
    shot_seed: Optional[int] = Field(
        default=None, ge=0, description="which K-shot set; null: the same number as seed"
    )
    datasets_root: str = Field(
        default="datasets", min_length=1, description="folder of the data sets"
    )
    coco_root: str = Field(default="", description="COCO 2014; empty: coco below datasets_root")
    train_mindrecord_dir: str = Field(
        default="mindrecord/train", min_length=1, description="written once"
    )
    test_mindrecord_dir: str = Field(
        default="mindrecord/test", min_length=1, description="written once"
    )
    backbone_pretrained_path: str = Field(
        default="", description="backbone .ckpt (pkl2ckpt) to start from"
    )
    model_pretrained_path: str = Field(default="", description="detector .ckpt to start from")
    pcb_modelpath: str = Field(default="", description="calibration block's .ckpt (pth2ckpt)")
    save_checkpoint_path: str = Field(
        default="checkpoints/coco/defrcn_det_r101_base",
        min_length=1,
        description="folder of this run",
    )
    eval_checkpoint_path: str = Field(
        default="", description="detector .ckpt to evaluate, or its folder"
    )
    resume: bool = Field(default=False, description="continue the run in save_checkpoint_path")
    overwrite: bool = Field(
        default=False,
        description="move the run in save_checkpoint_path aside and start anew",
    )
    export_ckpt_file: str = Field(default="", description="detector .ckpt to export")
    export_file_name: str = Field(
        default="defrcn", min_length=1, description="exported file, no suffix"
    )
    export_file_format: Literal["MINDIR", "AIR", "ONNX"] = Field(
        default="MINDIR", description="of export"
    )
    mindir_version: Literal[1, 3] = Field(
        default=3, description="3 as MindSpore writes it; 1 for MindSpore Lite 2.0.0"
    )
    img_height: Optional[Count] = Field(
        default=None, description="export: input height, pixels; null: of input.input_shapes"
    )
    img_width: Optional[Count] = Field(default=None, description="export: input width, likewise")
    restore_bbox: bool = Field(
        default=True, description="export: boxes in the original picture's frame"
    )
    bundle: str = Field(
        default="", description="export: folder for all that detection needs, instead of a file"
    )
    encoder_height: Optional[Count] = Field(
        default=None, description="bundle: encoder's input height, pixels; null: img_height"
    )
    encoder_width: Optional[Count] = Field(default=None, description="bundle: likewise, width")
    input_path: str = Field(
        default="", description="pictures for predict, or what preprocess.py wrote, for postprocess"
    )
    result_path: str = Field(default="", description="results: folder, empty for the run's own")
    enable_modelarts: bool = Field(
        default=False, description="run on ModelArts: copy from and to the URLs"
    )
    data_url: str = Field(default="", description="ModelArts: what is in datasets_root")
    train_url: str = Field(default="", description="ModelArts: where results go")
    checkpoint_url: str = Field(default="", description="ModelArts: weights, a folder or a file")
    enable_profiling: bool = Field(
        default=False, description="write MindSpore's profile of some training steps"
    )
    data: Data = Data()
    input: Input = Input()
    model: ModelSection = ModelSection()
    solver: Solver = Solver()
    test: Test = Test()
    log: Log = Log()
    checkpoint: Checkpoint = Checkpoint()
    watch: Watch = Watch()
    profile: Profile = Profile()
    modelarts: ModelArts = ModelArts()

    @model_validator(mode="after")
    def _check_together(self) -> "Config":
        if self.enable_modelarts and not self.train_url:
            raise ValueError(
                "enable_modelarts needs train_url, or the results would be lost with the machine"
            )
        if self.resume and self.overwrite:
            raise ValueError(
                "resume goes on with the run in save_checkpoint_path, overwrite moves it away to "
                "start anew; give one of them"
            )
        if self.device_num > 1 and not self.run_distribute:
            raise ValueError(
                f"device_num {self.device_num} needs run_distribute: true, and a launcher that "
                "starts as many processes: scripts/run_distribute_train_*.sh"
            )
        if self.jit_level == "O2" and (
            self.device_target != "Ascend" or self.input.input_shapes == "exact"
        ):
            raise ValueError(
                "jit_level O2 compiles whole graphs of fixed shapes for Ascend; give "
                "device_target Ascend and a list of input.input_shapes, or jit_level O0 or O1"
            )
        if self.amp_level not in ("O0", "auto") and self.model.formulation == "fast":
            raise ValueError(
                f"amp_level {self.amp_level} needs model.formulation plain or auto: the fast one "
                "is float32"
            )
        if self.rank_id >= self.device_num:
            raise ValueError(f"rank_id {self.rank_id} must be below device_num {self.device_num}")
        return self
