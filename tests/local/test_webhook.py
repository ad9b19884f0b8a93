"""The webhooks as a process of their own, asked over TLS as an API server asks."""

import datetime as dt
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.local.webhook import IMAGE, Webhook, patched, review, running, write
from tests.manifests import changed, good, problem_lines

from coalmine_operator.render.orders import ORDERED_BY
from coalmine_operator.webhook.authority import Certificate, issue
from coalmine_operator.webhook.tls import PERIOD

NAMES = ("coalmine-webhook.coalmine.svc", "coalmine-webhook.coalmine.svc.cluster.local")
PROMOTE, PAUSE = "coalmine.dev/promote", "coalmine.dev/pause"


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return issue(now(), NAMES)


@pytest.fixture(scope="module")
def webhook(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Webhook]:
    folder = tmp_path_factory.mktemp("tls")
    write(folder, certificate)
    with running(folder, certificate) as started:
        started.until_trusted(certificate)
        yield started


def pod(**labels: str) -> dict[str, Any]:
    server = {"name": "server", "image": "registry/iris:3", "ports": [{"containerPort": 9000}]}
    return {
        "metadata": {"generateName": "iris-", "labels": {"app": "iris", **labels}},
        "spec": {"containers": [server]},
    }


def asking() -> dict[str, Any]:
    return pod(**{"coalmine.dev/inject": "true"})


def test_a_pod_that_asks_gets_a_sidecar(webhook: Webhook) -> None:
    response = webhook.ask("/mutate/pods", new=asking())
    made = patched(asking(), response)
    (sidecar,) = made["spec"]["initContainers"]
    assert sidecar["image"] == IMAGE
    assert json.loads(made["metadata"]["annotations"]["coalmine.dev/routing"])["namespace"] == "ml"
    again = webhook.ask("/mutate/pods", new=made)
    assert patched(made, again) == made
    other = patched(asking(), webhook.ask("/mutate/pods", new=asking()))
    assert other["spec"]["initContainers"][0]["env"] != sidecar["env"], "a key for each pod"


@pytest.mark.parametrize("operation", ["CREATE", "UPDATE", "DELETE"])
@pytest.mark.parametrize("new", [pod(), {}, None, "pod", [1], {"metadata": 1, "spec": None}])
def test_pods_of_others_pass(webhook: Webhook, operation: str, new: Any) -> None:
    assert webhook.ask("/mutate/pods", operation=operation, new=new) == {"uid": "1-2-3", "allowed": True}


def test_a_pod_that_can_have_none_passes_with_a_warning(webhook: Webhook) -> None:
    impossible = asking()
    impossible["spec"]["hostNetwork"] = True
    response = webhook.ask("/mutate/pods", new=impossible)
    made = patched(impossible, response)
    reason = made["metadata"].pop("annotations")["coalmine.dev/not-injected"]
    assert made == impossible
    (warning,) = response["warnings"]
    assert warning.startswith("coalmine: no sidecar: spec.hostNetwork: true is not possible")
    assert reason.startswith("spec.hostNetwork: true is not possible"), "for those who see no warning"


@pytest.mark.parametrize(
    "broken",
    [
        {"spec": {}},
        {"spec": {"containers": [None, 1, "x"]}},
        {"spec": {"containers": [{"name": "m", "ports": [{"containerPort": "http"}]}]}},
        {"spec": {"containers": [{"name": {"a": 1}, "ports": [{"containerPort": 1}], "env": [[]]}]}},
        {"metadata": {"labels": {"coalmine.dev/inject": "true"}, "annotations": []}},
        {"metadata": {"labels": {"coalmine.dev/inject": "true", "app": 7}}},
    ],
)
def test_an_odd_pod_passes_with_a_warning(webhook: Webhook, broken: Any) -> None:
    odd = asking() | broken
    response = webhook.ask("/mutate/pods", new=odd)
    made = patched(odd, response)
    if made != odd:
        reason = made["metadata"].pop("annotations")["coalmine.dev/not-injected"]
        assert "\n" not in reason
        assert len(reason) <= 512
    assert made == odd
    assert response["warnings"]
    assert all(len(line) <= 256 and "\n" not in line for line in response["warnings"])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no AdmissionReview"),
        (b"{", "no AdmissionReview"),
        (b"[]", "no AdmissionReview"),
        (b"\xff", "no AdmissionReview"),
        (b"[" * 100_000, "no AdmissionReview"),
        (b'{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {}}', "v1beta1"),
        (review(operation="PATCH"), "PATCH"),
        (review().replace(b'"1-2-3"', b'""'), "uid"),
    ],
)
@pytest.mark.parametrize("path", ["/mutate/pods", "/validate/modeldeployments", "/mutate/modeldeployments"])
def test_what_is_no_review_is_said_to_be_none(webhook: Webhook, path: str, body: bytes, said: str) -> None:
    status, text = webhook.send(path, body)
    assert status == 400
    assert said in text
    assert len(text.splitlines()) == 1


def test_bodies_are_bounded(webhook: Webhook) -> None:
    status, _ = webhook.send("/mutate/pods", b" " * (9 << 20))
    assert status == 413


