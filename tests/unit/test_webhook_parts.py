"""The webhooks' own authority, and reviews of whatever JSON can be."""

import base64
import datetime as dt
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.manifests import changed

from coalmine_operator.render import patch
from coalmine_operator.render.injection import InjectionSettings
from coalmine_operator.webhook import deployments, pods
from coalmine_operator.webhook.__main__ import read_settings
from coalmine_operator.webhook.authority import LIFE, Certificate, bundle, due, from_secret, issue
from coalmine_operator.webhook.review import Review

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
NAMES = ("w.ns.svc", "w.ns.svc.cluster.local")
HELD = issue(NOW, NAMES)
OTHER = issue(NOW, NAMES)


@pytest.mark.parametrize(
    ("now", "held", "why"),
    [
        (NOW, HELD, ""),
        (NOW + LIFE * 0.6, HELD, ""),
        (NOW + LIFE * 0.7, HELD, "it ends at 2027-02-19 00:00 UTC"),
        (NOW + LIFE * 2, HELD, "it ends at"),
        (NOW - DAY, HELD, "it is not valid yet"),
        (NOW, None, "there is none"),
        (NOW, issue(NOW, ("w.ns.svc", "old.ns.svc")), "it does not cover w.ns.svc.cluster.local"),
        (NOW, replace(HELD, key=OTHER.key), "it is not of its key"),
        (NOW, replace(HELD, authorities=OTHER.authorities), "none of its authorities signed it"),
        (NOW, replace(HELD, certificate=b"-"), "it cannot be read"),
        (NOW, replace(HELD, key=b"-"), "it cannot be read"),
        (NOW, replace(HELD, authorities=b"-"), "it cannot be read"),
    ],
)
def test_when_another_certificate_is_due(now: dt.datetime, held: Certificate | None, why: str) -> None:
    found = due(now, held, NAMES)
    assert found.startswith(why)
    assert bool(found) == bool(why)


def test_each_renewal_trusts_the_one_before_and_no_more() -> None:
    held = HELD
    for days in (60, 120, 180):
        own = authorities(held)[0]
        held = issue(NOW + days * DAY, NAMES, held)
        assert authorities(held)[1:] == [own]
        assert due(NOW + days * DAY, held, NAMES) == ""
    assert len(authorities(issue(NOW + 2 * LIFE, NAMES, HELD))) == 1, "nobody accepts the old one"
    broken = Certificate(certificate=b"-", key=b"-", authorities=b"-")
    assert len(authorities(issue(NOW, NAMES, broken))) == 1


def authorities(held: Certificate) -> list[bytes]:
    end = b"-----END CERTIFICATE-----\n"
    return [one + end for one in bundle(held).split(end)[:-1]]


def test_a_secret_and_back() -> None:
    assert from_secret(HELD.secret()) == HELD
    assert from_secret({}) is None
    assert from_secret(HELD.secret() | {"tls.key": b""}) is None
    assert "BEGIN" not in repr(HELD), "a key in no log"


@pytest.mark.parametrize(
    ("shown", "trusted", "name", "works"),
    [
        (HELD, HELD, "w.ns.svc", True),
        (HELD, HELD, "w.ns.svc.cluster.local", True),
        (HELD, HELD, "other.ns.svc", False),
        (HELD, OTHER, "w.ns.svc", False),
        (HELD, issue(NOW, NAMES, HELD), "w.ns.svc", True),
        (issue(NOW, NAMES, HELD), HELD, "w.ns.svc", False),
    ],
)
def test_handshakes(tmp_path: Path, shown: Certificate, trusted: Certificate, name: str, works: bool) -> None:
    """By OpenSSL's rules, through memory."""
    for key, data in shown.secret().items():
        (tmp_path / key).write_bytes(data)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    client = ssl.create_default_context(cadata=bundle(trusted).decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(back, there, server_hostname=name),
        server.wrap_bio(there, back, server_side=True),
    )
    done = [False, False]
    try:
        for _ in range(10):
            for index, end in enumerate(ends):
                done[index] = done[index] or _shake(end.do_handshake)
    except ssl.SSLCertVerificationError:
        assert not works
    else:
        assert works
        assert all(done)


