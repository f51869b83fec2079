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


def prefetch(
    jobs: Iterable[Callable[[], Result]], num_workers: int, ahead: int
) -> Generator[Result, None, None]:
    """The results of jobs, in order.

    Jobs are drawn (whatever drawing does, reading for example) when a result is asked for, and run
    in `num_workers` threads; while the consumer has a result, `ahead` jobs are under way or wait.
    An exception of `jobs` or of a job is raised at its place in the order. The threads end with
    the iteration, by `close()`, or when the generator is forgotten.

    Args:
        jobs: functions without arguments.
        num_workers: threads; at least one.
        ahead: jobs that may be under way or wait for the consumer.
    """
    pool = ThreadPoolExecutor(max(num_workers, 1), thread_name_prefix="load")
    futures: deque[Future[Result]] = deque()
    try:
        for future in _submitted(jobs, pool):
            futures.append(future)
            if len(futures) > ahead:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


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
