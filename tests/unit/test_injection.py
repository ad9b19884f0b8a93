"""Pods before and after, as files: `golden/injection/in` by hand, `out` by UPDATE_GOLDENS=1 and a look at the diff."""

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from coalmine_operator.api.problems import Invalid
from coalmine_operator.render import patch
from coalmine_operator.render.adoption import adopt, asks
from coalmine_operator.render.injection import ADMIN_PORT, SIDECAR, Identity, Injected, InjectionSettings, inject
from coalmine_operator.render.labels import ROUTING
from coalmine_sidecar.contract import decode_routing
from coalmine_sidecar.settings import read_settings

GOLDEN = Path(__file__).parent / "golden/injection"
SHAPES = sorted(path.stem for path in (GOLDEN / "in").glob("*.yaml"))
SETTINGS = InjectionSettings(image="coalmine-sidecar:dev")
IDENTITY = Identity(
    revision="fraud-0123456789",
    port=8080,
    drain_key="not-for-strangers",
    secret="fraud-routing",
    readiness={"tcpSocket": {"port": 8080}},
)


def before(shape: str) -> dict[str, Any]:
    return yaml.safe_load((GOLDEN / "in" / f"{shape}.yaml").read_text())


def run(pod: dict[str, Any]) -> Injected:
    if asks(pod):
        return adopt(pod, SETTINGS, namespace="ml", drain_key="not-for-strangers")
    return inject(pod, SETTINGS, identity=IDENTITY)


def outcome(pod: dict[str, Any]) -> dict[str, Any]:
    try:
        injected = run(pod)
    except Invalid as error:
        return {"refused": [str(problem) for problem in error.problems]}
    return {"notes": list(injected.notes), "pod": injected.pod} if injected.notes else {"pod": injected.pod}


def injected() -> list[tuple[str, dict[str, Any]]]:
    return [(shape, found["pod"]) for shape in SHAPES if "pod" in (found := outcome(before(shape)))]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_pod_before_and_after(shape: str) -> None:
    path = GOLDEN / "out" / f"{shape}.yaml"
    found = outcome(before(shape))
    if os.environ.get("UPDATE_GOLDENS"):
        path.write_text(yaml.safe_dump(found, sort_keys=False, width=120, allow_unicode=True))
    assert found == yaml.safe_load(path.read_text()), "UPDATE_GOLDENS=1 writes it anew"


def test_every_golden_file_has_its_pod() -> None:
    assert sorted(path.stem for path in (GOLDEN / "out").glob("*.yaml")) == SHAPES
    assert len(SHAPES) >= 15


@pytest.mark.parametrize("shape", SHAPES)
def test_the_pod_that_was_given_stays_as_it_was(shape: str) -> None:
    pod, again = before(shape), before(shape)
    outcome(pod)
    assert pod == again


@pytest.mark.parametrize(("shape", "pod"), injected())
def test_once_is_enough(shape: str, pod: dict[str, Any]) -> None:
    assert run(copy.deepcopy(pod)).pod == pod


@pytest.mark.parametrize(("shape", "pod"), injected())
def test_what_was_there_is_still_there(shape: str, pod: dict[str, Any]) -> None:
    """Only additions: `null` is no value."""
    assert lost(before(shape), pod) == []


def lost(old: Any, new: Any, path: str = "") -> list[str]:
    if old is None:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        return [line for key, value in old.items() for line in lost(value, new.get(key), f"{path}.{key}")]
    if isinstance(old, list) and isinstance(new, list):
        named = {entry["name"]: entry for entry in new if isinstance(entry, dict) and "name" in entry}
        pairs = [(one, named.get(one["name"]) if isinstance(one, dict) and "name" in one else one) for one in old]
        return [line for one, other in pairs for line in lost(one, other, f"{path}[]")]
    return [] if old == new else [path]


@pytest.mark.parametrize(("shape", "pod"), injected())
def test_the_sidecar_is_restricted_whatever_the_pod_is(shape: str, pod: dict[str, Any]) -> None:
    if shape == "already-injected":
        pytest.skip("that one is not ours")
    sidecar = pod["spec"]["initContainers"][0]
    assert sidecar["name"] == SIDECAR
    assert container_violations({}, sidecar) == []
    assert sidecar["restartPolicy"] == "Always"
    assert "cpu" not in sidecar["resources"]["limits"]
    old = before(shape)
    if not violations(old):
        assert violations(pod) == []


def test_some_shapes_are_restricted_from_the_start() -> None:
    assert {shape for shape, _ in injected() if not violations(before(shape))} >= {"restricted", "adopted-restricted"}


