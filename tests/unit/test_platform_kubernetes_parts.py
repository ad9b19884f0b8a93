"""The Kubernetes platform's pure parts: what is read out of objects, and what is decided from it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from coalmine_operator.platforms.kubernetes.annotations import (
    Refresh,
    annotated_orders,
    refresh_wanted,
    removal,
    unknown_orders,
)
from coalmine_operator.platforms.kubernetes.cache import Cache
from coalmine_operator.platforms.kubernetes.held import hold
from coalmine_operator.platforms.kubernetes.kinds import (
    CONTROLLER_REVISION,
    DEPLOYMENT,
    EVENT,
    MODEL_DEPLOYMENT,
    POD,
    SECRET,
    SERVICE,
)
from coalmine_operator.platforms.kubernetes.pods import (
    counts,
    log_tail,
    long_unready,
    ready,
    rollout_trouble,
    trouble,
    worst,
)
from coalmine_operator.platforms.kubernetes.revisions import Revisions
from coalmine_operator.platforms.kubernetes.routing import next_generation, routing_of
from coalmine_sidecar.contract import RevisionRoute, Routing


def metadata(name: str, version: int = 1, **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": "ml", "uid": f"uid-{name}", "resourceVersion": str(version), **more}


def owned(name: str, version: int = 1, **more: Any) -> dict[str, Any]:
    labels = {"coalmine.dev/modeldeployment": "fraud", "coalmine.dev/revision": "fraud-1"}
    return metadata(name, version, labels=labels, **more)


def pod(status: dict[str, Any], name: str = "fraud-1-abc", **more: Any) -> Any:
    return hold(POD, {"metadata": owned(name, **more), "status": status})


def model(state: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "model", "state": state, "restartCount": 0, "ready": False, **more}]}


READY = {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}


# Places


@pytest.mark.parametrize(
    ("kind", "sub", "path"),
    [
        (MODEL_DEPLOYMENT, ("ml", "fraud"), "/apis/coalmine.dev/v1alpha1/namespaces/ml/modeldeployments/fraud"),
        (
            MODEL_DEPLOYMENT,
            ("ml", "fraud", "status"),
            "/apis/coalmine.dev/v1alpha1/namespaces/ml/modeldeployments/fraud/status",
        ),
        (POD, (), "/api/v1/pods"),
        (POD, ("ml",), "/api/v1/namespaces/ml/pods"),
        (DEPLOYMENT, ("", ""), "/apis/apps/v1/deployments"),
        (EVENT, ("ml",), "/apis/events.k8s.io/v1/namespaces/ml/events"),
    ],
)
def test_paths_of_the_api(kind: Any, sub: tuple[str, ...], path: str) -> None:
    assert kind.path(*sub) == path


# The cache


class Telling(Cache):
    """A cache and the keys it told of."""

    def __init__(self) -> None:
        self.told: list[str] = []
        super().__init__(self.told.append)

    def news(self) -> list[str]:
        """Since the last look."""
        told, self.told[:] = self.told[:], []
        return told


def test_the_cache_never_goes_back_in_time() -> None:
    cache = Telling()
    cache.take(SECRET, {"metadata": owned("fraud-routing", 9), "data": {"a": "new"}})
    assert cache.news() == ["ml/fraud"]
    cache.take(SECRET, {"metadata": owned("fraud-routing", 8), "data": {"a": "old"}})
    assert cache.news() == []
    assert cache.get(SECRET, "ml", "fraud-routing").body == {"data": {"a": "new"}}


def test_a_write_that_changes_nothing_anybody_reads_is_no_news() -> None:
    cache = Telling()
    cache.take(POD, {"metadata": owned("p", 1), "status": READY})
    assert cache.news() == ["ml/fraud"]
    cache.take(POD, {"metadata": owned("p", 2), "status": READY})
    assert cache.news() == []
    assert cache.get(POD, "ml", "p").version == 2


def model_deployment(version: int, status: str = "", generation: int = 1, **annotations: str) -> dict[str, Any]:
    given = {f"coalmine.dev/{verb}": value for verb, value in annotations.items()}
    metadata = {"name": "fraud", "namespace": "ml", "uid": "u", "resourceVersion": str(version)}
    return {
        "metadata": metadata | {"generation": generation, "annotations": given},
        "spec": {"version": f"v{generation}"},
        "status": {"phase": status},
    }


@pytest.mark.parametrize("meanwhile", [{"retry": "v2"}, {"generation": 2}, {}])
def test_what_somebody_did_before_we_saved_is_told_by_our_own_answer(meanwhile: dict[str, Any]) -> None:
    """The watch's event comes later and is overtaken: nobody else would tell."""
    cache = Telling()
    cache.take(MODEL_DEPLOYMENT, model_deployment(1))
    cache.news()
    cache.saved(MODEL_DEPLOYMENT, model_deployment(3, "Paused", **meanwhile))
    assert cache.news() == ["ml/fraud"] * bool(meanwhile)
    cache.take(MODEL_DEPLOYMENT, model_deployment(2, **meanwhile))
    assert cache.news() == []
    cache.take(MODEL_DEPLOYMENT, model_deployment(3, "Paused", **meanwhile))
    assert cache.news() == []


