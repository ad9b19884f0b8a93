"""From the operator's flags to the sidecar's: who gets metrics without asking."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from coalmine_operator.__main__ import read_settings as operator_settings
from coalmine_operator.platforms.local.launch import sidecar_environment
from coalmine_operator.render.injection import Identity, InjectionSettings, inject
from coalmine_operator.webhook.__main__ import read_settings as webhook_settings
from coalmine_sidecar.push.settings import PushSettings
from coalmine_sidecar.settings import read_settings

POD: dict[str, Any] = {"spec": {"containers": [{"name": "model", "image": "m"}]}}
IDENTITY = Identity(revision="fraud-1", port=8080, drain_key="k", secret="s")


def injected(*flags: str) -> PushSettings:
    """What the sidecar of a new pod takes the operator's flags for; the webhook's pods get the same."""
    operator = operator_settings(["operator", "--sidecar-image=i", *flags], {})[0].platform.injection
    webhook = webhook_settings(["--sidecar-image=i", *flags], {})[0].injection
    assert operator == webhook
    sidecar = inject(POD, operator, identity=IDENTITY).pod["spec"]["initContainers"][0]
    return read_settings(sidecar["args"], {}).push


def test_by_default_nothing_is_pushed():
    assert not injected()
    assert operator_settings(["operator", "--sidecar-image=i"], {})[0].platform.injection == InjectionSettings(
        image="i"
    )


def test_the_sidecar_reads_what_the_operator_says():
    assert injected(
        "--push-graphite=graphite.observability:2003",
        "--push-graphite-prefix=ml.models",
        "--push-graphite-tags=false",
        "--push-otlp=http://prometheus:9090/api/v1/otlp",
        "--push-interval=30",
    ) == PushSettings(
        graphite=("graphite.observability", 2003),
        prefix="ml.models",
        tags=False,
        otlp="http://prometheus:9090/api/v1/otlp/v1/metrics",
        interval=30,
    )
    assert injected("--push-graphite=[::1]:2003") == PushSettings(graphite=("::1", 2003))
    assert injected("--push-otlp=http://[::1]:4318") == PushSettings(otlp="http://[::1]:4318/v1/metrics")


def test_on_a_laptop_the_environment_says_it(monkeypatch: pytest.MonkeyPatch):
    given = {
        "GRAPHITE": "g:2003",
        "GRAPHITE_PREFIX": "a",
        "GRAPHITE_TAGS": "false",
        "OTLP": "http://o",
        "PUSH_INTERVAL": "9",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"COALMINE_{name}", value)
    whose = [f"--{name}=x" for name in ("routing", "revision", "pod")]
    ports = [f"--{role}=fd:9" for role in ("ingress", "local", "admin")]
    settings = read_settings([*whose, *ports, "--model=h:1"], sidecar_environment())
    assert settings.push == PushSettings(
        graphite=("g", 2003), prefix="a", tags=False, otlp="http://o/v1/metrics", interval=9
    )


def test_a_key_comes_from_a_secret_that_may_be_missing():
    flags = ["--push-otlp=http://o:4318", "--push-otlp-headers-secret=otlp/headers"]
    settings = operator_settings(["operator", "--sidecar-image=i", *flags], {})[0].platform.injection
    assert settings == webhook_settings(["--sidecar-image=i", *flags], {})[0].injection
    env = inject(POD, settings, identity=IDENTITY).pod["spec"]["initContainers"][0]["env"]
    assert env[2:] == [
        {
            "name": "OTEL_EXPORTER_OTLP_HEADERS",
            "valueFrom": {"secretKeyRef": {"name": "otlp", "key": "headers", "optional": True}},
        }
    ]
    without = operator_settings(["operator", "--sidecar-image=i", flags[1]], {})[0].platform.injection
    assert without == InjectionSettings(image="i"), "nobody asks for it"


def test_the_operator_pushes_where_its_sidecars_push():
    flags = (
        "--push-graphite=[::1]:2003",
        "--push-graphite-prefix=ml",
        "--push-graphite-tags=false",
        "--push-otlp=http://o",
    )
    environ = {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=k"}
    own = operator_settings(["operator", "--sidecar-image=i", *flags], environ)[0].push
    assert own == PushSettings(
        graphite=("::1", 2003), prefix="ml", tags=False, otlp="http://o/v1/metrics", headers=(("api-key", "k"),)
    )
    assert replace(own, headers=()) == injected(*flags)
    assert not operator_settings(["operator", "--sidecar-image=i"], {})[0].push


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--push-graphite=graphite", "--push-graphite: 'graphite' is no HOST:PORT"),
        ("--push-graphite=g:123456", "--push-graphite: 'g:123456' is no HOST:PORT"),
        ("--push-graphite=g:99999", "--push-graphite: 'g:99999' is no HOST:PORT"),
        ("--push-graphite-prefix=a..b", "--push-graphite-prefix: 'a..b' is no name such as ml.models"),
        ("--push-graphite-tags=maybe", "--push-graphite-tags: invalid choice"),
        ("--push-otlp=otel:4318", "--push-otlp: no URL: write http://HOST:PORT, without user and password"),
        ("--push-otlp=http://u:s3cret@otel", "--push-otlp: no URL: write http://HOST:PORT, without user and password"),
        ("--push-otlp=http://otel:x", "--push-otlp: no URL: write http://HOST:PORT, without user and password"),
        ("--push-otlp-headers-secret=otlp", "--push-otlp-headers-secret: 'otlp' is no NAME/KEY of a Secret"),
        ("--push-otlp-headers-secret=A/b", "--push-otlp-headers-secret: 'A/b' is no NAME/KEY of a Secret"),
        ("--push-interval=0", "--push-interval: '0' is no whole number of seconds, 1 to 3600"),
        ("--push-interval=1.5", "--push-interval: '1.5' is no whole number of seconds, 1 to 3600"),
    ],
)
def test_what_a_sidecar_would_refuse_the_operator_refuses(flag: str, says: str, capsys: pytest.CaptureFixture[str]):
    flags = [flag] if flag.startswith("--push-graphite=") else ["--push-graphite=g:1", flag]
    with pytest.raises(SystemExit):
        operator_settings(["operator", "--sidecar-image=i", *flags], {})
    errors = capsys.readouterr().err
    assert says in errors
    assert "s3cret" not in errors
