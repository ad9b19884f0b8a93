"""The chart on a real cluster: upgraded under load, with the rights it gives itself, taken away.

The tests share one installation, in this order: it begins with the version before, and the first test upgrades it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart.rights import granted
from tests.cluster import previous
from tests.cluster.audit import calls
from tests.cluster.certificates import age, kept_certificate, shown_certificates
from tests.cluster.faults import guarded, victim
from tests.cluster.figures import Figure
from tests.cluster.installed import RELEASE, Install, installed
from tests.cluster.lab.cluster import NodeCluster
from tests.cluster.lab.run import LabError
from tests.cluster.operating import Watched, manifest
from tests.cluster.pods import pod
from tests.cluster.previous import load_previous_images, previous_chart
from tests.cluster.traffic import traffic

from coalmine_operator.render.injection import ADMIN_PORT, SIDECAR
from coalmine_operator.render.labels import INJECT
from coalmine_operator.render.orders import ORDERED_BY

pytestmark = pytest.mark.timeout(300, func_only=True)

RETRY = "coalmine.dev/retry"
#: The operator's own port, and that of the API server's Service.
WEB, API = 8080, 443
#: What a version had is taken away soon after it.
FORGETFUL = {"revisionHistoryLimit": 1}


@pytest.fixture(scope="module")
def install(
    node: NodeCluster, operator_image: str, sidecar_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Install]:
    load_previous_images(node, operator_image, sidecar_image)
    chart = previous_chart(tmp_path_factory.mktemp("chart"))
    with installed(node, previous.OPERATOR, previous.SIDECAR, chart) as release:
        release.use(operator_image, sidecar_image)
        yield release


@pytest.fixture
def version_before(install: Install, again: bool) -> None:
    """The first revision of the release, which a test that is run again may have left."""
    if again:
        install.cluster.helm(
            "rollback", RELEASE, "1", "--namespace", install.own, "--wait", "--timeout=150s", timeout=170
        )


@pytest.fixture
def fraud(install: Install, model_image: str) -> Watched:
    watched = Watched(install.cluster, install.models)
    watched.apply(manifest("fraud", model_image, **FORGETFUL))
    watched.healthy("v1")
    install.cluster.wait(lambda: len(running(watched)) == 1, "what was before to go", 60)
    return watched


def pods_of(watched: Watched) -> list[dict[str, Any]]:
    """Those that end are told too."""
    chosen = f"labelSelector=coalmine.dev%2Fmodeldeployment%3D{watched.name}"
    found: list[dict[str, Any]] = watched.cluster.read(f"/api/v1/namespaces/{watched.namespace}/pods?{chosen}")["items"]
    return found


def running(watched: Watched) -> dict[str, list[str]]:
    """By pod: which containers run in it. One that was restarted is another one."""
    return {pod["metadata"]["uid"]: [one["containerID"] for one in containers(pod)] for pod in pods_of(watched)}


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for kind in ("initContainerStatuses", "containerStatuses") for one in pod["status"].get(kind, ())]


def sidecars(watched: Watched) -> set[str]:
    """Images of the pods' sidecars."""
    return {pod["spec"]["initContainers"][0]["image"] for pod in pods_of(watched)}


@pytest.fixture
def steady(install: Install, version_before: None, model_image: str) -> Iterator[Watched]:
    """A model deployment as people run it."""
    watched = Watched(install.cluster, install.models, "steady")
    watched.apply(guarded(model_image, name="steady", replicas=2))
    watched.healthy("v1")
    yield watched
    watched.kubectl("delete", "md/steady")


def test_an_upgrade_under_load_restarts_no_model_and_a_refresh_brings_the_new_sidecar(
    install: Install, steady: Watched, sidecar_image: str, tmp_path: Path, figure: Figure
) -> None:
    def held() -> tuple[Any, ...]:
        secrets = (install.secret(name) for name in ("alerts", "webhook-tls"))
        return running(steady), sidecars(steady), install.bundles(), *secrets

    install.cluster.wait(lambda: install.cluster.kubectl("explain", "md.spec"), "the definition to be known", every=0.5)
    with pytest.raises(LabError, match="does not exist"):
        install.cluster.kubectl("explain", f"md.spec.{previous.UNKNOWN}")
    before = held()
    assert before[1] == {previous.SIDECAR}
    with traffic(install.cluster, f"http://steady.{install.models}", tmp_path) as seen:
        install.helm("upgrade")
        install.cluster.wait(lambda: "serving" in install.log("operator"), "the new operator serves", 60)
        generation = steady.read()["metadata"]["generation"]
        steady.kubectl("patch", "md/steady", "--type=merge", "--patch", '{"spec": {"progressDeadlineSeconds": 601}}')
        steady.until("it looks after the model", lambda status: status["observedGeneration"] > generation)
        assert held() == before
        install.cluster.kubectl("explain", f"md.spec.{previous.UNKNOWN}")

        steady.annotate("refresh")
        install.cluster.wait(lambda: sidecars(steady) == {sidecar_image}, "the new sidecar alone", 150, every=0.5)
        install.cluster.wait(lambda: "coalmine.dev/refresh" not in steady.annotations(), "the order taken away")
    figure(f"upgrade and refresh: {seen.summary()}; {seen.rate():.0f}/s")
    assert seen.errors() == []