def test_what_went_is_told() -> None:
    cache = Telling()
    cache.take(POD, {"metadata": owned("p", 1)})
    cache.take(POD, {"metadata": owned("q", 1)})
    cache.news()
    cache.drop(POD, "ml", "p")
    assert cache.news() == ["ml/fraud"]
    cache.prune(POD, [], 5)
    assert cache.news() == ["ml/fraud"]


def test_children_are_found_by_the_model_deployment_they_are_labelled_with() -> None:
    cache = Telling()
    cache.take(POD, {"metadata": owned("b"), "status": {}})
    cache.take(POD, {"metadata": owned("a"), "status": {}})
    cache.take(POD, {"metadata": owned("c") | {"namespace": "other"}, "status": {}})
    assert [held.name for held in cache.owned(POD, "ml/fraud")] == ["a", "b"]
    cache.drop(POD, "ml", "a")
    assert [held.name for held in cache.owned(POD, "ml/fraud")] == ["b"]
    cache.drop(POD, "ml", "b")
    assert cache.owned(POD, "ml/fraud") == []


def test_the_end_of_an_old_object_does_not_take_its_successor_along() -> None:
    cache = Telling()
    cache.take(SERVICE, {"metadata": owned("fraud", 5) | {"uid": "new"}})
    assert cache.drop(SERVICE, "ml", "fraud", "old") is None
    assert cache.get(SERVICE, "ml", "fraud")


def test_a_list_tells_what_went_unseen_and_leaves_alone_what_is_newer_or_elsewhere() -> None:
    cache = Telling()
    for name, version in (("gone", 1), ("there", 2), ("newer", 20)):
        cache.take(SERVICE, {"metadata": owned(name, version)})
    cache.take(SERVICE, {"metadata": owned("elsewhere", 3) | {"namespace": "other"}})
    lost = cache.prune(SERVICE, [("ml", "there")], 10, ["ml"])
    assert [held.name for held in lost] == ["gone"]
    assert cache.get(SERVICE, "ml", "newer")
    assert cache.get(SERVICE, "other", "elsewhere")


