# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The configuration: the paper's numbers, inheritance, flags, and what is refused and how."""

import subprocess
import sys

import pytest
import yaml
from pydantic import ValidationError

from src.model_utils.config import (
    Config,
    config_from_arguments,
    describe_keys,
    load_config,
    require_path,
    to_plain,
    to_yaml,
)
from src.model_utils.device_adapter import Runtime
from src.model_utils.errors import InputError
from src.model_utils.local_adapter import LauncherIds, read_launcher_ids
from src.model_utils.paths import project_folder

ROOT = project_folder()
DEFAULTS = ROOT / "configs" / "defrcn_base.yaml"
COCO_BASE = ROOT / "configs" / "coco" / "defrcn_det_r101_base.yaml"
# Settings do not depend on the vectors' seed, so this copy serves whatever DEFRCN_GOLDEN says.
OFFICIAL_BASE = ROOT / "tests" / "golden" / "cfg" / "coco_defrcn_det_r101_base.yaml"

# Our key: the official one, and what turns the official value into ours.
OFFICIAL = {
    "data.train": ("DATASETS.TRAIN", tuple),
    "data.test": ("DATASETS.TEST", tuple),
    "data.filter_empty": ("DATALOADER.FILTER_EMPTY_ANNOTATIONS", bool),
    "data.aspect_ratio_grouping": ("DATALOADER.ASPECT_RATIO_GROUPING", bool),
    "input.min_size_train": ("INPUT.MIN_SIZE_TRAIN", tuple),
    "input.max_size_train": ("INPUT.MAX_SIZE_TRAIN", int),
    "input.min_size_test": ("INPUT.MIN_SIZE_TEST", int),
    "input.max_size_test": ("INPUT.MAX_SIZE_TEST", int),
    "input.flip_probability": ("INPUT.RANDOM_FLIP", {"horizontal": 0.5, "none": 0.0}.__getitem__),
    "input.pixel_mean": ("MODEL.PIXEL_MEAN", tuple),
    "input.pixel_std": ("MODEL.PIXEL_STD", tuple),
    "model.num_classes": ("MODEL.ROI_HEADS.NUM_CLASSES", int),
    "model.backbone.depth": ("MODEL.RESNETS.DEPTH", int),
    "model.backbone.norm": ("MODEL.RESNETS.NORM", str),
    "model.backbone.freeze_at": ("MODEL.BACKBONE.FREEZE_AT", int),
    "model.backbone.stem_out_channels": ("MODEL.RESNETS.STEM_OUT_CHANNELS", int),
    "model.backbone.res2_out_channels": ("MODEL.RESNETS.RES2_OUT_CHANNELS", int),
    "model.anchors.sizes": ("MODEL.ANCHOR_GENERATOR.SIZES", lambda value: tuple(value[0])),
    "model.anchors.aspect_ratios": (
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS",
        lambda value: tuple(value[0]),
    ),
    "model.anchors.offset": ("MODEL.ANCHOR_GENERATOR.OFFSET", float),
    "model.rpn.backward_scale": ("MODEL.RPN.BACKWARD_SCALE", float),
    "model.rpn.batch_size_per_image": ("MODEL.RPN.BATCH_SIZE_PER_IMAGE", int),
    "model.rpn.positive_fraction": ("MODEL.RPN.POSITIVE_FRACTION", float),
    "model.rpn.iou_thresholds": ("MODEL.RPN.IOU_THRESHOLDS", tuple),
    "model.rpn.pre_nms_topk_train": ("MODEL.RPN.PRE_NMS_TOPK_TRAIN", int),
    "model.rpn.pre_nms_topk_test": ("MODEL.RPN.PRE_NMS_TOPK_TEST", int),
    "model.rpn.post_nms_topk_train": ("MODEL.RPN.POST_NMS_TOPK_TRAIN", int),
    "model.rpn.post_nms_topk_test": ("MODEL.RPN.POST_NMS_TOPK_TEST", int),
    "model.rpn.nms_threshold": ("MODEL.RPN.NMS_THRESH", float),
    "model.rpn.min_box_size": ("MODEL.PROPOSAL_GENERATOR.MIN_SIZE", float),
    "model.rpn.bbox_reg_weights": ("MODEL.RPN.BBOX_REG_WEIGHTS", tuple),
    "model.rpn.smooth_l1_beta": ("MODEL.RPN.SMOOTH_L1_BETA", float),
    "model.rpn.loss_weight": ("MODEL.RPN.LOSS_WEIGHT", float),
    "model.rpn.bbox_loss_weight": ("MODEL.RPN.BBOX_REG_LOSS_WEIGHT", float),
    "model.rpn.freeze": ("MODEL.RPN.FREEZE", bool),
    "model.rpn.enable_decouple": ("MODEL.RPN.ENABLE_DECOUPLE", bool),
    "model.roi_heads.backward_scale": ("MODEL.ROI_HEADS.BACKWARD_SCALE", float),
    "model.roi_heads.batch_size_per_image": ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", int),
    "model.roi_heads.positive_fraction": ("MODEL.ROI_HEADS.POSITIVE_FRACTION", float),
    "model.roi_heads.iou_threshold": ("MODEL.ROI_HEADS.IOU_THRESHOLDS", lambda value: value[0]),
    "model.roi_heads.pooler_resolution": ("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", int),
    "model.roi_heads.bbox_reg_weights": ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", tuple),
    "model.roi_heads.smooth_l1_beta": ("MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", float),
    "model.roi_heads.bbox_loss_weight": ("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT", float),
    "model.roi_heads.cls_dropout": ("MODEL.ROI_HEADS.CLS_DROPOUT", bool),
    "model.roi_heads.dropout_ratio": ("MODEL.ROI_HEADS.DROPOUT_RATIO", float),
    "model.roi_heads.freeze_feat": ("MODEL.ROI_HEADS.FREEZE_FEAT", bool),
    "model.roi_heads.append_gt": ("MODEL.ROI_HEADS.PROPOSAL_APPEND_GT", bool),
    "model.roi_heads.enable_decouple": ("MODEL.ROI_HEADS.ENABLE_DECOUPLE", bool),
    "solver.images_per_batch": ("SOLVER.IMS_PER_BATCH", int),
    "solver.base_lr": ("SOLVER.BASE_LR", float),
    "solver.max_iter": ("SOLVER.MAX_ITER", int),
    "solver.steps": ("SOLVER.STEPS", tuple),
    "solver.gamma": ("SOLVER.GAMMA", float),
    "solver.warmup_iters": ("SOLVER.WARMUP_ITERS", int),
    "solver.warmup_factor": ("SOLVER.WARMUP_FACTOR", float),
    "solver.momentum": ("SOLVER.MOMENTUM", float),
    "solver.nesterov": ("SOLVER.NESTEROV", bool),
    "solver.weight_decay": ("SOLVER.WEIGHT_DECAY", float),
    "solver.weight_decay_bias": ("SOLVER.WEIGHT_DECAY_BIAS", float),
    "solver.weight_decay_norm": ("SOLVER.WEIGHT_DECAY_NORM", float),
    "test.score_threshold": ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", float),
    "test.nms_threshold": ("MODEL.ROI_HEADS.NMS_THRESH_TEST", float),
    "test.detections_per_image": ("TEST.DETECTIONS_PER_IMAGE", int),
    "test.pcb.enable": ("TEST.PCB_ENABLE", bool),
    "test.pcb.alpha": ("TEST.PCB_ALPHA", float),
    "test.pcb.upper": ("TEST.PCB_UPPER", float),
    "test.pcb.lower": ("TEST.PCB_LOWER", float),
}

