"""Memory and CPU of real processes; figures that would be another process's are absent."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from coalmine_sidecar.observe.resources import MAX_AGE, ResourceReader

#: Takes 60 MB, has a child that takes 40 MB and one that burns a quarter second of CPU and ends.
MODEL = """
import subprocess, sys, time
burn = "import time\\nwhile time.process_time() < 0.25: pass"
subprocess.run([sys.executable, "-c", burn])
held = bytes(range(256)) * (60 << 12)
child = "import sys, time\\nheld = bytes(range(256)) * (40 << 12)\\nprint('up', flush=True)\\nsys.stdin.read()"
process = subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE)
sys.stdin.read()
process.communicate()
"""
IDLE = "import sys; print('up', flush=True); sys.stdin.read()"


class Ticking:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def start(program: str) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"up\n"
    return process


def stop(process: "subprocess.Popen[bytes]") -> None:
    process.communicate(timeout=30)


@pytest.fixture
def model() -> "Iterator[subprocess.Popen[bytes]]":
    process = start(MODEL)
    yield process
    stop(process)


@pytest.fixture
def idle() -> "Iterator[subprocess.Popen[bytes]]":
    process = start(IDLE)
    yield process
    stop(process)


def test_children_count_and_so_does_the_time_of_those_that_ended(
    model: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    pid_file.write_text(f"{model.pid}\n")
    found = ResourceReader(pid_file, memory_limit_bytes=1 << 30, cpu_limit_cores=1.5).read()
    assert found is not None
    assert found.memory_bytes > 100 << 20
    assert found.memory_bytes < 400 << 20
    assert 0.25 <= found.cpu_seconds < 30
    assert (found.memory_limit_bytes, found.cpu_limit_cores) == (1 << 30, 1.5)


def test_a_sample_is_kept_for_a_while_and_the_pid_file_read_anew(
    model: "subprocess.Popen[bytes]", idle: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    pid_file.write_text(str(model.pid))
    clock = Ticking()
    reader = ResourceReader(pid_file, clock=clock)
    first = reader.read()
    assert first is not None
    pid_file.write_text(str(idle.pid))
    assert reader.read() is first
    clock.now += MAX_AGE
    second = reader.read()
    assert second is not None
    assert second.memory_bytes < first.memory_bytes
    assert second.cpu_seconds < first.cpu_seconds


def test_another_process_under_the_same_number_is_not_the_model(
    idle: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    pid_file.write_text(str(idle.pid))
    an_hour_ago = time.time() - 3600
    os.utime(pid_file, (an_hour_ago, an_hour_ago))
    assert ResourceReader(pid_file).read() is None


def test_a_process_that_ended_is_absent(tmp_path: Path) -> None:
    process = start(IDLE)
    pid_file = tmp_path / "pid"
    pid_file.write_text(str(process.pid))
    clock = Ticking()
    reader = ResourceReader(pid_file, clock=clock)
    assert reader.read() is not None
    assert process.stdin
    process.stdin.close()
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    clock.now += MAX_AGE
    assert reader.read() is None
    process.wait()
    assert process.stdout
    process.stdout.close()
    clock.now += MAX_AGE
    assert reader.read() is None


@pytest.mark.parametrize("text", ["", "no number", "-1", "0", "9" * 30, "\xff"])
def test_a_pid_file_that_names_no_process(text: str, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    pid_file.write_bytes(text.encode("latin-1"))
    assert ResourceReader(pid_file).read() is None


def test_no_pid_file(tmp_path: Path) -> None:
    assert ResourceReader(tmp_path / "missing").read() is None
    assert ResourceReader(None).read() is None
