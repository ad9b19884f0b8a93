"""The chart on a real cluster: installed with the rights it gives itself, upgraded under a model, taken away."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.cluster.installed import RELEASE, Install, installed
from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.run import LabError
from tests.cluster.operating import Watched, manifest
from tests.cluster.pods import pod

from coalmine_operator.render.injection import SIDECAR
from coalmine_operator.render.labels import INJECT
from coalmine_operator.render.orders import ORDERED_BY

pytestmark = pytest.mark.timeout(300, func_only=True)

RETRY = "coalmine.dev/retry"


@pytest.fixture(scope="module")
def install(cluster: Cluster, operator_image: str, sidecar_image: str) -> Iterator[Install]:
    with installed(cluster, operator_image, sidecar_image) as release:
        yield release


@pytest.fixture
def fraud(install: Install, model_image: str) -> Watched:
    watched = Watched(install.cluster, install.models)
    watched.apply(manifest("fraud", model_image))
    watched.healthy("v1")
    return watched


def uids(fraud: Watched) -> set[str]:
    pods = fraud.get("pods", "--selector=coalmine.dev/modeldeployment=fraud")
    return {one["metadata"]["uid"] for one in pods["items"]}


def test_the_operator_has_every_right_it_needs(install: Install, fraud: Watched, model_image: str) -> None:
    """Over a rollout, an order and a version that does not start: what is not allowed is told in its log."""
    fraud.apply(manifest("fraud", model_image, "v2"))
    fraud.healthy("v2")
    broken = manifest("fraud", model_image, "broken", progressDeadlineSeconds=20)
    broken["spec"]["template"]["spec"]["containers"][0]["command"] = ["python3", "-c", "raise SystemExit('no weights')"]
    fraud.apply(broken)
    # With the last lines of its log.
    fraud.until("it is rolled back", lambda status: "no weights" in status.get("lastRollback", {}).get("message", ""))
    fraud.kubectl("annotate", "md/fraud", f"{RETRY}=")
    fraud.until("the order is obeyed", lambda status: status["phase"] == "Progressing")
    install.cluster.wait(lambda: RETRY not in fraud.read()["metadata"].get("annotations", {}), "it is taken away")
    events = fraud.get("events", "--field-selector=involvedObject.kind=ModelDeployment")["items"]
    assert "RolledBack" in {event["reason"] for event in events}
    log = install.log("operator")
    assert "serving" in log
    assert "forbidden" not in log.lower()


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


def test_who_gave_an_order_is_recorded(install: Install, fraud: Watched) -> None:
    words = ("annotate", "md/fraud", "coalmine.dev/pause=", "--dry-run=server", "--output=json")
    annotations = json.loads(fraud.kubectl(*words))["metadata"]["annotations"]
    assert json.loads(annotations[ORDERED_BY])["pause"]


def test_alertmanager_gets_in_with_the_token_alone(install: Install) -> None:
    body = ("--request", "POST", "--data", '{"version": "4", "alerts": []}')
    assert install.ask("/alerts", *body).endswith("\n401")
    allowed = ("--header", f"Authorization: Bearer {install.alerts_token()}")
    assert install.ask("/alerts", *body, *allowed).endswith("\n200")


def test_the_operators_metrics_are_there(install: Install, fraud: Watched) -> None:
    said = install.ask("/metrics")
    assert f'coalmine_deployment_available{{name="fraud",namespace="{install.models}"}} 1.0' in said


def test_an_upgrade_keeps_what_was_made_and_restarts_no_model(install: Install, fraud: Watched) -> None:
    before = (uids(fraud), install.get("secret", f"{RELEASE}-alerts")["data"], install.bundles())
    shown = install.get("secret", f"{RELEASE}-webhook-tls")["data"]
    assert all(before[2])
    install.helm("upgrade", commonLabels={"upgraded": "yes"})
    assert (uids(fraud), install.get("secret", f"{RELEASE}-alerts")["data"], install.bundles()) == before
    assert install.get("secret", f"{RELEASE}-webhook-tls")["data"] == shown
    definition = install.cluster.get("crd", "modeldeployments.coalmine.dev")
    assert definition["metadata"]["labels"]["upgraded"] == "yes"


def test_a_lost_certificate_is_made_anew(install: Install, model_image: str) -> None:
    before = install.bundles()
    patch = json.dumps([{"op": "remove", "path": "/data"}])
    words = ("--namespace", install.own, "--type=json", "--patch", patch)
    install.cluster.kubectl("patch", "secret", f"{RELEASE}-webhook-tls", *words)
    install.cluster.wait(lambda: install.bundles() != before, "another certificate", timeout=90)
    install.cluster.wait(lambda: install.get("secret", f"{RELEASE}-webhook-tls").get("data"), "the Secret filled")
    # It is ignored where it is not trusted.
    asking = {INJECT: "true"}
    install.cluster.wait(
        lambda: injected(install, model_image, **asking), "webhooks that the API server trusts", timeout=90
    )


def test_when_it_is_gone_models_stay(install: Install, fraud: Watched) -> None:
    before = uids(fraud)
    install.cluster.helm("uninstall", RELEASE, "--namespace", install.own, "--wait")
    assert uids(fraud) == before
    assert fraud.read()["metadata"]["name"] == "fraud"
    left = "deployments,services,secrets,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets"
    items = install.cluster.get(left, "--namespace", install.own)["items"]
    assert [one["metadata"]["name"] for one in items if one["metadata"]["name"] != "default"] == []
    selector = f"--selector=app.kubernetes.io/instance={RELEASE}"
    kinds = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations"
    assert install.cluster.get(kinds, selector)["items"] == []
    # Deleting needs no operator either.
    fraud.kubectl("delete", "md/fraud", "--timeout=60s")
    install.cluster.wait(lambda: not uids(fraud), "the models' pods go", timeout=60)