# Keys that the official code does not have, or whose value is a path or a habit of its own.
OURS_ALONE = (
    "data.custom data.num_workers data.max_image_pixels input.input_shapes model.formulation "
    "model.anchors.stride solver.optimizer solver.images_per_card solver.scale_to_batch "
    "solver.scale_to_iter "
    "model.roi_heads.cls_loss "
    "test.eval_period test.visualize_images test.eval_at_end log.period checkpoint.period "
    "checkpoint.keep_last resume overwrite shot_seed data.official_vocsplit_sampling test.report "
    "test.report_before "
    "test.metric test.pcb.cache_dir test.pcb.cache_features test.pcb.any_support test.pcb.encoder "
    "test.pcb.cache_gigabytes test.pcb.max_pixels solver.max_skipped_steps data.wait_minutes "
    "watch.tensorboard watch.dir watch.images profile.start_step profile.steps "
    "amp_level amp_dtype jit_level solver.loss_scale solver.loss_scale_window "
    "profile.dir conv_allow_tf32 bundle encoder_height encoder_width "
    "modelarts.cache_dir modelarts.copy_seconds modelarts.leave_seconds"
).split()

OLDER_PORT_FLAGS = (
    "device_target device_id device_num rank_id run_distribute seed datasets_root coco_root "
    "train_mindrecord_dir test_mindrecord_dir backbone_pretrained_path model_pretrained_path "
    "pcb_modelpath save_checkpoint_path eval_checkpoint_path export_ckpt_file export_file_name "
    "export_file_format mindir_version img_height img_width restore_bbox input_path result_path "
    "enable_modelarts data_url train_url "
    "checkpoint_url enable_profiling"
).split()