def test_a_rollout_a_version_that_does_not_start_and_an_order(
    install: Install, fraud: Watched, model_image: str
) -> None:
    """With the rights of its own, so far as a story needs them; which these are is asked in the end."""
    fraud.apply(manifest("fraud", model_image, "v2", replicas=2, **FORGETFUL))
    fraud.healthy("v2")
    # Its baseline is asked for, though it is not there.
    monitoring = {"baseline": {"configMap": "fraud-broken"}}
    broken = manifest("fraud", model_image, "broken", progressDeadlineSeconds=20, monitoring=monitoring, **FORGETFUL)
    broken["spec"]["template"]["spec"]["containers"][0]["command"] = ["python3", "-c", "raise SystemExit('no weights')"]
    fraud.apply(broken)
    # With the last lines of its log.
    fraud.until("it is rolled back", lambda status: "no weights" in status.get("lastRollback", {}).get("message", ""))
    fraud.annotate("retry")
    fraud.until("the order is obeyed", lambda status: status["phase"] == "Progressing")
    install.cluster.wait(lambda: RETRY not in fraud.annotations(), "it is taken away")
    assert "RolledBack" in fraud.reasons()
    # One more, and there is a revision too many.
    fraud.apply(manifest("fraud", model_image, "v3", **FORGETFUL))
    fraud.until("another canary", lambda status: status.get("canary", {}).get("version") == "v3")


def test_the_network_policy_lets_the_operator_do_what_it_does(
    node: NodeCluster, install: Install, fraud: Watched
) -> None:
    """The node's network enforces no policy: what it would allow is compared with the operator's connections."""
    egress = install.get("networkpolicy", f"{RELEASE}-operator")["spec"]["egress"]
    allowed = {port["port"] for rule in egress for port in rule["ports"] if port["protocol"] == "TCP"}
    selector = "--selector=app.kubernetes.io/component=operator"
    (pod,) = node.get("pods", selector, "--namespace", install.own)["items"]
    process = victim(node, pod, "operator")
    seen: set[int] = set()

    def connections() -> bool:
        for line in Path(f"/proc/{process.pid}/net/tcp").read_text().splitlines()[1:]:
            here, there = (int(socket.partition(":")[2], 16) for socket in line.split()[1:3])
            if there and here != WEB:
                seen.add(there)
        return {API, ADMIN_PORT} <= seen

    node.wait(connections, "the operator to ask the API server and the sidecars", 60)
    assert seen <= allowed


def injected(install: Install, image: str, **labels: str) -> list[str]:
    """Names of the init containers that admission gives a pod."""
    asking = pod("asking", image, labels=labels, ports=[{"containerPort": 8080}])
    words = ("apply", "--dry-run=server", "--namespace", install.models, "--output=json", "--filename=-")
    made = json.loads(install.cluster.kubectl(*words, input=json.dumps(asking)))
    return [one["name"] for one in made["spec"].get("initContainers", ())]


def test_pods_that_ask_get_a_sidecar(install: Install, model_image: str) -> None:
    assert injected(install, model_image, **{INJECT: "true"}) == [SIDECAR]
    assert injected(install, model_image) == []


def test_what_the_definition_lets_pass_the_webhook_refuses(install: Install, model_image: str) -> None:
    bad = manifest("bad", model_image)
    bad["spec"]["template"]["spec"]["hostNetwork"] = True
    words = ("apply", "--dry-run=server", "--namespace", install.models, "--filename=-")
    with pytest.raises(LabError, match="hostNetwork: true is not possible with a sidecar"):
        install.cluster.kubectl(*words, input=json.dumps(bad))


def ordering(fraud: Watched) -> dict[str, str]:
    """Annotations of a model deployment that somebody would like to pause."""
    words = ("annotate", "md/fraud", "coalmine.dev/pause=", "--dry-run=server", "--output=json")
    annotations: dict[str, str] = json.loads(fraud.kubectl(*words))["metadata"]["annotations"]
    return annotations


def test_who_gave_an_order_is_recorded(install: Install, fraud: Watched) -> None:
    assert json.loads(ordering(fraud)[ORDERED_BY])["pause"]


def test_alertmanager_gets_in_with_the_token_alone(install: Install) -> None:
    body = ("--request", "POST", "--data", '{"version": "4", "alerts": []}')
    assert install.ask("/alerts", *body).endswith("\n401")
    allowed = ("--header", f"Authorization: Bearer {install.alerts_token()}")
    assert install.ask("/alerts", *body, *allowed).endswith("\n200")


