"""The sidecar's command line."""

from __future__ import annotations

import pytest
from tests.relay.test_process import FLAGS, flags

from coalmine_sidecar.settings import Listen, read_settings


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--revision=a"], "the following arguments are required: --routing, --pod, --model"),
        (flags(model="nowhere"), "argument --model: 'nowhere' is no host:port"),
        (flags(model=":80"), "argument --model: ':80' is no host:port"),
        (flags(ingress="fd:x"), "argument --ingress: 'fd:x' is no fd:NUMBER"),
        (flags(admin="127.0.0.1:99999"), "argument --admin: '127.0.0.1:99999' is no host:port"),
        ([*flags(), "--drain-timeout=-1"], "argument --drain-timeout: '-1' is no number of 0 or more"),
        ([*flags(), "--cpu-limit=nan"], "argument --cpu-limit: 'nan' is no number of 0 or more"),
        ([*flags(), "--model-processes=host"], "argument --model-processes: 'host' is not pod"),
        ([*flags(), "--memory-limit=1Gi"], "argument --memory-limit: '1Gi' is no whole number of bytes"),
        ([*flags(), "--max-connections=0"], "argument --max-connections: '0' is no whole number of 1 or more"),
        (flags(revision="a\nb"), "argument --revision: 'a\\nb' is no name"),
        ([*flags(), "--model-tls=yes"], "argument --model-tls: 'yes' is neither verify nor insecure"),
        ([*flags(), "--model-ca=f"], "--model-ca and --model-cert have no effect without --model-tls=verify"),
        ([*flags(), "--model-tls=verify", "--model-cert=f"], "--model-cert and --model-key belong together: give both"),
        ([*flags(), "--peer-ca=f"], "--peer-ca, --peer-cert, --peer-key and --peer-server-name belong together"),
        ([*flags(), "--ingress-key=f"], "--ingress-cert and --ingress-key belong together: give both"),
        (
            flags(model="127.0.0.1:8008", ingress="0.0.0.0:8008"),
            "--model 127.0.0.1:8008 is the sidecar's own --ingress",
        ),
        (flags(local="127.0.0.2:7", model="127.0.0.2:7"), "--model 127.0.0.2:7 is the sidecar's own --local: give"),
        (
            [*flags(admin="[::]:81"), "--model-grpc=localhost:81"],
            "--model-grpc localhost:81 is the sidecar's own --admin",
        ),
        ([*flags(), "--wieght=1"], "unrecognized arguments: --wieght=1"),
    ],
)
def test_wrong_flags_are_one_clear_line(arguments, says, capsys):
    with pytest.raises(SystemExit) as ended:
        read_settings(arguments, {})
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("coalmine-sidecar: ")
    assert says in errors
    assert errors.count("\n") == 1


def test_the_environment_speaks_where_no_flag_does():
    environment = {f"COALMINE_{name.upper()}": value for name, value in FLAGS.items()} | {"COALMINE_CPU_LIMIT": "1.5"}
    settings = read_settings(["--pod=q", "--ingress=fd:7", "--local=[::1]:80"], environment)
    assert (settings.pod, settings.revision, settings.cpu_limit) == ("q", "a", 1.5)
    assert (settings.ingress, settings.local) == (Listen(fd=7), Listen("::1", 80))
    assert settings.model_pid_file is None


def test_a_wrong_variable_is_a_wrong_flag(capsys):
    with pytest.raises(SystemExit):
        read_settings(flags(), {"COALMINE_DRAIN_TIMEOUT": "abc"})
    assert capsys.readouterr().err == "coalmine-sidecar: argument --drain-timeout: 'abc' is no number of 0 or more\n"
