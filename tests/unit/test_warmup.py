"""spec.model.warmup, from the manifest to the sidecar's command line."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from tests.manifests import changed, good, problem_lines

from coalmine_operator.api.decode import decode
from coalmine_operator.api.spec import ModelDeployment
from coalmine_operator.api.warmup import warmup_text
from coalmine_operator.engine.revisions import target_of
from coalmine_operator.render.injection import InjectionSettings
from coalmine_operator.render.manifests import OwnerRef, inject_revision
from coalmine_sidecar.contract import MAX_WARMUP_BYTES, decode_warmup
from coalmine_sidecar.settings import read_settings

AT = "spec.model.warmup"


def with_warmup(*requests: dict[str, Any]) -> ModelDeployment:
    return decode(changed(AT, list(requests)))


def revision(deployment: ModelDeployment) -> str:
    return target_of(deployment.metadata, deployment.spec, 0.0).name


def test_another_warm_up_is_another_revision_and_none_changes_nothing():
    plain, one = revision(decode(good())), revision(with_warmup({"path": "/"}))
    assert revision(with_warmup()) == plain
    assert len({plain, one, revision(with_warmup({"path": "/", "repeat": 2}))}) == 3


def test_the_sidecar_reads_what_the_manifest_says():
    deployment = with_warmup(
        {
            "path": "/v2/models/fraud/infer?x=%20$(POD_NAME)",
            "body": '{"a": "$(HOME) \u00e4"}',
            "repeat": 3,
            "timeout": "90s",
        },
        {
            "path": "/raw",
            "method": "PUT",
            "bodyBase64": base64.b64encode(b"\x00\xff").decode(),
            "headers": [{"name": "x-a", "value": "$(B)"}],
            "status": 204,
        },
    )
    owner = OwnerRef(name="fraud", uid="u")
    record = target_of(deployment.metadata, deployment.spec, 0.0)
    pod = inject_revision(record, owner, deployment.metadata, InjectionSettings(image="i")).pod
    sidecar = pod["spec"]["initContainers"][0]
    # A model that was started anew is not ready again before its sidecar says so.
    assert sidecar["readinessProbe"]["failureThreshold"] == 1
    assert "$(" not in next(word for word in sidecar["args"] if word.startswith("--warmup")), "kubelet expands it"
    first, second = read_settings(sidecar["args"], {}).warmup
    assert (first.method, first.path) == ("POST", "/v2/models/fraud/infer?x=%20$(POD_NAME)")
    assert (first.content, first.repeat, first.timeout, first.status) == (
        '{"a": "$(HOME) \u00e4"}'.encode(),
        3,
        90,
        200,
    )
    assert (second.method, second.content, second.status) == ("PUT", b"\x00\xff", 204)
    assert [(header.name, header.value) for header in second.headers] == [("x-a", "$(B)")]
    assert decode_warmup(warmup_text(record.model)) == (first, second)


def test_without_one_nothing_is_said():
    deployment = decode(good())
    assert warmup_text(deployment.spec.model) == ""
    assert decode_warmup("") == ()


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        ({}, "[0].path: missing"),
        ({"path": "v2"}, '[0].path: "v2" is no path: begin with / and write what is not ASCII as %XX'),
        ({"path": "/a b"}, '[0].path: "/a b" is no path: begin with / and write what is not ASCII as %XX'),
        ({"path": "/\u00e4"}, '[0].path: "/\u00e4" is no path: begin with / and write what is not ASCII as %XX'),
        ({"path": "/", "body": "a", "bodyBase64": "YQ=="}, "[0].bodyBase64: stands beside body: give one of them"),
        (
            {"path": "/", "bodyBase64": "a"},
            '[0].bodyBase64: "a" is no base64: write what `base64 -w0 FILE` prints',
        ),
        ({"path": "/", "timeout": "0s"}, "[0].timeout: 0s is not over 0s"),
        ({"path": "/", "repeat": 0}, "[0].repeat: 0 is under 1"),
        ({"path": "/", "status": 100}, "[0].status: 100 is under 200"),
        (
            {"path": "/", "headers": [{"name": "Content-Length", "value": "1"}]},
            '[0].headers[0].name: "Content-Length" is for the sidecar to say: leave it out',
        ),
        (
            {"path": "/", "method": "CONNECT"},
            '[0].method: "CONNECT" is not allowed: write DELETE, GET, HEAD, OPTIONS, PATCH, POST or PUT',
        ),
        (
            {"path": "/", "body": "\x01" * 20_000},
            f": takes 120039 bytes as JSON, at most {MAX_WARMUP_BYTES} are allowed: "
            "give smaller bodies, or fewer of them",
        ),
    ],
)
def test_a_mistake_is_named(request_: dict[str, Any], line: str):
    assert problem_lines(changed(AT, [request_])) == [AT + line]


def test_no_more_than_sixteen():
    assert problem_lines(changed(AT, [{"path": "/"}] * 17)) == [f"{AT}: has 17 entries, at most 16 are allowed"]