@pytest.mark.parametrize(("shape", "pod"), injected())
def test_no_token_in_the_sidecar(shape: str, pod: dict[str, Any]) -> None:
    """Kubernetes' admission mounts one wherever the pod wants it and nothing is mounted in its place."""
    if shape == "already-injected":
        pytest.skip("that one is not ours")
    mounts = {one["mountPath"]: one["name"] for one in pod["spec"]["initContainers"][0]["volumeMounts"]}
    volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
    assert mounts.keys() - {"/var/run/secrets/kubernetes.io/serviceaccount"} == {"/etc/coalmine/routing"}
    if pod["spec"].get("automountServiceAccountToken") is not False:
        assert "emptyDir" in volumes[mounts["/var/run/secrets/kubernetes.io/serviceaccount"]]


@pytest.mark.parametrize(("shape", "pod"), injected())
def test_the_sidecar_understands_its_arguments(shape: str, pod: dict[str, Any]) -> None:
    if shape == "already-injected":
        pytest.skip("that one is not ours")
    sidecar = pod["spec"]["initContainers"][0]
    arguments = [one.replace("$(POD_NAME)", "fraud-0123456789-abcde") for one in sidecar["args"]]
    environ = {one["name"]: one["value"] for one in sidecar["env"] if "value" in one}
    read = read_settings(arguments, environ)
    assert read.pod == "fraud-0123456789-abcde"
    assert (read.ingress.port, read.local.port, read.admin.port) == (8008, 8009, 8010)
    assert read.drain_key
    hooks = [one.get("lifecycle", {}).get("preStop", {}).get("httpGet") for one in pod["spec"]["containers"]]
    for hook in filter(None, hooks):
        assert hook["port"] == ADMIN_PORT
        assert {one["name"]: one["value"] for one in hook["httpHeaders"]} == {"Coalmine-Drain-Key": read.drain_key}
    grace = before(shape)["spec"].get("terminationGracePeriodSeconds", 30)
    assert 1 <= read.drain_timeout < grace


@pytest.mark.parametrize(("shape", "pod"), [(shape, pod) for shape, pod in injected() if shape.startswith("adopted")])
def test_the_routing_of_an_adopted_pod_is_one_that_its_sidecar_takes(shape: str, pod: dict[str, Any]) -> None:
    routing = decode_routing(pod["metadata"]["annotations"][ROUTING].encode())
    (own,) = routing.revisions
    assert f"--revision={own.name}" in pod["spec"]["initContainers"][0]["args"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.text("a/~b", max_size=2),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("a/~b0", max_size=2), inner, max_size=4),
    max_leaves=12,
)
DOCUMENT = st.dictionaries(st.text("a/~b0", max_size=2), JSON, max_size=4)


@settings(max_examples=300, deadline=None)
@given(DOCUMENT, DOCUMENT)
def test_a_patch_turns_one_document_into_the_other(old: dict[str, Any], new: dict[str, Any]) -> None:
    made = patch.apply(old, patch.diff(old, new))
    assert repr(sort(made)) == repr(sort(new)), "1 is not true"
    assert patch.diff(new, new) == ()


def sort(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: sort(value[key]) for key in sorted(value)}
    return [sort(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/no"},
        {"op": "replace", "path": "/no", "value": 1},
        {"op": "add", "path": "/list/9", "value": 1},
        {"op": "add", "path": "/list/-", "value": 1},
        {"op": "add", "path": "/text/x", "value": 1},
        {"op": "move", "path": "/list"},
        {"op": "replace", "path": "", "value": 1},
        {"op": "remove", "path": ""},
        {"op": "add", "path": "/x"},
        {"path": "/list"},
        {"op": "add", "path": 1},
        {},
    ],
)
def test_a_patch_that_does_not_fit_is_refused(operation: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="patch"):
        patch.apply({"list": [1], "text": "t"}, [operation])


def violations(pod: dict[str, Any]) -> list[str]:
    """Of the restricted profile: https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    spec = pod["spec"]
    found = [field for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    found += [f"volume {volume['name']}" for volume in spec.get("volumes") or () if not volume.keys() & allowed]
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        found += container_violations(spec.get("securityContext") or {}, container)
    return found


def container_violations(of_pod: dict[str, Any], container: dict[str, Any]) -> list[str]:
    own = container.get("securityContext") or {}
    rules = {
        "privileged": not own.get("privileged"),
        "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
        "runAsNonRoot": own.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is True,
        "runAsUser": own.get("runAsUser", of_pod.get("runAsUser")) != 0,
        "seccompProfile": (own.get("seccompProfile") or of_pod.get("seccompProfile") or {}).get("type")
        in ("RuntimeDefault", "Localhost"),
        "drop": "ALL" in (own.get("capabilities") or {}).get("drop", ()),
        "add": set((own.get("capabilities") or {}).get("add", ())) <= {"NET_BIND_SERVICE"},
        "hostPort": not any(port.get("hostPort") for port in container.get("ports") or ()),
    }
    return [f"{container['name']}: {name}" for name, kept in rules.items() if not kept]