def test_a_good_manifest_passes(webhook: Webhook) -> None:
    response = webhook.ask("/validate/modeldeployments", new=good() | {"status": {"phase": "Healthy"}})
    assert response == {"uid": "1-2-3", "allowed": True}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.strategy.canary.steps[0].setWeight", 140),
        ("spec.analysis.metrics[0].preset", None),
        ("spec.replicas", "two"),
        ("spec.unheard", {"of": 1}),
        ("spec", None),
        ("metadata", []),
    ],
)
def test_a_wrong_manifest_is_refused_as_lint_does(webhook: Webhook, path: str, value: Any) -> None:
    raw = changed(path, value)
    response = webhook.ask("/validate/modeldeployments", new=raw)
    assert not response["allowed"]
    assert response["status"]["message"].splitlines() == problem_lines(raw)


@pytest.mark.parametrize("new", [None, 1, "text", []])
def test_no_manifest_is_refused(webhook: Webhook, new: Any) -> None:
    response = webhook.ask("/validate/modeldeployments", new=new)
    assert not response["allowed"]
    assert len(response["status"]["message"].splitlines()) == 1


def test_a_template_that_takes_no_sidecar_is_refused(webhook: Webhook) -> None:
    raw = changed("spec.template.spec.hostNetwork", value=True)
    response = webhook.ask("/validate/modeldeployments", new=raw)
    assert response["status"]["message"].startswith("spec.template.spec.hostNetwork: true is not possible")


def test_rules_hold_for_changes_of_the_spec_alone(webhook: Webhook) -> None:
    """An old manifest that a new rule refuses can still be labelled, ordered about and deleted."""
    wrong = changed("spec.replicas", -1)
    labelled = wrong | {"metadata": wrong["metadata"] | {"labels": {"team": "fraud"}}}
    path = "/validate/modeldeployments"
    assert (webhook.ask(path, operation="UPDATE", new=labelled, old=wrong))["allowed"]
    assert not (webhook.ask(path, operation="UPDATE", new=wrong, old=good()))["allowed"]
    leaving = wrong | {"metadata": wrong["metadata"] | {"deletionTimestamp": "2026-11-21T10:00:00Z"}}
    assert (webhook.ask(path, operation="UPDATE", new=leaving, old=good()))["allowed"]
    assert (webhook.ask(path, operation="DELETE", old=wrong))["allowed"]


def ordered(**annotations: str) -> dict[str, Any]:
    raw = good()
    raw["metadata"]["annotations"] = annotations
    return raw


def test_orders_carry_who_gave_them(webhook: Webhook) -> None:
    path = "/mutate/modeldeployments"

    def update(user: str, old: dict[str, Any], **annotations: str) -> dict[str, Any]:
        new = ordered(**annotations)
        return patched(new, webhook.ask(path, operation="UPDATE", user=user, old=old, new=new))

    def authors(raw: dict[str, Any]) -> Any:
        return json.loads(raw["metadata"]["annotations"].get(ORDERED_BY, "null"))

    first = update("alice", good(), **{PROMOTE: "", "note": "x"})
    assert authors(first) == {"promote": "alice"}
    assert first["metadata"]["annotations"]["note"] == "x"
    kept = {PROMOTE: "", ORDERED_BY: first["metadata"]["annotations"][ORDERED_BY]}
    second = update("bob", first, **kept, **{PAUSE: "true"})
    assert authors(second) == {"promote": "alice", "pause": "bob"}
    forged = update("mallory", first, **{PROMOTE: "", ORDERED_BY: '{"promote": "root"}'})
    assert authors(forged) == {"promote": "alice"}
    again = update("carol", first, **{PROMOTE: "fraud-2"})
    assert authors(again) == {"promote": "carol"}
    done = update("operator", first, **{ORDERED_BY: kept[ORDERED_BY]})
    assert ORDERED_BY not in done["metadata"]["annotations"]
    nothing = webhook.ask(path, operation="UPDATE", user="x", old=good(), new=good())
    assert nothing == {"uid": "1-2-3", "allowed": True}


def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path, certificate: Certificate) -> None:
    write(tmp_path, certificate)
    with running(tmp_path, certificate) as webhook:
        webhook.until_trusted(certificate)
        renewed, strange = issue(now(), NAMES, certificate), issue(now(), NAMES)
        assert webhook.trusted(renewed), "who knows the next authority still trusts the certificate in use"
        (tmp_path / "..data/tls.crt").write_bytes(b"half a certificate")
        time.sleep(2 * PERIOD)
        assert webhook.trusted(certificate), "the last good one"
        write(tmp_path, renewed)
        webhook.until_trusted(certificate, trusted=False)
        assert webhook.trusted(renewed)
        assert not webhook.trusted(strange)
        status, said = webhook.ended()
        assert status == 0
        assert said.count("no certificate and its key") == 1


def test_it_waits_for_its_certificate(tmp_path: Path, certificate: Certificate) -> None:
    with running(tmp_path, certificate) as webhook:
        webhook.until_up()
        time.sleep(1)
        assert not webhook.trusted(certificate)
        write(tmp_path, certificate)
        webhook.until_trusted(certificate)
        status, said = webhook.ended()
        assert status == 0
        assert said.count("waiting for it") == 1


def test_a_port_that_is_taken(tmp_path: Path, webhook: Webhook) -> None:
    command = [sys.executable, "-m", "coalmine_operator", "webhook", f"--listen=127.0.0.1:{webhook.port}"]
    command += [f"--certificate-folder={tmp_path}", "--sidecar-image=i", "--log-level=error"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"coalmine-webhook: --listen 127.0.0.1:{webhook.port}: ")
    assert "Traceback" not in done.stderr
