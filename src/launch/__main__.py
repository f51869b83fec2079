# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
r"""Start a program of this project, in one process or several, and see it through.

    python -m src.launch train.py --config_path=FILE [--key=value …]
    python -m src.launch --worker_num 2 train.py --config_path=FILE …

The program is a file, or a module such as src.sweep. Runs in the foreground and returns its exit
status; what it writes is shown and kept in a new folder below --log_dir, that of every worker in
a file of its own (by default, logs in the program's --save_checkpoint_path). SIGTERM and Ctrl-C
are handed on, so that a training can save what it has; a second one, or --grace seconds, end it.
Nothing stays behind.

Several processes are started by `msrun`; with --engine mpirun by Open MPI's `mpirun` (GPU; more
words for it in the variable MPIRUN_ARGS); with --engine ranktable, the default for Ascend if
RANK_TABLE_FILE is set, directly, with the numbers that the table has for this machine. On several
machines run the same on each, with --worker_num in all, --local_worker_num here, --master_addr
and --master_port of the first machine, and --node_rank of this one.
`run_distribute` and `device_num` are added to the program's flags where they are missing.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from src.model_utils.command_line import Flags, command_parser
from src.model_utils.errors import InputError
from src.model_utils.interruption import ENDING
from src.model_utils.processes import (
    Command,
    Supervisor,
    descendants,
    last_lines,
    project_environment,
)
from src.util import first_free, run_main

LOCAL = "127.0.0.1"
DEFAULT_PORT = 8118  # msrun's own
ENGINES = ("msrun", "mpirun", "ranktable")
# What msrun says once a worker has failed; the scheduler then waits half a minute for it.
_WORKER_ENDED = re.compile(r"Worker process \d+ exit with exception. Error code: (-?\d+)")
_SEARCHED_LINES = 20
_SHOWN_LINES = 4
_NO_WORKER = 1_000_000
_NO_FAILURE = {0, *(128 + number for number in ENDING)}
#: Which processes there are, for this program and for the launchers.
CLUSTER_FLAGS: Flags = {
    "--worker_num": dict(metavar="N", type=int, default=1, help="processes on all machines"),
    "--local_worker_num": dict(
        metavar="N", type=int, help="processes on this machine (default: all)"
    ),
    "--master_addr": dict(metavar="IP", default=LOCAL, help="address of the first machine"),
    "--master_port": dict(
        metavar="N",
        type=int,
        help=f"of the first machine (default: a free one; several machines: {DEFAULT_PORT})",
    ),
    "--node_rank": dict(metavar="N", type=int, help="number of this machine, 0 for the first"),
    "--cluster_time_out": dict(
        metavar="N",
        type=int,
        default=600,
        help="seconds to wait for all processes (default: 600)",
    ),
    "--engine": dict(
        metavar="|".join(ENGINES),
        choices=ENGINES,
        help="default: msrun; ranktable if RANK_TABLE_FILE is set, Ascend",
    ),
    "--grace": dict(
        metavar="N",
        type=float,
        default=120.0,
        help="seconds to end after a signal (default: 120)",
    ),
}
FLAGS: Flags = {
    "--log_dir": dict(type=Path, help="folder that each start puts a folder of logs into"),
    "--device_target": dict(default="CPU", help="decides the engine, and whether cores are bound"),
    "--dry_run": dict(action="store_true", help="print the command, write nothing"),
    "program": dict(help="train.py, eval.py, or a module such as src.sweep"),
    "words": dict(nargs=argparse.REMAINDER, help="its flags"),
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    flags = {**CLUSTER_FLAGS, **FLAGS}
    parser = command_parser(flags, program="python -m src.launch", description=__doc__)
    options = parser.parse_args(argv)
    options.local_worker_num = options.local_worker_num or options.worker_num
    options.log_dir = _log_folder(options)
    _check(options)
    return options


def _log_folder(options: argparse.Namespace) -> Path:
    """A new name below the logs' folder; nothing is made yet."""
    parent = options.log_dir
    if parent is None:
        start = "--save_checkpoint_path="
        given = [word[len(start) :] for word in options.words if word.startswith(start)]
        parent = Path(*given[-1:], "logs")
    machine = "" if options.node_rank is None else f"-node{options.node_rank}"
    name = f"{time.strftime('%Y%m%d-%H%M%S')}{machine}"
    again = (parent / f"{name}_{number}" for number in itertools.count(2))
    return first_free(itertools.chain((parent / name,), again))