def leaves(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def pick(tree, dotted):
    for part in dotted.split("."):
        tree = tree[part] if isinstance(tree, dict) else getattr(tree, part)
    return tree


@pytest.fixture
def load(tmp_path):
    """Write a file and load it with flags."""

    def run(text="", *flags, name="run.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return load_config(tmp_path / name, flags)

    return run


@pytest.fixture
def refusal(load):
    """The message that refuses a file."""

    def run(text="", *flags):
        with pytest.raises(InputError) as caught:
            load(text, *flags)
        return str(caught.value)

    return run


# --- the files of the project


def test_the_base_file_equals_the_official_settings():
    official = yaml.safe_load(OFFICIAL_BASE.read_text())
    config = load_config(COCO_BASE)
    for key, (name, convert) in OFFICIAL.items():
        assert pick(config, key) == convert(pick(official, name)), (key, name)
    assert official["MODEL"]["RPN"]["IOU_LABELS"] == [0, -1, 1]
    assert official["MODEL"]["BACKBONE"]["FREEZE"] is False


def test_every_key_is_compared_or_declared_our_own():
    ours = {*OURS_ALONE, *OLDER_PORT_FLAGS}
    keys = {key for key, _ in leaves(to_plain(Config()))}
    assert keys == ours | set(OFFICIAL)


def test_the_defaults_file_lists_every_key_with_its_default():
    written = dict(leaves(yaml.safe_load(DEFAULTS.read_text())))
    assert set(written) == {key for key, _ in leaves(to_plain(Config()))}
    assert load_config(DEFAULTS) == Config()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_every_file_loads_and_survives_a_round_trip(path, tmp_path):
    config = load_config(path)
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "again.yaml") == config


def test_flags_of_the_older_port_are_keys():
    assert set(OLDER_PORT_FLAGS) <= set(Config.model_fields)
    helped = describe_keys()
    assert all(f"--{name}=" in helped for name in OLDER_PORT_FLAGS)
    assert "--solver.base_lr=0.02" in helped


def test_reading_needs_no_mindspore():
    code = (
        "import sys; from src.model_utils import config, device_adapter, local_adapter; "
        f"config.load_config({str(COCO_BASE)!r}); "
        "assert not {'mindspore', 'torch', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# --- reading


def test_values_and_their_types(load):
    config = load("solver: {base_lr: 1e-4, weight_decay: 5E-5, momentum: 0}\nseed: 3")
    assert config.solver.base_lr == 1e-4
    assert config.solver.weight_decay == 5e-5
    assert isinstance(config.solver.momentum, float)
    assert config.seed == 3
    assert config.solver.max_iter == 110000


def test_a_configuration_cannot_be_changed(load):
    config = load()
    with pytest.raises(ValidationError):
        config.seed = 1
    with pytest.raises(ValidationError):
        config.solver.base_lr = 1.0
    assert isinstance(config.solver.steps, tuple)
    hash(config.model)


def test_text_that_yaml_takes_for_something_else(load):
    config = load("result_path: 2024-01-01\nexport_file_name: '1e5'")
    assert config.result_path == "2024-01-01"
    assert config.export_file_name == "1e5"


def test_an_empty_section_is_the_default(load):
    assert load("solver:\n  # base_lr: 1\ndata:\n  custom:\n") == Config()


def test_base_files_are_merged(load, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "top.yaml").write_text("seed: 1\nsolver: {base_lr: 0.5, gamma: 0.2}")
    (tmp_path / "deep" / "middle.yaml").write_text(
        "base: ../top.yaml\nsolver: {base_lr: 0.25, steps: [1, 2]}\nmodel: {rpn: {freeze: true}}"
    )
    config = load("base: deep/middle.yaml\nsolver: {steps: [7]}\nmodel: {backbone: {depth: 50}}")
    assert (config.seed, config.solver.base_lr, config.solver.gamma) == (1, 0.25, 0.2)
    assert config.solver.steps == (7,)  # lists are replaced, not joined
    assert config.model.rpn.freeze
    assert config.model.backbone.depth == 50


@pytest.mark.parametrize("base", ["run.yaml", "../{folder}/run.yaml", "other.yaml"])
def test_a_base_that_leads_back_is_refused(refusal, tmp_path, base):
    (tmp_path / "other.yaml").write_text("base: run.yaml")
    message = refusal(f"base: {base.format(folder=tmp_path.name)}")
    assert "leads back" in message
    assert "run.yaml" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base: missing.yaml", ["run.yaml", "base missing.yaml does not exist"]),
        ("base: [a.yaml]", ["run.yaml", "base must be the path of one YAML file"]),
        ("a: 1\na: 2", ["run.yaml", "the key 'a' appears twice", "line 2"]),
        ("solver: {gamma: 1, gamma: 1}", ["the key 'gamma' appears twice"]),
        ("seed: !!int 3", ["tags such as", "line 1"]),
        ("seed: !!python/object/apply:os.getcwd []", ["tags such as"]),
        ("a: &x 1\nb: *x", ["anchors and aliases"]),
        ("- 1\n- 2", ["holds a list"]),
        ("seed: 1\n---\nseed: 2", ["2 YAML documents"]),
        ("1: 2", ["the key 1 is not text"]),
        ("seed: [1", ["not a plain YAML file"]),
        ("x: " + "[" * 5000, ["not a plain YAML file"]),
        ("\tseed: 1", ["not a plain YAML file", "line 1"]),
    ],
)
def test_files_that_are_not_plain_yaml(refusal, text, words):
    message = refusal(text)
    assert all(word in message for word in words), message


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "good.yaml").write_text("")
    (tmp_path / "latin.yaml").write_bytes(b"result_path: \xe9t\xe9")
    with pytest.raises(InputError, match=r"did you mean .*good\.yaml"):
        load_config(tmp_path / "god.yaml")
    with pytest.raises(InputError, match="not UTF-8"):
        load_config(tmp_path / "latin.yaml")
    with pytest.raises(InputError, match="not a file"):
        load_config(tmp_path)