def test_the_operators_metrics_are_there(install: Install, fraud: Watched) -> None:
    said = install.ask("/metrics")
    assert f'coalmine_deployment_available{{name="fraud",namespace="{install.models}"}} 1.0' in said


def test_a_lost_certificate_is_made_anew(install: Install, model_image: str) -> None:
    before = install.bundles()
    # An operator that begins looks at once; it would be a minute otherwise.
    install.scale("operator", 0)
    patch = json.dumps([{"op": "remove", "path": "/data"}])
    words = ("--namespace", install.own, "--type=json", "--patch", patch)
    install.cluster.kubectl("patch", "secret", f"{RELEASE}-webhook-tls", *words)
    install.scale("operator", 1)
    install.cluster.wait(lambda: install.bundles() != before, "another certificate", timeout=90)
    # Whoever asks for a sidecar is let through without one where the webhook is not trusted.
    asking = {INJECT: "true"}
    install.cluster.wait(
        lambda: injected(install, model_image, **asking), "webhooks that the API server trusts", timeout=90
    )


def test_pods_get_their_sidecar_while_the_certificate_is_renewed(install: Install, model_image: str) -> None:
    # Away, or it might renew the old one before it is shown.
    install.scale("operator", 0)
    age(install)
    old = kept_certificate(install)
    install.cluster.wait(lambda: shown_certificates(install) == {old}, "the old one everywhere", 120)
    install.scale("operator", 1)
    deadline = time.monotonic() + 120
    while shown_certificates(install) != {kept_certificate(install)} or kept_certificate(install) == old:
        assert injected(install, model_image, **{INJECT: "true"}) == [SIDECAR]
        assert time.monotonic() < deadline, "the new certificate is not in use"
    assert injected(install, model_image, **{INJECT: "true"}) == [SIDECAR]


def test_while_the_webhook_is_down_nobody_is_held_up(install: Install, fraud: Watched, model_image: str) -> None:
    """What becomes of whom is argued in the chart's templates/webhook/configurations.yaml."""
    install.scale("webhook", 0)
    try:
        assert injected(install, model_image) == []
        assert injected(install, model_image, **{INJECT: "true"}) == []
        assert ORDERED_BY not in ordering(fraud), "an order goes through, though nobody knows whose it is"
        bad = manifest("bad", model_image)
        bad["spec"]["template"]["spec"]["hostNetwork"] = True
        fraud.apply(bad)
        other = Watched(install.cluster, install.models, "bad")
        status = other.until("what the operator says of it", lambda status: status.get("phase") == "InvalidSpec")
        assert "spec.template.spec.hostNetwork" in status["message"]
        other.kubectl("delete", "md/bad")
    finally:
        install.scale("webhook", 2)
    install.cluster.wait(
        lambda: injected(install, model_image, **{INJECT: "true"}), "the webhook to be asked again", timeout=60
    )


def test_every_right_was_used_and_none_was_missing(node: NodeCluster, install: Install) -> None:
    """By all that the tests above did."""
    objects = [
        one for one in yaml.safe_load_all(node.helm("get", "manifest", RELEASE, "--namespace", install.own)) if one
    ]
    made = calls(node, install.own, f"{RELEASE}-operator")
    assert [call for call in made if call.code == 403] == []
    given = granted(objects, f"{RELEASE}-operator")
    assert given.keys() == {install.models, install.own, ""}
    unused = {
        (namespace, *right)
        for namespace, rules in given.items()
        for right in rules
        if not any(call.needed(right, namespace) for call in made)
    }
    assert unused == set(), "these can be taken out of the chart, or these tests do not use them yet"
    assert not calls(node, install.own, f"{RELEASE}-webhook")


@pytest.fixture
def standing(install: Install, again: bool) -> None:
    """A test that is run again may have taken the release away."""
    if again:
        install.cluster.helm("uninstall", RELEASE, "--namespace", install.own, "--ignore-not-found", "--wait")
        install.helm("install")


def test_when_it_is_gone_models_stay(standing: None, install: Install, fraud: Watched) -> None:
    before = running(fraud)
    install.cluster.helm("uninstall", RELEASE, "--namespace", install.own, "--wait")
    assert running(fraud) == before
    assert fraud.read()["metadata"]["name"] == "fraud"
    left = "deployments,services,secrets,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets"
    items = install.cluster.get(left, "--namespace", install.own)["items"]
    assert [one["metadata"]["name"] for one in items if one["metadata"]["name"] != "default"] == []
    selector = f"--selector=app.kubernetes.io/instance={RELEASE}"
    kinds = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations"
    assert install.cluster.get(kinds, selector)["items"] == []
    # Deleting needs no operator either.
    fraud.kubectl("delete", "md/fraud", "--timeout=60s")
    install.cluster.wait(lambda: not running(fraud), "the models' pods go", timeout=60)