def _check(options: argparse.Namespace) -> None:
    if not 1 <= options.local_worker_num <= options.worker_num:
        raise InputError(
            f"--local_worker_num {options.local_worker_num} must be from 1 to --worker_num "
            f"{options.worker_num}"
        )
    several = options.local_worker_num < options.worker_num
    if options.engine is None:
        table = options.device_target == "Ascend" and os.environ.get("RANK_TABLE_FILE")
        options.engine = "ranktable" if table and options.worker_num > 1 else "msrun"
    if several and options.engine == "msrun":
        if options.node_rank is None or options.master_addr == LOCAL:
            raise InputError(
                "several machines need --node_rank (0 for the first) and --master_addr (the "
                "first machine's address) on each of them"
            )
        options.master_port = options.master_port or DEFAULT_PORT


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """A TCP port of this machine that nothing uses, kept from other launches inside the block."""
    while True:
        port = random.randint(20000, 29999)  # noqa: S311 - below the system's own choices
        # UDP ports are others than TCP's: holding this one tells other launches to leave both.
        with socket.socket(type=socket.SOCK_DGRAM) as claim, socket.socket() as probe:
            try:
                claim.bind((LOCAL, port))
                probe.bind(("", port))
            except OSError:
                continue
            probe.close()
            yield port
            return


def environment() -> dict[str, str]:
    """The children's: this project's modules, and this Python where `python` is called."""
    return {
        **project_environment(),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
        "PYTHONUNBUFFERED": "1",
        # MindSpore's own messages: errors only, unless more is asked for.
        "GLOG_v": os.environ.get("GLOG_v", "3"),
    }


def program_words(options: argparse.Namespace) -> list[str]:
    """Program and flags; with `run_distribute` and `device_num` for several processes."""
    module = not options.program.endswith(".py")
    words = [*(("-m",) if module else ()), options.program, *options.words]
    if options.worker_num > 1:
        given = {word.partition("=")[0] for word in words}
        for flag, value in (("run_distribute", "true"), ("device_num", options.worker_num)):
            if f"--{flag}" not in given:
                words.append(f"--{flag}={value}")
    return words


def _command(options: argparse.Namespace, *words: str) -> Command:
    return Command(words, environment(), options.log_dir / "output.txt")


def msrun_command(options: argparse.Namespace, port: int, log_dir: Path) -> Command:
    """One command that starts the scheduler and the workers of this machine."""
    flags = {
        "worker_num": options.worker_num,
        "local_worker_num": options.local_worker_num,
        "master_addr": options.master_addr,
        "master_port": port,
        "cluster_time_out": options.cluster_time_out,
        "log_dir": log_dir,
        "join": True,
        # Of a worker that there is not: the launcher itself shows a log, and msrun's helpers for
        # that would outlive it.
        "tail_worker_log": _NO_WORKER,
        # Beside a card a process keeps to cores near it; on CPUs all share them all.
        **({} if options.device_target == "CPU" else {"bind_core": True}),
        **({} if options.node_rank is None else {"node_rank": options.node_rank}),
    }
    words = (f"--{key}={value}" for key, value in flags.items())
    module = (sys.executable, "-m", "mindspore.parallel.cluster.run")
    return _command(options, *module, *words, *program_words(options))


def mpirun_command(options: argparse.Namespace) -> Command:
    """Open MPI's launcher."""
    words = ["mpirun", "-n", str(options.worker_num), "--output-filename", str(options.log_dir)]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        words.append("--allow-run-as-root")
    words += shlex.split(os.environ.get("MPIRUN_ARGS", ""))
    return _command(options, *words, sys.executable, *program_words(options))


def table_commands(options: argparse.Namespace) -> list[Command]:
    """One command for each card that the rank table has on this machine.

    Raises:
        InputError: the table cannot be read, or not told which machine this is.
    """
    path = os.environ.get("RANK_TABLE_FILE", "")
    devices, total = _table_devices(path, options.node_rank)
    if total != options.worker_num:
        raise InputError(f"{path} has {total} cards, but {options.worker_num} were asked for")
    return [
        Command(
            (sys.executable, *program_words(options)),
            {
                **environment(),
                "RANK_TABLE_FILE": str(Path(path).resolve()),
                "RANK_SIZE": str(total),
                "RANK_ID": str(device["rank_id"]),
                "DEVICE_ID": str(device["device_id"]),
            },
            options.log_dir / f"worker_{device['rank_id']}.log",
        )
        for device in devices
    ]