# --- what is refused, and how it is said


def test_all_problems_in_one_message(refusal):
    message = refusal(
        "solver: {base_Lr: 1, max_iter: many}\nseeed: 3\nmodel: {backbone: {depth: 99}}",
        "--test.score_treshold=0.5",
        "--log.period=0",
    )
    assert "run.yaml: 6 problems" in message
    for line in (
        "run.yaml: solver.base_Lr: unknown key (did you mean solver.base_lr?)",
        "run.yaml: solver.max_iter: input should be a valid integer, not 'many'",
        "run.yaml: seeed: unknown key (did you mean seed?)",
        "run.yaml: model.backbone.depth: input should be 26, 50, 101 or 152, not 99",
        "--test.score_treshold: unknown key (did you mean --test.score_threshold?)",
        "--log.period: input should be greater than or equal to 1, not 0",
    ):
        assert line in message


def test_the_file_that_is_wrong_is_named(refusal, tmp_path):
    (tmp_path / "top.yaml").write_text("seed: x\nsolver: {gamma: 2}")
    message = refusal("base: top.yaml\nsolver: {momentum: 1}")
    assert f"{tmp_path / 'top.yaml'}: seed:" in message
    assert f"{tmp_path / 'top.yaml'}: solver.gamma:" in message
    assert f"{tmp_path / 'run.yaml'}: solver.momentum:" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base_lr: 1", "base_lr: unknown key (did you mean solver.base_lr?)"),
        ("solver.base_lr: 1", "solver.base_lr: unknown key; nest it"),
        ("freeze: true", "(did you mean model.rpn.freeze?)"),
        ("backward_scale: 1", "model.roi_heads.backward_scale or model.rpn.backward_scale?"),
        ("seed: true", "seed: input should be a valid integer, not True"),
        ("seed: '3'", "seed: input should be a valid integer, not '3'"),
        ("seed: 1.0", "seed: input should be a valid integer, not 1.0"),
        ("seed: -1", "seed:"),
        ("resume: 1", "resume: input should be a valid boolean, not 1"),
        ("device_target: cuda", "'CPU', 'GPU' or 'Ascend', not 'cuda'"),
        ("solver: 5", "solver:"),
        ("solver: {base_lr: .inf}", "finite"),
        ("solver: {base_lr: .nan}", "solver.base_lr"),
        ("solver: {base_lr: 0}", "greater than 0"),
        ("solver: {steps: [5, 4]}", "steps must increase, not [5, 4]"),
        ("solver: {steps: [5, 5]}", "steps must increase"),
        ("solver: {steps: [0, 5]}", "solver.steps.0"),
        ("solver: {max_iter: 100000}", "must lie below max_iter 100000"),
        ("solver: {max_iter: 900, steps: []}", "warmup_iters 1000 must lie below max_iter 900"),
        ("solver: {warmup_factor: 1.5}", "solver.warmup_factor"),
        ("input: {min_size_train: []}", "input.min_size_train"),
        ("input: {min_size_test: 0}", "input.min_size_test"),
        ("input: {max_size_test: 700}", "max_size_test 700 is below min_size_test 800"),
        ("input: {pixel_std: [1, 0, 1]}", "input.pixel_std.1"),
        ("input: {pixel_mean: [1, 2]}", "input.pixel_mean"),
        ("input: {flip_probability: 1.1}", "input.flip_probability"),
        ("input: {input_shapes: exakt}", "write exact, or a list"),
        ("input: {input_shapes: []}", "write exact, or a list"),
        ("input: {input_shapes: [[800, 1344], [800]]}", "write exact, or a list"),
        ("input: {input_shapes: [[800, -1]]}", "write exact, or a list"),
        ("input: {input_shapes: [[8, 9], [8, 9]]}", "listed twice"),
        ("model: {num_classes: 0}", "model.num_classes"),
        ("model: {backbone: {freeze_at: 6}}", "model.backbone.freeze_at"),
        ("model: {backbone: {norm: SyncBN}}", "'FrozenBN' or 'BN'"),
        ("model: {anchors: {sizes: [32, 0]}}", "model.anchors.sizes.1"),
        ("model: {rpn: {iou_thresholds: [0.7, 0.3]}}", "the lower threshold comes first"),
        ("model: {rpn: {nms_threshold: 1.5}}", "model.rpn.nms_threshold"),
        ("model: {rpn: {bbox_reg_weights: [1, 1, 1]}}", "model.rpn.bbox_reg_weights"),
        ("model: {roi_heads: {dropout_ratio: 1.0}}", "model.roi_heads.dropout_ratio"),
        ("data: {train: []}", "data.train: name at least one set"),
        ("data: {test: [a, a]}", "data.test: a is listed twice"),
        ("profile: {start_step: 0}", "profile.start_step: "),
        ("modelarts: {copy_seconds: 0}", "modelarts.copy_seconds: "),
        ("watch: {tensorboards: true}", "did you mean watch.tensorboard"),
        ("enable_modelarts: true", "enable_modelarts needs train_url"),
        ("device_num: 8", "device_num 8 needs run_distribute: true"),
        ("rank_id: 1", "rank_id 1 must be below device_num 1"),
        ("data: {custom: {a b: {}}}", "the name 'a b' may hold only"),
        ("data: {custom: {coco14: {}}}", "belongs to a built-in data set"),
    ],
)
def test_impossible_values(refusal, text, words):
    message = refusal(text)
    assert words in message
    assert "run.yaml" in message


