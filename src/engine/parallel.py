# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What the processes of one training tell each other: rows of numbers, bytes, starting weights.

Data parallel: every process (rank) has the whole network and its own pictures; gradients are
averaged by MindSpore's own reducer, everything else here is small. `device_adapter.Runtime` joins
the processes; a `Group` of one does all of this without a word to anybody.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.model_utils.errors import InputError

_CHUNK_BYTES = 1 << 24
_EXCHANGES = re.compile("AllReduce|AllGather|Broadcast|collective", re.IGNORECASE)


@dataclass(frozen=True)
class Group:
    """The processes of a training, seen from one of them.

    Every method must be called by all of them, in the same order.

    Attributes:
        rank: number of this process.
        size: processes in all.
        local_rank: number of this process among those of its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports for all."""
        return self.rank == 0

    def gather(self, row: np.ndarray) -> np.ndarray:
        """Everybody's row of numbers.

        Args:
            row: (n,) float32 or int32.

        Returns:
            (size, n), by rank, the same everywhere.
        """
        if self.size == 1:
            return row[None]
        with self.speaking():
            return np.asarray(ops.AllGather()(Tensor(np.ascontiguousarray(row[None]))).asnumpy())

    @contextlib.contextmanager
    def speaking(self) -> Iterator[None]:
        """Turn the failure of an exchange inside the block into a sentence.

        Raises:
            InputError: another process has ended, or cannot be reached.
        """
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not _EXCHANGES.search(str(error)):
                raise
            raise InputError(
                f"process {self.rank} of {self.size} has lost another one, which ended or cannot "
                "be reached; that one's log says why. Go on with --resume=true"
            ) from error

    def gather_bytes(self, content: bytes) -> list[bytes]:
        """Everybody's bytes, by rank; of any length, also none."""
        if self.size == 1:
            return [content]
        lengths = self.gather(np.array([len(content) >> 20, len(content) & 0xFFFFF], np.int32))
        sizes = [(int(high) << 20) + int(low) for high, low in lengths]
        parts: list[list[bytes]] = [[] for _ in sizes]
        # int32 because not every backend gathers bytes; in pieces because memory is finite.
        for start in range(0, max(sizes), _CHUNK_BYTES):
            width = -(-min(max(sizes) - start, _CHUNK_BYTES) // 4) * 4
            piece = content[start : start + width].ljust(width, b"\0")
            for part, row in zip(parts, self.gather(np.frombuffer(piece, np.int32))):
                part.append(row.tobytes())
        return [b"".join(part)[:size] for part, size in zip(parts, sizes)]

    def of_first(self, value: bool) -> bool:
        """What rank 0 says."""
        return bool(self.gather(np.array([value], np.int32))[0, 0])

    def wait(self) -> None:
        """Return when everybody has come here."""
        self.gather(np.zeros(1, np.float32))

    def check_same(self, value: int, what: str) -> None:
        """Check that all ranks have the same number.

        Raises:
            InputError: they do not, on every rank.
        """
        rows = self.gather(np.array([value], np.int32))[:, 0]
        if (rows != rows[0]).any():
            raise InputError(
                f"the {self.size} processes do not agree on {what}: {rows.tolist()} by rank; all "
                "machines must see the same files and be started with the same command"
            )

    def broadcast(self, parameters: Sequence[Parameter]) -> None:
        """Give every rank the values that rank 0 has."""
        if self.size == 1:
            return
        send = ops.Broadcast(0)
        for parameter in parameters:
            # A copy: what the operator returns may share memory with what it was given.
            (value,) = send((Tensor(parameter.asnumpy().copy()),))
            if not self.leads:
                # In place: see `network_define.set_parameters`.
                ops.assign(parameter, Tensor(value.asnumpy().copy()))

    def reducer(self, parameters: Sequence[Parameter]) -> nn.Cell | None:
        """A Cell from this rank's gradients to their mean over ranks; None for one process."""
        if self.size == 1:
            return None
        return nn.DistributedGradReducer(tuple(parameters), mean=True, degree=self.size)


ALONE = Group()
