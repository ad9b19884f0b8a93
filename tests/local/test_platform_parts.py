"""The parts of the local platform, one by one."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import psutil
import pytest
from msgspec.structs import replace

from coalmine_operator.api.spec import Model
from coalmine_operator.api.status import Status
from coalmine_operator.engine import RevisionRecord
from coalmine_operator.platforms.local import Refused, logs, manifest, ports
from coalmine_operator.platforms.local.kept import BackOff
from coalmine_operator.platforms.local.probe import Judge, Probe, ask, probe_for
from coalmine_operator.platforms.local.process import MARK, Process, alive, kill_strays, mark_of
from coalmine_operator.platforms.local.routing_file import RoutingFile
from coalmine_operator.platforms.local.signature import signature
from coalmine_operator.platforms.local.state import PodRecord, ProcessRecord, StateDirectory, write_atomically
from coalmine_operator.render import container
from coalmine_sidecar.contract import RevisionRoute, Routing, decode_routing

GOOD = """
apiVersion: coalmine.dev/v1alpha1
kind: ModelDeployment
metadata: {name: NAME}
spec: {template: {spec: {containers: [{name: model, command: [serve]}]}}}
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def start(code: str, folder: Path, **env: str) -> Process:
    return Process.start(python(code), env={**os.environ, **env}, cwd=folder, log=folder / "log")


async def until(condition: object, seconds: float = 10.0) -> None:
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the world outside sends no event
            await asyncio.sleep(0.01)


# Processes


async def test_exit_code_and_output(tmp_path: Path) -> None:
    process = start("import os; print(os.getcwd(), os.environ['A']); raise SystemExit(7)", tmp_path, A="b")
    await process.wait()
    assert process.describe_exit() == "exit code 7"
    assert (tmp_path / "log").read_text() == f"{tmp_path} b\n"
    assert not alive(process.record)


