# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The training loop: one step after the other, logged, saved, resumable."""

from __future__ import annotations

import logging
import math
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.data.batching import Batch
from src.defrcn.de_frcn import LOSS_NAMES, DeFRCN
from src.engine.loss_scale import LossScale
from src.engine.noise import Noise
from src.engine.parallel import ALONE, Group
from src.engine.watch.watch import Watch
from src.lr_schedule import Schedule
from src.model_utils.errors import InputError
from src.model_utils.interruption import Interrupted, StopRequests
from src.model_utils.paths import CHECKPOINTS
from src.model_utils.random_streams import NOISE_SCHEME
from src.util import idle_thread, write_json, writing
from src.weights.checkpoint import TrainingCheckpoint, save_checkpoint

logger = logging.getLogger(__name__)

LOSSES = "loss_0.log"  # below a run's folder
# What a training state holds beside the optimizer's.
_OF_THE_LOOP = {"seed", "world_size", "seconds", "skipped", "noise_scheme"} | {
    *LossScale(1.0).state()
}


def batch_tensors(batch: Batch) -> tuple[Tensor, ...]:
    """The first six inputs of `DeFRCN.losses`."""
    return (
        Tensor.from_numpy(batch.images),
        Tensor(batch.image_sizes),
        Tensor(batch.padded_size),
        Tensor(batch.gt_boxes),
        Tensor(batch.gt_classes),
        Tensor(batch.gt_valid),
    )


def step_in_epoch(step: int, batch_size: int, num_images: int) -> tuple[int, int]:
    """Epoch and step within it after `step` steps: images seen over images, rounded up."""
    epoch = max(1, math.ceil(step * batch_size / num_images))
    before = (epoch - 1) * num_images // batch_size
    return epoch, step - before