CUSTOM = """
data:
  train: [mine_train_base]
  test: [mine_test_all]
  custom:
    mine:
      format: coco
      train: {annotations: mine/train.json, images: mine/images}
      test: {annotations: mine/test.json, images: mine/images}
      novel_classes: [star]
"""


def test_a_data_set_of_ones_own(load, refusal):
    own = load(CUSTOM).data.custom["mine"]
    assert own.train.annotations == "mine/train.json"
    assert own.novel_classes == ("star",)
    changed = load(
        CUSTOM, "--data.custom.mine.test.images=007", "--data.custom.mine.novel_classes=[a, b]"
    ).data.custom["mine"]
    assert changed.test.images == "007"
    assert changed.novel_classes == ("a", "b")
    wrong = CUSTOM.replace("format: coco", "format: pascal").replace("novel_classes", "novel")
    wrong = wrong.replace("mine/train.json, images", "mine/train.json, image")
    message = refusal(wrong)
    assert (
        "data.custom.mine.format: input should be 'coco', 'voc' or 'yolo', not 'pascal'" in message
    )
    assert "data.custom.mine.train.images: is missing" in message
    assert "(did you mean data.custom.mine.train.images?)" in message
    assert "(did you mean data.custom.mine.novel_classes?)" in message
    message = refusal(CUSTOM, "--data.custom.mine.classes=[ring, disc]")
    assert "novel_classes star are not among classes" in message


