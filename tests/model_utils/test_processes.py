# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Children: their signals, what is left of them, whose processes are whose."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from src.model_utils.interruption import Interrupted
from src.model_utils.paths import project_folder
from src.model_utils.processes import Command, Supervisor, last_lines

ROOT = project_folder()


def python(code, output):
    return Command((sys.executable, "-c", code), dict(os.environ), output)


def test_what_does_not_end_is_killed(tmp_path):
    """After the grace time, also what has left the session and lost its parent."""
    pidfile = tmp_path / "pid"
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"os.system('setsid sh -c \"echo \\$\\$ > {pidfile}; sleep 300\" &')\n"
        "time.sleep(300)\n"
    )
    launcher = (
        "import sys; from pathlib import Path\n"
        "from src.model_utils.processes import Command, Supervisor\n"
        "import os\n"
        f"command = Command((sys.executable, '-c', {code!r}), dict(os.environ), "
        f"Path({str(tmp_path / 'out')!r}))\n"
        "sys.exit(Supervisor(grace_seconds=1).run([command], []))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", launcher], cwd=ROOT)
    until = time.monotonic() + 30
    while not (pidfile.exists() and pidfile.read_text().strip()):
        assert time.monotonic() < until
        time.sleep(0.1)
    process.terminate()
    assert process.wait(timeout=20) == 143
    assert not Path(f"/proc/{pidfile.read_text().strip()}").exists()


def test_a_command_that_cannot_be_started(tmp_path):
    command = Command(("/no/such/program",), dict(os.environ), tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        Supervisor().run([command], [])


def test_codes_and_output_of_several(tmp_path, capfd):
    codes = ("print('one')", "import sys; print('two'); sys.exit(3)")
    commands = [python(code, tmp_path / str(index)) for index, code in enumerate(codes)]
    assert Supervisor().run(commands, [tmp_path / "1"]) == 3
    assert capfd.readouterr().out == "two\n"
    assert last_lines(tmp_path / "0", 2) == ["one"]
    killed = python("import os; os.kill(os.getpid(), 9)", tmp_path / "2")
    assert Supervisor().run([killed]) == 137
    assert Supervisor().run(commands[:1]) == 0


def test_processes_that_were_there_before_stay(tmp_path):
    """Neither ended, nor their exit status taken from whoever started them."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    ended = subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(7)"])
    time.sleep(0.5)
    assert Supervisor().run([python("", tmp_path / "out")]) == 0
    assert other.poll() is None
    assert ended.wait() == 7
    other.kill()
    other.wait()


def test_a_signal_is_remembered(tmp_path):
    supervisor = Supervisor(lambda pids: [-pid for pid in pids])
    supervisor.check()
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert supervisor.run([python("import time; time.sleep(300)", tmp_path / "out")]) == 143
    with pytest.raises(Interrupted):
        supervisor.check()
    marker = tmp_path / "marker"
    late = python(f"open({str(marker)!r}, 'w')", tmp_path / "out")
    assert supervisor.run([late]) == 143  # nothing is started any more
    assert not marker.exists()
