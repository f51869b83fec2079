# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Run a stream of jobs ahead of their consumer, in threads.

Decoding and array work run outside the interpreter lock, so threads do; and unlike processes they
start at once, share memory with the consumer and cannot be killed one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


class Prefetched(Iterator[Result]):
    """The results of jobs, in order.

    Jobs are drawn (whatever drawing does, reading for example) when a result is asked for, and run
    in `num_workers` threads; while the consumer has a result, `ahead` jobs are under way or wait.
    An exception of `jobs` or of a job is raised at its place in the order. The threads end with
    the iteration, with `close()`, or soon after this is forgotten.

    Args:
        jobs: functions without arguments.
        num_workers: threads; at least one.
        ahead: jobs that may be under way or wait for the consumer.
    """

    def __init__(self, jobs: Iterable[Callable[[], Result]], num_workers: int, ahead: int) -> None:
        self._pool = ThreadPoolExecutor(max(num_workers, 1), thread_name_prefix="load")
        self._results = _results(jobs, self._pool, ahead)

    def __next__(self) -> Result:
        try:
            return next(self._results)
        except BaseException:  # the end, or an error
            self._pool.shutdown()
            raise

    def close(self) -> None:
        """End the iteration, and wait for the threads."""
        self._results.close()
        self._pool.shutdown()


def _results(
    jobs: Iterable[Callable[[], Result]], pool: ThreadPoolExecutor, ahead: int
) -> Generator[Result, None, None]:
    """See `Prefetched`."""
    futures: deque[Future[Result]] = deque()
    try:
        for future in _submitted(jobs, pool):
            futures.append(future)
            if len(futures) > ahead:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        # Not waited for: if this was forgotten, the collector may be at it within the start of
        # another thread, which then holds a lock that the end of these has to take.
        pool.shutdown(wait=False, cancel_futures=True)


def _submitted(
    jobs: Iterable[Callable[[], Result]], pool: ThreadPoolExecutor
) -> Iterator[Future[Result]]:
    """The jobs on their way; an exception of `jobs` itself takes the place of the next result."""
    try:
        yield from map(pool.submit, jobs)
    except Exception as error:  # noqa: BLE001 - raised by the future
        failed: Future[Result] = Future()
        failed.set_exception(error)
        yield failed