# --- flags


def test_flags_win_and_have_two_forms(load):
    config = load(
        "seed: 1",
        *["--seed=2", "--solver.steps", "[10, 20]", "--solver.max_iter", "30"],
        *["--solver.warmup_iters=0", "--resume", "--solver.base_lr=1e-3"],
        *["--model.num_classes", "null", "--input.min_size_train=320", "--data.train=a_train_all"],
        *["--coco_root=", "--result_path=007", "--export_file_name", "yes"],
        *["--enable_modelarts=False", "--device_target", "Ascend"],
    )
    assert (config.seed, config.resume, config.enable_modelarts) == (2, True, False)
    assert config.solver.steps == (10, 20)
    assert config.solver.base_lr == 1e-3
    assert config.input.min_size_train == (320,)
    assert config.data.train == ("a_train_all",)
    assert (config.coco_root, config.result_path, config.export_file_name) == ("", "007", "yes")
    assert config.device_target == "Ascend"
    assert load("", "--solver={base_lr: 1, gamma: 0.5}").solver.gamma == 0.5
    assert load("", "--seed=1", "--seed=2").seed == 2  # the last one counts


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--base_lr=1"], "--base_lr: unknown key (did you mean --solver.base_lr?)"),
        (["--freze"], "--freze: unknown key"),
        (["--solver.lr=1"], "--solver.lr: unknown key"),
        (["--seed"], "--seed: give a value"),
        (["--seed", "--resume"], "--seed: give a value"),
        (["seed=1"], "'seed=1' is not a flag"),
        (["-s", "1"], "'-s' is not a flag"),
        (["--seed=[1"], "--seed: cannot read '[1'"),
        (["--seed=!!int 1"], "tags such as"),
        (["--solver.steps=[9, 8]"], "--solver.steps: solver: steps must increase"),
        (["--solver=3"], "--solver:"),
        (["--base=x.yaml"], "--base: unknown key"),
        (["--data.custom.mine=3"], "data.custom.mine"),
        (["--seed.x=1"], "--seed.x: unknown key"),
    ],
)
def test_wrong_flags(refusal, flags, words):
    assert words in refusal("", *flags)


