# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Run a stream of jobs ahead of their consumer, in threads.

Decoding and array work run outside the interpreter lock, so threads do; and unlike processes they
start at once, share memory with the consumer and cannot be killed one by one.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Result = TypeVar("Result")
POLL_SECONDS = 0.2


class Prefetcher(Generic[Result]):
    """Iterator over the results of jobs, in order.

    One thread draws jobs from `source` (whatever drawing does, reading for example, happens there);
    a pool of `num_workers` threads runs them; at most `ahead` of them are under way or wait. An
    exception of the source or of a job is raised by `next()` at its place in the order.

    Args:
        source: generator of jobs; it is closed when the iteration ends.
        num_workers: threads in the pool.
        ahead: jobs that may be under way or wait for the consumer.
    """

    def __init__(
        self, source: Generator[Callable[[], Result], None, None], num_workers: int, ahead: int
    ) -> None:
        self._source = source
        self._pool = ThreadPoolExecutor(max(num_workers, 1), thread_name_prefix="load")
        self._queue: queue.Queue[Future[Result]] = queue.Queue(max(ahead, 1))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load-reader", daemon=True)
        self._thread.start()

    def _put(self, future: Future[Result]) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(future, timeout=POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def _run(self) -> None:
        last: Future[Result] = Future()
        try:
            for job in self._source:
                if self._stop.is_set() or not self._put(self._pool.submit(job)):
                    break
            last.set_exception(StopIteration())
        # whatever it is, the consumer must hear of it or it would wait for ever
        except BaseException as error:  # noqa: BLE001
            last.set_exception(error)
        finally:
            self._source.close()
            self._put(last)

    def __iter__(self) -> Prefetcher[Result]:
        return self

    def __next__(self) -> Result:
        while not self._stop.is_set():
            try:
                future = self._queue.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if not self._thread.is_alive() and self._queue.empty():
                    self.close()
                    raise RuntimeError("the loading thread has ended without a word") from None
                continue
            try:
                return future.result()
            except BaseException:
                self.close()
                raise
        raise StopIteration

    def close(self) -> None:
        """Stop the threads; waits for the jobs that are running. May be called again."""
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)
        while not self._queue.empty():
            self._queue.get_nowait()