def _shake(handshake: Callable[[], None]) -> bool:
    try:
        handshake()
    except ssl.SSLWantReadError:
        return False
    return True


SCALARS = st.none() | st.booleans() | st.integers(-1, 9000) | st.text(max_size=3) | st.floats(allow_nan=False)
KEYS = st.sampled_from(
    ["metadata", "spec", "labels", "annotations", "containers", "initContainers", "name", "ports", "containerPort",
     "env", "value", "lifecycle", "preStop", "volumes", "resources", "limits", "memory", "coalmine.dev/inject",
     "coalmine.dev/model-port", "coalmine.dev/promote", "app", "template", "os", "nodeSelector"]
)  # fmt: skip
JSON = st.recursive(
    SCALARS | st.just("true") | st.just("8080"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)
CONTAINER = st.dictionaries(KEYS, JSON, max_size=5).map(lambda some: {"name": "m", **some})
POD = st.builds(
    lambda metadata, spec, containers: {
        "metadata": {**metadata, "labels": {"app": "a", "coalmine.dev/inject": "true"}},
        "spec": {**spec, "containers": containers},
    },
    st.dictionaries(KEYS, JSON, max_size=4),
    st.dictionaries(KEYS, JSON, max_size=4),
    st.lists(CONTAINER, max_size=2) | JSON,
)
SETTINGS = InjectionSettings(image="i")


@settings(max_examples=150, deadline=None)
@given(new=POD | JSON, old=JSON)
def test_whatever_comes_is_answered(new: Any, old: Any) -> None:
    for operation in ("CREATE", "UPDATE"):
        review = Review(uid="1", operation=operation, object=new, old_object=old)
        for answer in (
            pods.mutate(review, SETTINGS, drain_key="k"),
            deployments.validate(review, SETTINGS),
            deployments.stamp_orders(review),
        ):
            assert answer["response"]["uid"] == "1"


def test_what_is_hardly_meant_is_taken_with_a_warning() -> None:
    def warnings(window: str) -> list[str]:
        manifest = changed("spec.monitoring", {"drift": {"window": window}})
        answer = deployments.validate(Review(uid="1", operation="CREATE", object=manifest), SETTINGS)["response"]
        assert answer["allowed"], answer
        found: list[str] = answer.get("warnings", [])
        return found

    (line,) = warnings("30s")
    assert line.startswith("spec.monitoring.drift.window: 30s is short for rules that look once in 1m: ")
    assert warnings("1h") == []


def test_why_a_pod_got_no_sidecar_stands_on_it_besides_what_stood_there() -> None:
    pod = {
        "metadata": {"name": "iris", "labels": {"coalmine.dev/inject": "true"}, "annotations": {"mine": "kept"}},
        "spec": {"containers": [{"name": "a" * 600, "resources": 1}, *[{"name": "m", "ports": 1}] * 40]},
    }
    review = Review(uid="1", operation="CREATE", object=pod)
    answer = pods.mutate(review, SETTINGS, drain_key="k")["response"]
    made = patch.apply(pod, json.loads(base64.b64decode(answer["patch"])))
    reason = made["metadata"]["annotations"].pop("coalmine.dev/not-injected")
    assert made == pod
    assert reason.startswith('metadata.annotations["coalmine.dev/model-port"]: missing')
    assert len(reason) <= 512


def test_flags(capsys: pytest.CaptureFixture[str]) -> None:
    read, level = read_settings(["--sidecar-image=i", "--listen=[::1]:1"], {"COALMINE_SIDECAR_CPU_REQUEST": "5m"})
    assert level == 20
    assert (read.host, read.port, read.injection) == ("::1", 1, InjectionSettings(image="i", cpu_request="5m"))
    for flags in ([], ["--sidecar-image=i", "--listen=x"], ["--sidecar-image=i", "--log-level=loud"]):
        with pytest.raises(SystemExit) as end:
            read_settings(flags, {})
        assert end.value.code == 2
    assert "--sidecar-image: missing" in capsys.readouterr().err