@pytest.mark.parametrize("value", ["true", "false"])
def test_a_key_that_is_gone_says_what_to_write_instead(refusal, value):
    message = refusal(f"watch: {{summary: {value}}}")
    assert "run.yaml: watch.summary: MindSpore's own summary files are no longer" in message
    assert "set watch.tensorboard" in message
    for flag in (f"--watch.summary={value}", "--watch.summary"):
        assert refusal("", flag).startswith("--watch.summary: MindSpore's own")


def test_only_a_value_of_a_key_may_be_gone(refusal, load):
    message = refusal("model: {backbone: {norm: GN}}")
    assert "run.yaml: model.backbone.norm: group normalisation" in message
    assert "write BN to train from scratch" in message
    assert "--model.backbone.norm: group" in refusal("", "--model.backbone.norm=GN")
    assert load("model: {backbone: {norm: BN}}").model.backbone.norm == "BN"


def test_command_line_of_an_entry_point(capsys):
    config = config_from_arguments(["--config_path", str(COCO_BASE), "--seed=5"], "Train.")
    assert config.seed == 5
    with pytest.raises(InputError, match="give --config_path"):
        config_from_arguments([], "Train.")
    with pytest.raises(InputError, match="--config: unknown key"):
        config_from_arguments([f"--config_path={COCO_BASE}", "--config=x"], "Train.")
    with pytest.raises(SystemExit) as stopped:
        config_from_arguments(["--help"], "Train a detector.")
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "Train a detector." in shown
    assert "--test.score_threshold=0.05" in shown


# --- the older port


OLDER = """
enable_modelarts: False
device_target: Ascend
anchor_scales: [32, 64, 128, 256, 512]
roi_layer: {type: 'RoIAlign', out_size: 7, sample_num: 2}
num_gts: 128
num_expected_pos: 128
rpn_proposal_nms_across_levels: False
num_classes: 61
"""


@pytest.mark.parametrize(
    "rest", ["", "num_gts: 1\nx: !y 2", "\n---\nnum_gts: 'help'\n---\ndevice_target: [Ascend]\n"]
)
def test_a_file_of_the_older_port_is_refused_with_the_reason(refusal, rest):
    message = refusal(OLDER + rest)
    for words in (
        "configuration of the older MindSpore port",
        "class 0 is the background",
        "one pixel wider (+1)",
        "start from configs/coco/defrcn_det_r101_base.yaml",
    ):
        assert words in message
    assert "\n" not in message


def test_as_a_base_too(refusal, tmp_path):
    (tmp_path / "older.yaml").write_text(OLDER)
    assert "older MindSpore port" in refusal("base: older.yaml")


# --- paths, launcher, device


def test_require_path(tmp_path):
    (tmp_path / "backbone.ckpt").write_text("")
    assert require_path("x", tmp_path / "backbone.ckpt", "do", kind="file").name == "backbone.ckpt"
    for path, kind, words in (
        ("", "any", "x is empty; convert it first"),
        (tmp_path / "bakbone.ckpt", "file", "did you mean .*backbone.ckpt.*; convert it first"),
        (tmp_path, "file", "x: .* is not a file; convert it first"),
        (tmp_path / "backbone.ckpt", "folder", "is not a folder"),
        (tmp_path / "no" / "such", "any", "does not exist; convert"),
    ):
        with pytest.raises(InputError, match=words):
            require_path("x", path, "convert it first", kind=kind)


def test_launcher_variables(monkeypatch):
    def ids(variables):
        monkeypatch.setattr("os.environ", variables)
        return read_launcher_ids()

    assert ids({}) == LauncherIds(None, None, None)
    variables = {"RANK_ID": "3", "RANK_SIZE": "8", "DEVICE_ID": "1", "MS_NODE_ID": "5"}
    assert ids(variables) == LauncherIds(3, 8, 1)
    assert ids({"MS_NODE_ID": "1", "MS_WORKER_NUM": "2"}) == LauncherIds(1, 2, None)
    mpi = {"RANK": "2", "SIZE": "4", "LOCAL_RANK": "0"}
    mpi = {f"OMPI_COMM_WORLD_{name}": number for name, number in mpi.items()}
    assert ids(mpi) == LauncherIds(2, 4, 0)
    with pytest.raises(InputError, match="RANK_ID is 'two'"):
        ids({"RANK_ID": "two"})
    with pytest.raises(InputError, match="rank 2 of 2"):
        ids({"RANK_ID": "2", "RANK_SIZE": "2"})