def test_what_somebody_else_took_over_shows_in_the_fingerprint() -> None:
    def deployment(*entries: dict[str, Any]) -> str:
        return hold(DEPLOYMENT, {"metadata": owned("fraud-1", managedFields=list(entries))}).owned

    mine = {"manager": "coalmine", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    kubectl = {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    assert deployment(mine) == deployment(mine, kubectl) != ""
    assert deployment(mine | {"fieldsV1": {"f:spec": {}}}, kubectl) != deployment(mine)
    assert deployment(kubectl) == deployment() == ""
    assert deployment(mine | {"subresource": "status"}) == ""
    assert deployment(mine | {"time": "later"}) == deployment(mine)


# Pods


def test_a_pod_is_ready_until_it_ends() -> None:
    assert ready(pod(READY))
    assert not ready(pod(READY, deletionTimestamp="now"))
    assert not ready(pod(READY | {"phase": "Failed"}))
    assert not ready(pod(READY | {"conditions": [{"type": "Ready", "status": "False"}]}))
    assert not ready(pod({}))


def test_pods_that_ended_are_only_records() -> None:
    assert counts(pod({"phase": "Pending"}))
    assert not counts(pod({"phase": "Failed"}))
    assert not counts(pod({"phase": "Succeeded"}))


@pytest.mark.parametrize(
    "status",
    [
        READY,
        {},
        {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]},
        model({"waiting": {"reason": "ContainerCreating"}}),
        model({"waiting": {"reason": "PodInitializing"}}),
        model({"running": {}}),
        model({"terminated": {"exitCode": 0, "reason": "Completed"}}),
    ],
)
def test_an_ordinary_start_is_no_trouble(status: dict[str, Any]) -> None:
    assert trouble(pod(status)) is None


def test_a_pod_that_ends_is_no_trouble() -> None:
    assert trouble(pod(model({"terminated": {"exitCode": 143}}), deletionTimestamp="now")) is None


@pytest.mark.parametrize(
    ("status", "text", "reads_log", "previous"),
    [
        (
            model({"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "no/such:1"'}}),
            'model: ImagePullBackOff: Back-off pulling image "no/such:1"',
            False,
            False,
        ),
        (
            model(
                {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}},
                lastState={"terminated": {"exitCode": 3, "reason": "Error"}},
                restartCount=4,
            ),
            "model: ended with status 3 (Error)",
            True,
            True,
        ),
        (
            model({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
            "model: ended with status 137 (OOMKilled)",
            True,
            False,
        ),
        (
            model({"running": {}}, restartCount=2, lastState={"terminated": {"exitCode": 1, "reason": "Error"}}),
            "model: ended with status 1 (Error)",
            True,
            True,
        ),
        (
            {
                "phase": "Pending",
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/1 nodes are available:\n1 Insufficient memory.",
                    }
                ],
            },
            "Unschedulable: 0/1 nodes are available: 1 Insufficient memory.",
            False,
            False,
        ),
        ({"phase": "Failed", "reason": "Evicted", "message": "disk"}, "Evicted: disk", False, False),
        (
            {"initContainerStatuses": [{"name": "coalmine-sidecar", "state": {"waiting": {"reason": "ErrImagePull"}}}]},
            "coalmine-sidecar: ErrImagePull",
            False,
            False,
        ),
    ],
)
def test_trouble_in_one_line(status: dict[str, Any], text: str, reads_log: bool, previous: bool) -> None:
    found = trouble(pod(status))
    assert found is not None
    assert found.text == text
    assert bool(found.container) == reads_log
    assert found.previous == previous


def test_the_same_failure_is_told_in_the_same_words_while_it_backs_off() -> None:
    def text(seconds: int) -> Any:
        return trouble(
            pod(
                model(
                    {"waiting": {"reason": "CrashLoopBackOff", "message": f"back-off {seconds}s"}},
                    lastState={"terminated": {"exitCode": 1}},
                    restartCount=1,
                )
            )
        )

    assert text(10) == text(20)


def test_a_pod_whose_log_tells_more_goes_first() -> None:
    pulls = pod(model({"waiting": {"reason": "ImagePullBackOff"}}), name="a")
    crashed = pod(model({"terminated": {"exitCode": 1}}), name="b")
    assert [p.name for p, _ in worst([pulls, pod(READY), crashed])] == ["b", "a"]


def test_containers_that_run_and_do_not_get_ready_are_named_with_the_port() -> None:
    running = {"running": {"startedAt": "2026-11-22T06:00:00Z"}}
    began = datetime(2026, 11, 22, 6, tzinfo=UTC).timestamp()
    sidecar = {"name": "coalmine-sidecar", "state": running, "ready": False}
    stuck = model(running) | {"initContainerStatuses": [sidecar]}
    assert long_unready(pod(stuck), 9999, began + 29) == "", "the time that a start takes"
    assert long_unready(pod(stuck), 9999, began + 31) == (
        "running but not ready: model, coalmine-sidecar; requests go to port 9999 (spec.model.port): "
        "does the model listen there?"
    )
    alone = model(running, ready=True) | {"initContainerStatuses": [sidecar]}
    assert long_unready(pod(alone), 80, began + 99).startswith("running but not ready: coalmine-sidecar;")
    fetching = {"conditions": [{"type": "Initialized", "status": "False"}]}
    assert long_unready(pod(stuck | fetching), 80, began + 99) == "", "its weights are on their way"
    assert long_unready(pod(stuck | READY), 9999, began + 99) == ""
    assert long_unready(pod(model({"waiting": {"reason": "PodInitializing"}})), 80, began + 99) == ""


def test_what_keeps_a_deployment_from_making_pods() -> None:
    def deployment(*conditions: dict[str, Any]) -> Any:
        return hold(DEPLOYMENT, {"metadata": owned("fraud-1"), "status": {"conditions": list(conditions)}})

    failure = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": 'pods "fraud-1-x" is forbidden: exceeded quota: small',
    }
    assert rollout_trouble(deployment(failure)).startswith("FailedCreate: pods")
    assert rollout_trouble(deployment(failure | {"status": "False"})) == ""
    assert rollout_trouble(deployment()) == ""


def test_the_end_of_a_log_is_one_printable_line() -> None:
    assert log_tail("a\n\n\x1b[31mb\x1b[0m\nc\n") == "a | [31mb [0m | c"
    assert log_tail("\n".join(str(i) for i in range(99))) == "94 | 95 | 96 | 97 | 98"
    assert len(log_tail("x" * 5000)) == 600
    assert log_tail("") == ""


# Revisions


def record(name: str, version: int = 1) -> Any:
    data = {"name": name, "version": "v1", "template": {}, "model": {"version": "v1"}}
    return hold(CONTROLLER_REVISION, {"metadata": owned(name, version), "data": data})


def test_a_record_that_somebody_deleted_is_known_until_it_is_no_longer_wanted() -> None:
    revisions = Revisions()
    assert set(revisions.read([record("fraud-1"), record("fraud-2")])) == {"fraud-1", "fraud-2"}
    assert set(revisions.read([record("fraud-2", 2)])) == {"fraud-1", "fraud-2"}
    revisions.forget_all_but(["fraud-2"])
    assert set(revisions.read([record("fraud-2", 2)])) == {"fraud-2"}


def test_what_is_no_record_of_ours_is_left_alone() -> None:
    other = hold(CONTROLLER_REVISION, {"metadata": owned("web-1"), "data": {"spec": {}}})
    assert Revisions().read([other]) == {}


# Orders


def annotated(annotations: dict[str, str], *managers: tuple[str, str, str]) -> dict[str, Any]:
    fields = [
        {
            "manager": manager,
            "time": at,
            "operation": "Update",
            "fieldsV1": {"f:metadata": {"f:annotations": {f"f:{annotation}": {}}}},
        }
        for annotation, manager, at in managers
    ]
    return {"metadata": metadata("fraud", annotations=annotations, managedFields=fields)}


def test_orders_stand_in_annotations() -> None:
    found = annotated_orders(
        annotated(
            {"coalmine.dev/promote": "fraud-1", "coalmine.dev/pause": "", "coalmine.dev/refresh": "", "other": "x"},
            ("coalmine.dev/promote", "kubectl-annotate", "2026-11-20T10:00:02Z"),
            ("coalmine.dev/pause", "argocd", "2026-11-20T10:00:01Z"),
        )
    )
    assert [(one.order.verb, one.order.revision, one.order.actor) for one in found] == [
        ("pause", "", "argocd"),
        ("promote", "fraud-1", "kubectl-annotate"),
    ]


@pytest.mark.parametrize("value", ["", "true", "Yes", "now", " true "])
def test_some_values_mean_the_present_rollout(value: str) -> None:
    (one,) = annotated_orders(annotated({"coalmine.dev/rollback": value}))
    assert one.order.revision == ""
    assert one.value == value


def test_who_ordered_is_what_the_webhook_stamped() -> None:
    (one,) = annotated_orders(
        annotated(
            {"coalmine.dev/retry": "", "coalmine.dev/ordered-by": '{"retry": "ada@example.org"}'},
            ("coalmine.dev/retry", "kubectl-annotate", "2026-11-20T10:00:02Z"),
        )
    )
    assert one.order.actor == "ada@example.org"


def test_an_order_given_again_is_another_one() -> None:
    def order_id(at: str) -> str:
        (one,) = annotated_orders(annotated({"coalmine.dev/retry": ""}, ("coalmine.dev/retry", "kubectl", at)))
        return one.order.id

    assert order_id("2026-11-20T10:00:02Z") == order_id("2026-11-20T10:00:02Z") != order_id("2026-11-20T10:00:03Z")


def test_an_order_is_taken_away_only_as_it_was_read() -> None:
    present = {"coalmine.dev/retry": "x", "coalmine.dev/ordered-by": "{}", "other": ""}
    path = "/metadata/annotations/coalmine.dev~1retry"
    assert removal("coalmine.dev/retry", "x", present) == [
        {"op": "test", "path": path, "value": "x"},
        {"op": "remove", "path": path},
        {"op": "remove", "path": "/metadata/annotations/coalmine.dev~1ordered-by"},
    ]
    assert len(removal("coalmine.dev/retry", "x", present | {"coalmine.dev/pause": ""})) == 2


def test_a_refresh_is_not_for_the_engine() -> None:
    obj = annotated({"coalmine.dev/refresh": "fraud-1"})
    assert annotated_orders(obj) == []
    assert refresh_wanted(obj) == Refresh(value="fraud-1", revision="fraud-1", actor="")
    assert refresh_wanted(annotated({})) is None


@pytest.mark.parametrize("webhook", [True, False])
def test_who_ordered_a_refresh_is_known_as_well(webhook: bool) -> None:
    stamp = {"coalmine.dev/ordered-by": '{"refresh": "ada@example.org"}'} if webhook else {}
    setter = ("coalmine.dev/refresh", "kubectl-annotate", "2026-11-20T10:00:02Z")
    found = refresh_wanted(annotated({"coalmine.dev/refresh": " True ", **stamp}, setter))
    assert found == Refresh(value=" True ", revision="", actor="ada@example.org" if webhook else "kubectl-annotate")


def test_an_order_with_a_slip_of_the_pen_is_seen() -> None:
    found = {"coalmine.dev/promot": "", "coalmine.dev/promote": "", "coalmine.dev/ordered-by": "{}", "other/x": ""}
    assert unknown_orders(found) == ["coalmine.dev/promot"]


# The routing Secret


def routing(generation: int, weight: int = 100) -> Routing:
    revisions = (
        RevisionRoute(name="fraud-1", version="v1", track="stable", weight=weight),
        RevisionRoute(name="fraud-2", version="v2", track="canary", weight=100 - weight),
    )
    return Routing(deployment="fraud", model="fraud", generation=generation, revisions=revisions)


def test_a_generation_grows_with_every_change_and_with_nothing_else() -> None:
    assert next_generation(routing(0), None, 0) == 1
    assert next_generation(routing(0), routing(3), 3) == 3
    assert next_generation(routing(0, 95), routing(3), 3) == 4


def test_a_generation_never_falls_behind_what_sidecars_have() -> None:
    assert next_generation(routing(0), None, 7) == 8
    assert next_generation(routing(0), routing(3), 7) == 8


@pytest.mark.parametrize("data", [{}, {"routing.json": "!"}, {"routing.json": "e30="}])
def test_a_broken_secret_is_as_good_as_none(data: dict[str, str]) -> None:
    assert routing_of(hold(SECRET, {"metadata": owned("fraud-routing"), "data": data})) is None
    assert routing_of(None) is None