def _table_devices(path: str, node_rank: int | None) -> tuple[list[dict[str, Any]], int]:
    """The cards of this machine in a rank table, and the number of all."""
    try:
        servers = json.loads(Path(path).read_text(encoding="utf-8"))["server_list"]
        numbers = [int(device["rank_id"]) for one in servers for device in one["device"]]
        names = [str(one["server_id"]) for one in servers]
        [int(device["device_id"]) for one in servers for device in one["device"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"RANK_TABLE_FILE: {path} is no rank table ({error!r})") from error
    if node_rank is None:
        here = _addresses()
        mine = [number for number, name in enumerate(names) if name in here]
        node_rank = 0 if len(names) == 1 else mine[0] if len(mine) == 1 else -1
    if not 0 <= node_rank < len(names):
        raise InputError(
            f"RANK_TABLE_FILE: {path} has the machines {', '.join(names)}; say which is this one "
            "with --node_rank, from 0"
        )
    return list(servers[node_rank]["device"]), len(numbers)


def _addresses() -> set[str]:
    name = socket.gethostname()
    with contextlib.suppress(OSError):
        return {name, LOCAL, *socket.gethostbyname_ex(name)[2]}
    return {name, LOCAL}


def _workers(started: Sequence[int]) -> list[int]:
    """Who gets a signal: msrun's workers, not msrun, which would kill them."""
    roles = descendants()
    workers = [pid for pid, role in roles.items() if role == "MS_WORKER"]
    return workers or list(started)


def _failures(output: Path) -> list[re.Match[str]]:
    """Where msrun says that a worker has failed, with its exit status."""
    found = (_WORKER_ENDED.search(line) for line in last_lines(output, _SEARCHED_LINES))
    return [match for match in found if match]


def _end_scheduler(output: Path) -> None:
    """End msrun's scheduler once a worker has failed, instead of waiting for it."""
    if _failures(output):
        for pid, role in descendants().items():
            if role == "MS_SCHED":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def tell_failures(log_dir: Path, shown: Path, code: int) -> None:
    """Say that processes failed, and the last lines of the logs that were not shown."""
    sys.stderr.write(f"error: the processes ended with exit status {code}; logs: {log_dir}\n")
    sys.stderr.writelines(f"  msrun: {found[0]}\n" for found in _failures(log_dir / "output.txt"))
    for path in sorted(log_dir.glob("worker_*.log")):
        if path != shown:
            for line in last_lines(path, _SHOWN_LINES):
                sys.stderr.write(f"  {path.name}: {line}\n")


def worker_code(output: Path) -> int:
    """The exit status of the worker that failed, which msrun only writes down; otherwise 1."""
    number = next((int(found[1]) for found in _failures(output)), 1)
    return 128 - number if number < 0 else number


def run_msrun(options: argparse.Namespace) -> int:
    """Scheduler and workers by msrun."""
    output = options.log_dir / "output.txt"
    first = (options.node_rank or 0) * options.local_worker_num
    shown = options.log_dir / f"worker_{first}.log"
    with contextlib.ExitStack() as stack:
        port = options.master_port or stack.enter_context(free_port())
        # msrun hands the folder's name to a shell when it looks for errors: a plain name.
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="defrcn-")))
        options.log_dir.mkdir(parents=True, exist_ok=True)
        (place / "logs").symlink_to(options.log_dir.resolve())
        command = msrun_command(options, port, place / "logs")
        supervisor = Supervisor(_workers, grace_seconds=options.grace)
        code = supervisor.run([command], [shown], functools.partial(_end_scheduler, output))
        code = worker_code(output) if code == 1 else code
    if code not in _NO_FAILURE:
        tell_failures(options.log_dir, shown, code)
        if not shown.exists():
            sys.stderr.writelines(f"  {line}\n" for line in last_lines(output, _SHOWN_LINES))
    return code


def direct_commands(options: argparse.Namespace) -> list[Command]:
    """The processes that this one starts itself, without msrun."""
    if options.worker_num == 1:
        return [_command(options, sys.executable, *program_words(options))]
    return [mpirun_command(options)] if options.engine == "mpirun" else table_commands(options)


def run_direct(options: argparse.Namespace) -> int:
    """A single process, mpirun (which hands signals on itself), or workers with a rank table."""
    commands = direct_commands(options)
    if shutil.which(commands[0].words[0]) is None:
        raise InputError("mpirun is not on the PATH; install Open MPI, or use --engine msrun")
    shown = commands[0].output
    code = Supervisor(grace_seconds=options.grace).run(commands, [shown])
    if len(commands) > 1 and code not in _NO_FAILURE:
        tell_failures(options.log_dir, shown, code)
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Start, show, wait."""
    options = parse(argv)
    by_msrun = options.worker_num > 1 and options.engine == "msrun"
    if options.dry_run:
        msrun = [msrun_command(options, options.master_port or 0, options.log_dir)]
        commands = msrun if by_msrun else direct_commands(options)
        sys.stdout.writelines(f"{shlex.join(command.words)}\n" for command in commands)
        return 0
    sys.stdout.write(f"== logs: {options.log_dir}\n")
    sys.stdout.flush()
    return run_msrun(options) if by_msrun else run_direct(options)


if __name__ == "__main__":
    run_main(main)