class Trainer:
    """Trains a detector from step `start` to the end of its schedule.

    Args:
        net: the detector.
        optimizer: over its trainable parameters.
        gradients_of: compiled, see `network_define.build_train_step`.
        update: compiled, likewise.
        schedule: steps and rates.
        noise: see `Noise`.
        seed: of the noise.
        num_images: training images of all processes.
        folder: checkpoints go to `folder/ckpt_0`, losses to `folder/loss_0.log`, both from the
            first process.
        info: stored with every checkpoint, `class_names` included.
        beside: JSON files by name, written into `folder` before the first checkpoint.
        log_period: steps between lines.
        save_period: steps between checkpoints.
        keep_last: checkpoints that are kept.
        evaluate: called with the step at every `eval_period`; None for never.
        eval_period: steps between evaluations; 0 for none.
        idle_wait: see `util.idle_thread`, for the CPU.
        max_skipped: steps whose loss or gradient is not finite that are left out (in the whole
            run, resumed or not) before one stops the training.
        stop: asked after every step; None for never.
        group: the processes that train together.
        loss_scale: of a step in half precision, which `gradients_of` takes; None without.

    Attributes:
        step: steps done, those left out included.
        skipped: steps left out.
        evaluated: step of the last evaluation; -1 without.
    """

    def __init__(
        self,
        net: DeFRCN,
        optimizer: nn.Cell,
        gradients_of: Callable,
        update: Callable,
        schedule: Schedule,
        noise: Noise,
        *,
        seed: int,
        num_images: int,
        folder: str | os.PathLike[str],
        info: Mapping[str, Any],
        beside: Mapping[str, Any] | None = None,
        log_period: int,
        save_period: int,
        keep_last: int,
        evaluate: Callable[[int], None] | None = None,
        eval_period: int = 0,
        idle_wait: bool = False,
        max_skipped: int = 0,
        stop: StopRequests | None = None,
        group: Group = ALONE,
        loss_scale: LossScale | None = None,
    ) -> None:
        self.net = net
        self.gradients_of = gradients_of
        self.update = update
        self.schedule = schedule
        self.noise = noise
        self.seed = seed
        self.group = group
        self.num_images = num_images
        self.folder = Path(folder)
        self.info = dict(info)
        self.beside = dict(beside or {})
        self.log_period = log_period
        self.save_period = save_period
        self.keep_last = keep_last
        self.evaluate = evaluate
        self.eval_period = eval_period
        self.idle_wait = idle_wait
        self.max_skipped = max_skipped
        self.stop = stop or StopRequests()
        self.loss_scale = loss_scale
        # By names of now: asking a parameter waits for the graph that runs, and there are hundreds.
        self._weights = {parameter.name: parameter for parameter in net.get_parameters()}
        self._state = {parameter.name: parameter for parameter in optimizer.state}
        self._agreed = 0  # the signal that some process had received when the last step was done
        self.step = 0
        self.skipped = 0
        self.evaluated = -1
        self._saved = -1
        self.seconds_before = 0.0

    @property
    def evaluates_now(self) -> bool:
        """Whether an evaluation on the way is due after the present step."""
        return bool(self.evaluate and self.eval_period) and self.step % self.eval_period == 0

    def restore(self, checkpoint: TrainingCheckpoint) -> None:
        """Continue after a checkpoint's last step.

        Raises:
            InputError: its optimizer state or seed does not belong to this run.
        """
        state = checkpoint.state
        wanted = self._state
        given = set(state) - _OF_THE_LOOP
        if given != wanted.keys() or any(state[n].shape != wanted[n].shape for n in given):
            raise InputError(
                f"{checkpoint.manifest}: its optimizer state is for other parameters; resume "
                "with the configuration that the run was started with"
            )
        if int(state["seed"]) != self.seed or int(state["world_size"]) != self.group.size:
            raise InputError(
                f"{checkpoint.manifest}: was trained with seed {int(state['seed'])} on "
                f"{int(state['world_size'])} cards; resume with the same"
            )
        if int(state.get("noise_scheme", 1)) != NOISE_SCHEME:
            logger.warning(
                "%s: was trained by another version, which drew the samples of anchors and "
                "proposals otherwise; the run goes on, with other draws than it would have had",
                checkpoint.manifest,
            )
        for name, parameter in wanted.items():
            ops.assign(parameter, Tensor(state[name]))  # see `network_define.set_parameters`
        self.step = checkpoint.step
        self.seconds_before = float(state["seconds"])
        self.skipped = int(state.get("skipped", 0))
        if self.loss_scale is not None:
            self.loss_scale.restore(state)
        self._saved = self.step

    def run(self, batches: Iterator[Batch], watch: Watch | None = None) -> None:
        """Train.

        Args:
            batches: starts with the batch of the next step.
            watch: is told of every step, and the numbers of every line of the log.

        Raises:
            InputError: a loss or gradient is not finite (nothing was updated by that step), or
                the disk is full.
            Interrupted: a signal came; the step under way was finished and saved.
        """
        with self.stop.deferred(), self.group.speaking():
            self.group.broadcast([*self._weights.values(), *self._state.values()])
            self._run(batches, watch or Watch())
            self._share_statistics()
            # Nobody ends, whatever the reason, before the last checkpoint is written.
            self.group.wait()
            self.stop.check()

    def _run(self, batches: Iterator[Batch], watch: Watch) -> None:
        started = self._mark = time.monotonic()
        self._data_seconds, self._marked_step = 0.0, self.step
        first_step = self.step
        while self.step < self.schedule.max_steps:
            watch.before_step()
            waiting = time.monotonic()
            batch = next(batches)
            self._data_seconds += time.monotonic() - waiting
            lr = self.schedule.lr(self.step)
            # The first step compiles, which is this thread's own work.
            with idle_thread(self.idle_wait and self.step > first_step):
                losses = self._one_step(batch, lr)
            self.step += 1
            watch.after_step()
            elapsed = self.seconds_before + time.monotonic() - started
            last = self.step == self.schedule.max_steps
            evaluates = self.evaluates_now
            # some steps are logged, the first and the last, by one process
            edge = last or self.step == first_step + 1
            if self.group.leads and (edge or self.step % self.log_period == 0):
                watch.scalars(self.step, self._log(losses, lr, elapsed, len(batch.image_ids)))
            # several processes end by the same signal
            ending = self.stop.received if self.group.size == 1 else self._agreed
            if self.step % self.save_period == 0 or last or evaluates or ending:
                # also before an evaluation, which may take longer than what it could lose
                self._save(elapsed)
            if ending:
                self.group.wait()
                raise Interrupted(ending)
            if evaluates:
                self._evaluate()

    def _share_statistics(self) -> None:
        """Give all processes the first one's running statistics, those that are saved."""
        running = [one for name, one in self._weights.items() if ".running_" in name]
        self.group.broadcast(running)

    def _evaluate(self) -> None:
        assert self.evaluate is not None
        self._share_statistics()
        with self.stop.immediate():
            self.evaluate(self.step)
        self.evaluated = self.step

    def _one_step(self, batch: Batch, lr: float) -> np.ndarray:
        noise = self.noise.draw(self.seed, batch)
        scale = self.loss_scale
        factor = () if scale is None else (Tensor(scale.value, ms.float32),)
        labelled = () if batch.labelled is None else (Tensor(batch.labelled),)
        losses, square_norm, gradients = self.gradients_of(
            *batch_tensors(batch), *(Tensor(array) for array in noise), *labelled, *factor
        )
        mine = np.append(losses.asnumpy(), square_norm.asnumpy())
        # All processes see all rows, so that all decide the same.
        rows = self.group.gather(np.append(mine, self.stop.received or 0).astype(np.float32))
        self._agreed = int(rows[:, -1].max())
        bad = [rank for rank, row in enumerate(rows) if not np.isfinite(row).all()]
        finite_losses = bool(np.isfinite(rows[:, : len(LOSS_NAMES)]).all())
        if not bad:
            self.update(gradients, Tensor(lr, ms.float32))
            if scale is not None:
                scale.step()
        elif scale is not None and finite_losses and scale.overflow():
            # what was too large is the factor, not the loss
            logger.info(
                "step %d: a gradient overflowed; step left out, loss scale %g (overflow %d)",
                self.step + 1,
                scale.value,
                scale.overflows,
            )
        else:
            self._not_finite(rows[bad[0]], bad, batch)
        return np.asarray(rows[:, : len(LOSS_NAMES)].mean(axis=0))

    def _not_finite(self, row: np.ndarray, ranks: list[int], batch: Batch) -> None:
        """Leave a step out, or stop; the weights are those from before it.

        Args:
            row: losses of the first process that it happened to.
            ranks: all those.
            batch: this process's.
        """
        named = ", ".join(f"{n} {v:.4g}" for n, v in zip(LOSS_NAMES, row))
        files = self.group.gather_bytes(", ".join(map(str, batch.file_names)).encode())
        message = (
            f"step {self.step + 1}: the loss or its gradient is not finite ({named}) for "
            f"{', '.join(files[rank].decode() for rank in ranks)}; the weights were not changed "
            "by it"
        )
        if self.skipped < self.max_skipped:
            self.skipped += 1
            logger.warning(
                "%s; step left out, %d of at most %d (solver.max_skipped_steps)",
                message,
                self.skipped,
                self.max_skipped,
            )
            return
        before = f" after {self.skipped} steps left out" if self.skipped else ""
        raise InputError(
            f"{message}. Training ends{before}: lower solver.base_lr, lengthen "
            "solver.warmup_iters, look at these images, or allow some such steps with "
            "solver.max_skipped_steps"
        )

    def _log(self, losses: np.ndarray, lr: float, elapsed: float, count: int) -> dict[str, float]:
        """Write the lines of a step; return what they say by name."""
        now = time.monotonic()
        steps = max(self.step - self._marked_step, 1)
        per_step = (now - self._mark) / steps
        remaining = (self.schedule.max_steps - self.step) * per_step
        shown = {
            "loss/total": float(losses.sum()),
            **{f"loss/{name}": float(value) for name, value in zip(LOSS_NAMES, losses)},
            "lr": lr,
            "speed/images_per_second": count * self.group.size / per_step,
            "speed/data_seconds": self._data_seconds / steps,
            "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        }
        logger.info(
            "step %d/%d  total %.4f  %s  lr %.6f  %.2f images/s  data %.3f s  eta %s  %.1f GB",
            self.step,
            self.schedule.max_steps,
            shown["loss/total"],
            "  ".join(f"{name} {value:.4f}" for name, value in zip(LOSS_NAMES, losses)),
            lr,
            shown["speed/images_per_second"],
            shown["speed/data_seconds"],
            time.strftime("%H:%M:%S", time.gmtime(remaining))
            if remaining < 86400
            else f"{remaining / 86400:.1f} days",
            shown["memory_gb"],
        )
        images = count * self.group.size
        epoch, step = step_in_epoch(self.step, images, self.num_images)
        path = self.folder / LOSSES
        line = (
            f"{int(elapsed)} s | epoch: {epoch} step: {step} "
            f"total_loss: {losses.sum():.5f}  lr: {lr:.6f}\n"
        )
        with writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as handle:
                handle.write(line)
        self._mark, self._marked_step, self._data_seconds = now, self.step, 0.0
        return shown

    def _save(self, elapsed: float) -> None:
        if self._saved == self.step or not self.group.leads:
            return
        state = {
            **{name: parameter.asnumpy() for name, parameter in self._state.items()},
            "seed": np.array(self.seed),
            "world_size": np.array(self.group.size),
            "seconds": np.array(elapsed),
            "skipped": np.array(self.skipped),
            "noise_scheme": np.array(NOISE_SCHEME),
            **(self.loss_scale.state() if self.loss_scale else {}),
        }
        params = {name: parameter.asnumpy() for name, parameter in self._weights.items()}
        while self.beside:
            name, content = self.beside.popitem()
            write_json(self.folder / name, content, indent=1)
        path = save_checkpoint(
            self.folder / CHECKPOINTS,
            self.step,
            params,
            state,
            self.info,
            keep_last=self.keep_last,
        )
        self._saved = self.step
        logger.info("saved %s", path)
