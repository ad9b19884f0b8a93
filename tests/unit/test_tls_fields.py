"""spec.model.tls and spec.tls, from the manifest to the sidecar's command line and the routing file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.manifests import changed, good, problem_lines

from coalmine_operator.api.decode import decode
from coalmine_operator.api.problems import Invalid
from coalmine_operator.api.spec import ModelDeployment
from coalmine_operator.engine.revisions import own_fallback_of, target_of
from coalmine_operator.platforms.local.launch import launch_of
from coalmine_operator.platforms.local.probe import probe_for
from coalmine_operator.render.injection import InjectionSettings
from coalmine_operator.render.labels import local_endpoint
from coalmine_operator.render.manifests import OwnerRef, inject_revision, problems
from coalmine_sidecar.settings import Settings, read_settings

MODEL = "spec.model.tls"
FILES = {"secretName": "fraud-tls", "caFile": "ca.crt", "certFile": "tls.crt", "keyFile": "tls.key"}
SETTINGS = InjectionSettings(image="i")


def revision(deployment: ModelDeployment) -> str:
    return target_of(deployment.metadata, deployment.spec, 0.0).name


def injected(deployment: ModelDeployment) -> tuple[dict[str, Any], Settings]:
    """The pod, and what its sidecar reads from its flags."""
    record = target_of(deployment.metadata, deployment.spec, 0.0)
    pod = inject_revision(record, OwnerRef(name="fraud", uid="u"), deployment.metadata, SETTINGS).pod
    return pod, read_settings(pod["spec"]["initContainers"][0]["args"], {})


def secrets(pod: dict[str, Any]) -> dict[str, str]:
    """Names of Secrets by where the sidecar finds their files."""
    named = {volume["name"]: volume.get("secret", {}) for volume in pod["spec"]["volumes"]}
    mounted = pod["spec"]["initContainers"][0]["volumeMounts"]
    assert all(mount["readOnly"] for mount in mounted)
    assert all(secret["optional"] for secret in named.values() if secret), "what is not there is told by the sidecar"
    return {m["mountPath"]: named[m["name"]]["secretName"] for m in mounted if "secretName" in named.get(m["name"], {})}


def test_none_changes_nothing():
    plain = decode(good())
    assert revision(decode(changed(MODEL, None))) == revision(plain)
    pod, settings = injected(plain)
    assert (settings.model_tls, settings.peer_tls, settings.ingress_tls) == (None, None, None)
    assert secrets(pod) == {"/etc/coalmine/routing": "fraud-routing"}


def test_the_model_by_a_secret():
    deployment = decode(changed(MODEL, FILES))
    assert revision(deployment) != revision(decode(good()))
    pod, settings = injected(deployment)
    assert secrets(pod)["/etc/coalmine/model-tls"] == "fraud-tls"
    tls = settings.model_tls
    assert tls is not None
    assert (tls.ca, tls.cert, tls.key) == tuple(
        Path("/etc/coalmine/model-tls", name) for name in ("ca.crt", "tls.crt", "tls.key")
    )
    assert (tls.server_name, tls.verify, tls.serves) == ("localhost", True, False)
    assert pod["spec"]["containers"][0]["readinessProbe"]["tcpSocket"] == {"port": 8080}, "kubelet has no certificate"


def test_the_model_without_a_client_certificate():
    pod, settings = injected(decode(changed(MODEL, {"insecureSkipVerify": True, "serverName": "m"})))
    assert settings.model_tls is not None
    assert (settings.model_tls.verify, settings.model_tls.server_name) == (False, "m")
    probe = pod["spec"]["containers"][0]["readinessProbe"]["httpGet"]
    assert probe == {"path": "/v2/health/ready", "port": 8080, "scheme": "HTTPS"}


def test_on_a_laptop_files_lie_beside_the_manifest(tmp_path: Path):
    deployment = decode(changed(MODEL, FILES | {"caFile": "/abs/ca.crt"}))
    record = target_of(deployment.metadata, deployment.spec, 0.0)
    assert launch_of(record, tmp_path, 1).tls == (
        "--model-tls=verify",
        "--model-ca=/abs/ca.crt",
        f"--model-cert={tmp_path}/tls.crt",
        f"--model-key={tmp_path}/tls.key",
        "--model-server-name=localhost",
    )
    probe = probe_for(record.model, None)
    assert (probe.scheme, probe.tcp) == ("https", True)


def test_sidecars_by_a_secret():
    deployment = decode(changed("spec.tls", {"secretName": "mesh"}))
    assert revision(deployment) != revision(decode(good()))
    pod, settings = injected(deployment)
    assert secrets(pod)["/etc/coalmine/tls"] == "mesh"
    tls = settings.peer_tls
    assert tls is not None
    assert (tls.ca, tls.cert, tls.key) == tuple(
        Path("/etc/coalmine/tls", name) for name in ("ca.crt", "tls.crt", "tls.key")
    )
    assert (tls.server_name, tls.verify, tls.connects, tls.serves) == ("fraud.default.svc", True, True, True)
    fallback = own_fallback_of(deployment.metadata, deployment.spec, 0.0)
    assert fallback is not None
    assert fallback.tls == deployment.spec.tls
    _, named = injected(decode(changed("spec.tls", {"secretName": "mesh", "serverName": "x.y"})))
    assert named.peer_tls is not None
    assert named.peer_tls.server_name == "x.y"


def test_endpoints_say_where_tls_is_spoken():
    assert local_endpoint("r", "n", 8009) == "r.n.svc.cluster.local:8009"
    assert local_endpoint("r", "n", 8009, secure=True) == "tls://r.n.svc.cluster.local:8009"


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (MODEL, {"certFile": "a"}, f"{MODEL}.keyFile: missing: a certificate and its key belong together"),
        (MODEL, {"keyFile": "a"}, f"{MODEL}.certFile: missing: a certificate and its key belong together"),
        (
            MODEL,
            {"caFile": "a", "insecureSkipVerify": True},
            f"{MODEL}.insecureSkipVerify: true asks no authority: leave caFile out, or this",
        ),
        (
            MODEL,
            {"secretName": "A_b"},
            f'{MODEL}.secretName: "A_b" is no name of a Secret: write lower-case letters, digits, - and .',
        ),
        ("spec.tls", {}, "spec.tls.secretName: missing"),
        ("spec.tls", {"secretName": ""}, "spec.tls.secretName: is empty"),
    ],
)
def test_a_mistake_is_named(path: str, value: dict[str, Any], line: str):
    assert problem_lines(changed(path, value)) == [line]


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"caFile": "ca.crt"}, 'caFile: "ca.crt" is in no Secret: name the one that holds it in secretName'),
        ({"caFile": "a/ca.crt", "secretName": "s"}, 'caFile: "a/ca.crt" is no key of a Secret: a key has no /'),
    ],
)
def test_a_file_that_no_pod_finds(value: dict[str, Any], line: str):
    deployment = decode(changed(MODEL, value))
    assert [str(one) for one in problems(deployment.metadata, deployment.spec, SETTINGS)] == [f"{MODEL}.{line}"]
    (path,) = (value["caFile"],)
    absolute = decode(changed(MODEL, {"caFile": f"/{path}"}))
    assert problems(absolute.metadata, absolute.spec, SETTINGS) == ()


def test_a_volume_of_ours_is_taken():
    template = good()["spec"]["template"]
    template["spec"]["volumes"] = [{"name": "coalmine-tls", "emptyDir": {}}]
    deployment = decode(changed("spec.template", template))
    with pytest.raises(Invalid, match="is the sidecar's: take another name"):
        injected(deployment)
