"""Which model deployment is meant, and what is told when that is not clear."""

from __future__ import annotations

import pytest

from coalmine_operator.api.status import Status
from coalmine_operator.cli.client import actor, pick
from coalmine_operator.cli.errors import CliError
from coalmine_operator.web.view import DeploymentView


def view(name: str, namespace: str = "default") -> DeploymentView:
    return DeploymentView(namespace=namespace, name=name, at=1.0, status=Status())


FRAUD, SHOP, OTHER = view("fraud"), view("fraud", "shop"), view("other")


def test_the_only_one_needs_no_name() -> None:
    assert pick([FRAUD], None) is FRAUD


def test_by_name_and_by_key() -> None:
    assert pick([FRAUD, OTHER], "other") is OTHER
    assert pick([FRAUD, SHOP, OTHER], "shop/fraud") is SHOP


@pytest.mark.parametrize(
    ("views", "name", "code", "line"),
    [
        ([], None, 1, "there is no model deployment"),
        ([], "fraud", 1, "no model deployment fraud: there is none"),
        ([OTHER, FRAUD], "froud", 1, "no model deployment froud: there is fraud, other"),
        ([FRAUD, OTHER], None, 2, "name one of the model deployments: default/fraud, default/other"),
        ([FRAUD, SHOP], "fraud", 2, "name one of the model deployments: default/fraud, shop/fraud"),
    ],
)
def test_what_is_not_clear(views: list[DeploymentView], name: str | None, code: int, line: str) -> None:
    with pytest.raises(CliError) as caught:
        pick(views, name)
    assert (str(caught.value), caught.value.code) == (line, code)


def test_who_gives_orders_is_a_user_at_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    user, _, host = actor().partition("@")
    assert user == "ada"
    assert host