def test_processes_and_keys_must_agree(monkeypatch):
    for name in ("RANK_SIZE", "MS_WORKER_NUM", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="no launcher started this process"):
        Runtime.start("CPU", distribute=True)
    monkeypatch.setenv("RANK_SIZE", "2")
    monkeypatch.setenv("RANK_ID", "1")
    with pytest.raises(InputError, match=r"started 2 processes .* run_distribute is false"):
        Runtime.start("CPU")


def test_devices():
    assert Runtime.start("CPU", device_id=3) == Runtime("CPU", 0, 0, 1)
    with pytest.raises(InputError, match=r"device_target TPU .* use --device_target=CPU"):
        Runtime.start("TPU")


# --- files laid over a configuration


def test_overlays_count_more_than_the_file_and_less_than_flags(load, tmp_path):
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text("seed: 1\nsolver: {max_iter: 7, steps: [3], warmup_iters: 0}\n")
    other.write_text("seed: 2\ninput: {input_shapes: [[96, 128]]}\n")
    config = load(
        "seed: 5\nshot_seed: 5\nsolver: {base_lr: 0.5}\n",
        "--solver.max_iter=9",
        f"--overlay={one}",
        "--overlay",
        str(other),
    )
    assert (config.seed, config.shot_seed, config.input.input_shapes) == (2, 5, ((96, 128),))
    assert (config.solver.base_lr, config.solver.max_iter, config.solver.steps) == (0.5, 9, (3,))


def test_overlays_that_are_none(load, refusal, tmp_path):
    assert "--overlay: " in refusal("", f"--overlay={tmp_path}/no.yaml")
    path = tmp_path / "over.yaml"
    path.write_text("seeed: 3\n")
    assert refusal("", f"--overlay={path}") == f"{path}: seeed: unknown key (did you mean seed?)"
    path.write_text("base: run.yaml\nseed: 3\n")
    assert "has a base, so it is a configuration of its own" in refusal("", f"--overlay={path}")


@pytest.mark.parametrize("name", ["gpu", "ascend"])
def test_the_devices_overlays(name):
    """Over every recipe; the batch, the rates and the network stay as they are."""
    for path in sorted((ROOT / "configs" / "coco").glob("defrcn*.yaml")):
        plain, laid = load_config(path), load_config(path, [f"--overlay=configs/{name}.yaml"])
        assert laid.device_target.lower() == name
        assert (laid.solver, laid.model, laid.data) == (plain.solver, plain.model, plain.data)


def test_an_entry_point_takes_overlays(tmp_path):
    path = tmp_path / "over.yaml"
    path.write_text("seed: 7\n")
    words = [f"--config_path={DEFAULTS}", f"--overlay={path}", "--test.score_threshold=0.2"]
    config = config_from_arguments(words, "Try.")
    assert (config.seed, config.test.score_threshold) == (7, 0.2)


# --- devices


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("jit_level: O2", "jit_level O2 compiles whole graphs of fixed shapes for Ascend"),
        ("jit_level: O2\ndevice_target: Ascend", "a list of input.input_shapes, or jit_level O0"),
        ("jit_level: O3", "'O0', 'O1' or 'O2'"),
        ("amp_level: O2\nmodel: {formulation: fast}", "O2 needs model.formulation plain or auto"),
        ("amp_level: O1", "'O0', 'O2', 'O3' or 'auto'"),
        ("amp_dtype: float8", "'float16' or 'bfloat16'"),
        ("solver: {loss_scale: 0}", "solver.loss_scale"),
    ],
)
def test_what_devices_cannot_do_is_refused(refusal, text, expected):
    assert expected in refusal(text)