async def test_a_signal_is_named(tmp_path: Path) -> None:
    process = start("import time; time.sleep(60)", tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    assert process.describe_exit() == "killed by SIGKILL"


async def test_end_is_gentle_first(tmp_path: Path) -> None:
    code = """
import signal, time
def leave(*_):
    raise SystemExit(0)
signal.signal(signal.SIGTERM, leave)
print("up", flush=True)
time.sleep(60)
"""
    process = start(code, tmp_path)
    await until(lambda: (tmp_path / "log").read_text())
    await process.end(10)
    assert process.describe_exit() == "exit code 0"


async def test_end_kills_what_does_not_listen_and_its_children(tmp_path: Path) -> None:
    code = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(60)
"""
    process = start(code, tmp_path)
    await until(lambda: (tmp_path / "log").read_text().endswith("\n"))
    child = psutil.Process(int((tmp_path / "log").read_text()))
    await process.end(0.1)
    assert process.describe_exit() == "killed by SIGKILL"
    await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


async def test_children_of_a_crashed_process_are_ended(tmp_path: Path) -> None:
    code = "import os, time; child = os.fork(); child and (print(child, flush=True), os._exit(1)); time.sleep(60)"
    process = start(code, tmp_path)
    await process.wait()
    child = int((tmp_path / "log").read_text())
    await until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


async def test_a_detached_process_is_adopted(tmp_path: Path) -> None:
    process = start("import time; time.sleep(60)", tmp_path)
    await process.detach()
    adopted = Process.adopt(process.record)
    assert adopted is not None
    assert adopted.running
    await adopted.end(10)
    assert not adopted.running


async def test_a_pid_used_anew_is_not_adopted(tmp_path: Path) -> None:
    record = ProcessRecord(pid=os.getpid(), created_at=psutil.Process().create_time() - 60)
    assert Process.adopt(record) is None
    assert Process.adopt(None) is None


async def test_without_pidfd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    process = start("raise SystemExit(4)", tmp_path)
    await process.wait()
    assert process.describe_exit() == "exit code 4"


async def test_a_missing_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Process.start(["/nowhere/serve"], env={}, cwd=tmp_path, log=tmp_path / "log")


async def test_strays_are_known_by_their_mark(tmp_path: Path) -> None:
    mark = mark_of("model", tmp_path)
    mine = start("import time; time.sleep(60)", tmp_path, **{MARK: mark})
    other = start("import time; time.sleep(60)", tmp_path, **{MARK: mark + "x"})
    await until(lambda: psutil.Process(mine.pid).environ().get(MARK) == mark)  # it has called exec
    kill_strays(mark)
    await mine.wait()
    assert other.running
    await other.kill()


# Probes


def test_the_judge_counts_in_a_row() -> None:
    judge = Judge(Probe(paths=("/",), success_threshold=2, failure_threshold=3))
    answers = [True, False, True, True, False, False, True, False, False, False]
    flips = [judge.take(answer) for answer in answers]
    assert [index for index, flipped in enumerate(flips) if flipped] == [3, 9]
    assert not judge.ready


def test_the_protocol_decides_what_is_asked() -> None:
    assert probe_for(Model(name="m", protocol="v2"), None).paths == ("/v2/models/m/ready", "/v2/health/ready")
    assert probe_for(Model(name="m/1", protocol="v1"), None).paths == ("/v1/models/m%2F1",)
    assert probe_for(Model(name="m", protocol="openai"), None).paths == ("/health",)
    auto = probe_for(Model(name="m"), None)
    assert auto.tcp
    assert auto.paths == ("/v2/models/m/ready", "/v2/health/ready", "/v1/models/m")


def test_the_manifests_own_probe_comes_first() -> None:
    own = container.Probe(path="/up", headers=(("a", "b"),), period=3, timeout=2, failure_threshold=5)
    probe = probe_for(Model(name="m"), own)
    assert (probe.paths, probe.headers, probe.period, probe.timeout, probe.failure_threshold) == (
        ("/up",),
        {"a": "b"},
        3,
        2,
        5,
    )
    assert not probe.tcp


class Answers:
    """A server that answers each path with the status it is told, and 404 else."""

    def __init__(self) -> None:
        self.statuses: dict[str, int] = {}
        self.raw = b""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        status = self.statuses.get(path, 404)
        writer.write(self.raw or b"HTTP/1.1 %d X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
        await writer.drain()
        writer.close()


@pytest.fixture
async def answers() -> AsyncIterator[Answers]:
    made = Answers()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


AUTO = probe_for(Model(name="m"), None)


@pytest.mark.parametrize(
    ("statuses", "probe", "ready"),
    [
        ({"/v2/models/m/ready": 200}, AUTO, True),
        ({"/v2/models/m/ready": 503, "/v2/health/ready": 200}, AUTO, False),
        ({"/v2/health/ready": 200}, AUTO, True),
        ({"/v1/models/m": 200}, AUTO, True),
        ({"/v1/models/m": 503}, AUTO, False),
        ({}, AUTO, True),
        ({}, probe_for(Model(name="m", protocol="openai"), None), True),
        ({"/health": 503}, probe_for(Model(name="m", protocol="openai"), None), False),
        ({}, probe_for(Model(name="m", protocol="v2"), None), False),
        ({}, probe_for(Model(name="m", protocol="v1"), None), False),
        ({"/v1/models/m": 200}, probe_for(Model(name="m", protocol="v2"), None), False),
        ({"/up": 399}, Probe(paths=("/up",)), True),
        ({"/up": 404}, Probe(paths=("/up",)), False),
        ({"/up": 500}, Probe(paths=("/up",)), False),
    ],
)
async def test_ready_or_not(statuses: dict[str, int], probe: Probe, ready: bool, answers: Answers) -> None:
    answers.statuses = statuses
    async with aiohttp.ClientSession() as session:
        assert await ask(session, answers.port, probe) is ready


async def test_no_http_at_all(answers: Answers) -> None:
    answers.raw = b"SSH-2.0-whatever\r\n"
    async with aiohttp.ClientSession() as session:
        assert await ask(session, answers.port, AUTO)
        assert not await ask(session, answers.port, Probe(paths=("/up",)))


async def test_nobody_there_and_nobody_answering() -> None:
    async with aiohttp.ClientSession() as session:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            port = bound.getsockname()[1]
            assert not await ask(session, port, AUTO)
            bound.listen()
            assert not await ask(session, port, Probe(paths=("/up",), timeout=0.2))


# Small ones


def test_the_back_off_doubles_and_forgives() -> None:
    back_off = BackOff(1, 30, 60)
    assert [back_off.after(0.1) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert back_off.after(61) == 1
    assert back_off.after(0.1) == 2


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert logs.tail(log) == ""
    log.write_bytes(b"one\ntwo\n\nthree\nfour\x1b[31m\xff\nfive\n  six\n")
    assert logs.tail(log) == "two | three | four [31m\ufffd | five | six"
    log.write_text("x" * 100_000)
    assert len(logs.tail(log)) == logs.TAIL_CHARACTERS


def test_a_log_is_bounded_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 1000)
    monkeypatch.setattr(logs, "KEPT_BYTES", 100)
    log = tmp_path / "log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"a" * 999)
        logs.trim(log)
        assert log.stat().st_size == 999
        writer.write(b"b" * 50)
        logs.trim(log)
        writer.write(b"c")
    assert log.read_bytes() == b"c"
    assert (tmp_path / "log.old").read_bytes() == b"a" * 50 + b"b" * 50
    logs.trim(tmp_path / "none")


def test_what_a_sidecar_says_of_its_payload_log_is_told_once(tmp_path: Path) -> None:
    log = tmp_path / "sidecar.log"
    news = logs.PayloadLogNews(log)
    wrong, mended = "payload log to /full/p.jsonl: No space left on device", "payload log to /full/p.jsonl: takes it"

    def write(*lines: str, end: str = "\n") -> None:
        with log.open("a") as file:
            file.write("\n".join(lines) + end)

    def sidecar(message: str, level: str = "WARNING") -> str:
        return f"2026-11-22 20:00:00,000 {level} sidecar fraud-1-a: {message}"

    assert news.look() == (False, "")
    write(sidecar("listens", "INFO"), sidecar(mended, "INFO"), "Traceback: payload log to x: y")
    assert news.look() == (False, ""), "nobody was told that it failed"
    write(sidecar("listens"), sidecar(wrong)[:60], end="")
    assert news.look() == (False, "")
    write(sidecar(wrong)[60:])
    assert news.look() == (True, wrong)
    assert news.look() == (True, "")
    write(sidecar(wrong), sidecar(mended, "INFO"))
    assert news.look() == (False, mended)
    log.write_text("")
    news.look()
    write("x" * logs.NEWS_BYTES, sidecar("monitoring.payloadLog: no URL; nothing is logged"))
    assert news.look() == (True, "monitoring.payloadLog: no URL; nothing is logged")


def test_ports_for_models_are_below_the_systems_own() -> None:
    taken = set(range(20000, 32000))
    port = ports.pick(taken)
    assert 32000 <= port < 32768
    assert ports.is_free(port)


def test_a_port_in_use_is_refused_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert not ports.is_free(port)
        with pytest.raises(Refused, match=f"port {port} on 127.0.0.1 is taken: .* --port"):
            ports.Ingress("127.0.0.1", port).check()
    ports.Ingress("127.0.0.1", port).check()
    with pytest.raises(Refused, match="no port number"):
        ports.Ingress("127.0.0.1", 99999).check()


def test_the_ingress_lives_as_long_as_somebody_accepts_from_it() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ingress = ports.Ingress("127.0.0.1", port)
    first = ingress.fileno("a")
    assert ingress.fileno("b") == first
    second = ports.Ingress("127.0.0.1", port)  # the next `coalmine run`, beside sidecars it adopted
    second.fileno("c")
    ingress.drop("a")
    assert os.fstat(first)
    ingress.drop("b")
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(first)
    second.close()
    assert ports.is_free(port)


# The state directory


def test_the_state_directory_is_its_owners_alone(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "deep" / "state")
    files = state.deployment("fraud")
    files.write_status(Status(phase="Healthy"))
    state.close()
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((state.path / "fraud" / "status.json").stat().st_mode) == 0o600
    assert files.read_status().phase == "Healthy"


def test_the_state_directory_is_one_runs_alone(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    with pytest.raises(Refused, match=rf"in use by another `coalmine run` \(pid {os.getpid()}\)"):
        StateDirectory(tmp_path / "state")
    state.close()
    StateDirectory(tmp_path / "state").close()


def test_a_file_that_cannot_be_written_is_named_when_the_system_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")  # as write(2) tells it: no name

    def fsync(_fd: int) -> None:
        raise full

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/status.json'"):
        write_atomically(tmp_path / "status.json", b"{}")


def test_another_versions_state_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("7\n")
    with pytest.raises(Refused, match=r"another version of Coalmine \(layout '7'"):
        StateDirectory(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["version"]


def test_a_strangers_directory_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(Refused, match=r"holds thesis\.tex and is no state directory"):
        StateDirectory(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="--state"):
        StateDirectory(tmp_path / "file" / "state")


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    files = state.deployment("fraud")
    record = RevisionRecord(
        name="fraud-1", version="v1", template={"spec": {}}, model=Model(name="fraud"), created_at=1.5
    )
    files.write_revision(record)
    pod = PodRecord(name="fraud-1-a", revision="fraud-1", created_at=2.5, model=ProcessRecord(pid=1, created_at=3.25))
    files.write_pod(pod)
    assert files.revisions() == {"fraud-1": record}
    assert files.pods() == [pod]
    files.remove_revision("fraud-1")
    assert files.revisions() == {}
    state.close()


def test_logs_of_ended_pods_are_bounded(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    files = state.deployment("fraud")
    for index in range(6):
        files.write_pod(PodRecord(name=f"p{index}", revision="r", created_at=0))
        os.utime(files.pod_directory(f"p{index}"), (index, index))
    for index in range(5):
        files.remove_pod(f"p{index}", kept_logs=2)
        time.sleep(0.01)
    assert sorted(p.name for p in (tmp_path / "fraud" / "pods").iterdir()) == ["p3", "p4", "p5"]
    assert [record.name for record in files.pods()] == ["p5"]
    state.close()


def test_a_broken_file_is_refused_by_its_path(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    files = state.deployment("fraud")
    (tmp_path / "fraud" / "status.json").write_text('{"phase": "Fine"}')
    with pytest.raises(Refused, match=r"fraud/status\.json: cannot be read"):
        files.read_status()
    state.close()


def test_the_routing_file_is_written_only_for_news(tmp_path: Path) -> None:
    path = tmp_path / "routing.json"

    def routing(generation: int, *endpoints: str) -> Routing:
        revision = RevisionRoute(name="r1", version="v1", track="stable", weight=100, endpoints=endpoints)
        return Routing(deployment="fraud", model="fraud", generation=generation, revisions=(revision,))

    file = RoutingFile(path)
    assert file.put(routing(1))
    assert not file.put(routing(2))
    again = RoutingFile(path)
    assert again.generation == 1
    assert not again.put(routing(2))
    assert again.put(routing(2, "127.0.0.1:1"))
    path.write_text("{")
    assert RoutingFile(path).generation > 1_000_000_000


@pytest.mark.parametrize("harm", [Path.unlink, Path.touch, lambda path: path.write_text("{")])
def test_a_routing_that_somebody_else_changed_is_written_anew(harm: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "routing.json"
    file = RoutingFile(path)
    revision = RevisionRoute(name="r1", version="v1", track="stable", weight=100)
    routing = Routing(deployment="fraud", model="fraud", generation=1, revisions=(revision,))
    assert not file.touched
    assert file.put(routing)
    assert not file.touched
    harm(path)
    assert file.touched
    assert file.put(replace(routing, generation=2))
    assert decode_routing(path.read_bytes()).generation == 2
    assert not file.touched


def test_a_routing_that_could_not_be_written_is_tried_again(tmp_path: Path) -> None:
    file = RoutingFile(tmp_path / "none" / "routing.json")
    revision = RevisionRoute(name="r1", version="v1", track="stable", weight=100)
    routing = Routing(deployment="fraud", model="fraud", generation=1, revisions=(revision,))
    with pytest.raises(FileNotFoundError):
        file.put(routing)
    (tmp_path / "none").mkdir()
    assert file.put(routing)


# The manifest


def test_reading_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "fraud.yaml"
    path.write_text(GOOD.replace("NAME", "fraud") + "---" + GOOD.replace("NAME", "spam"))
    assert sorted(manifest.read(path).good) == ["default/fraud", "default/spam"]


def test_one_bad_document_leaves_the_others_good(tmp_path: Path) -> None:
    path = tmp_path / "fraud.yaml"
    path.write_text(
        GOOD.replace("NAME", "fraud")
        + "---"
        + GOOD.replace("NAME", "spam").replace("{template", "{replicas: -1, template")
    )
    reading = manifest.read(path)
    assert list(reading.good) == ["default/fraud"]
    (line,) = reading.bad["default/spam"]
    assert line.startswith("fraud.yaml:6: spec.replicas: -1")
    assert not reading.broken


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "fraud.yaml: holds no manifest"),
        (b"\xff\xfe", "fraud.yaml: byte 0 is no UTF-8"),
        (b"a: [", "fraud.yaml:"),
        ((GOOD.replace("NAME", "a") + "---" + GOOD.replace("NAME", "a")).encode(), "stands twice"),
        (b"a: " + b"x" * (1 << 20), "bytes"),
    ],
)
def test_what_is_no_deployments_own_breaks_the_file(data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "fraud.yaml"
    path.write_bytes(data)
    assert any(says in line for line in manifest.read(path).broken)


def test_a_template_that_is_no_process(tmp_path: Path) -> None:
    path = tmp_path / "fraud.yaml"
    path.write_text(GOOD.replace("NAME", "fraud").replace("command: [serve]", "image: fraud:1"))
    (line,) = manifest.read(path).bad["default/fraud"]
    assert line.startswith("fraud.yaml: spec.template.spec.containers[0].command: missing")


def test_a_document_without_a_name_leaves_the_others_good(tmp_path: Path) -> None:
    path = tmp_path / "fraud.yaml"
    path.write_text("kind: ModelDeployment\n---" + GOOD.replace("NAME", "fraud"))
    reading = manifest.read(path)
    assert (list(reading.good), list(reading.bad), reading.broken) == (["default/fraud"], [""], ())


async def test_the_watch_waits_until_the_file_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "POLL", 0.05)
    path = tmp_path / "fraud.yaml"
    path.write_text(GOOD.replace("NAME", "first"))
    heard: list[manifest.Reading] = []

    def hear(reading: manifest.Reading) -> bool:
        heard.append(reading)
        return True

    watching = asyncio.create_task(manifest.watch(path, signature(path), hear))
    text = GOOD.replace("NAME", "second")
    with path.open("w") as file:
        for character in text:  # a slow editor, in place
            file.write(character)
            file.flush()
            await asyncio.sleep(0.005)
    await until(lambda: heard)
    new = tmp_path / "new"
    new.write_text(GOOD.replace("NAME", "third"))
    new.replace(path)
    await until(lambda: len(heard) > 1)
    assert [list(reading.good) for reading in heard] == [["default/second"], ["default/third"]]
    watching.cancel()


async def test_the_watch_tells_of_a_file_that_is_gone_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "POLL", 0.02)
    monkeypatch.setattr(manifest, "RETRY", 0.02)
    path, away = tmp_path / "fraud.yaml", tmp_path / "away"
    path.write_text(GOOD.replace("NAME", "fraud"))
    heard: list[manifest.Reading] = []

    def hear(reading: manifest.Reading) -> bool:
        heard.append(reading)
        return len(heard) != 2  # a disk was full just then

    watching = asyncio.create_task(manifest.watch(path, signature(path), hear))
    path.rename(away)
    await until(lambda: heard)
    away.rename(path)  # the very file that was read before
    await until(lambda: len(heard) > 2)
    path.rename(away)
    path.mkdir()
    await until(lambda: len(heard) > 4)
    path.rmdir()
    away.rename(path)
    await until(lambda: heard[-1].good)
    watching.cancel()
    assert heard[0].broken == ("fraud.yaml: is gone: what runs goes on",)
    assert [list(reading.good) for reading in heard[1:3]] == [["default/fraud"]] * 2
    assert heard[3].broken[0].startswith("fraud.yaml: Is a directory")
