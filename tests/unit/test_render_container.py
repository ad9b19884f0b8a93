"""A pod template's container as a process of this machine."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from coalmine_operator.api.decode import Invalid
from coalmine_operator.api.spec import Model
from coalmine_operator.render.container import LocalContainer, Probe, local_container
from coalmine_operator.render.expansion import expand
from coalmine_operator.render.quantity import parse_quantity


def container(pod: dict[str, Any] | None = None, **fields: Any) -> LocalContainer:
    own = {"name": "model", "command": ["serve"], **fields}
    return local_container({"spec": {"containers": [own], **(pod or {})}}, model=Model(port=8080))


def problem_lines(pod: dict[str, Any] | None = None, **fields: Any) -> list[str]:
    with pytest.raises(Invalid) as caught:
        container(pod, **fields)
    return str(caught.value).splitlines()


# The vectors of kubelet's own test of its expansion.
@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(VAR_A)", "A"),
        ("___$(VAR_B)___", "___B___"),
        ("___$(VAR_C)", "___C"),
        ("$(VAR_A)-$(VAR_A)", "A-A"),
        ("$(VAR_A)-1", "A-1"),
        ("$(VAR_A)_$(VAR_B)_$(VAR_C)", "A_B_C"),
        ("$$(VAR_B)_$(VAR_A)", "$(VAR_B)_A"),
        ("$$(VAR_A)_$$(VAR_B)", "$(VAR_A)_$(VAR_B)"),
        ("f000-$$VAR_A", "f000-$VAR_A"),
        ("foo\\$(VAR_C)bar", "foo\\Cbar"),
        ("foo\\\\$(VAR_C)bar", "foo\\\\Cbar"),
        ("$(VAR_A$(VAR_B)", "$(VAR_A$(VAR_B)"),
        ("$(VAR_A$(VAR_B)foobarzab$(VAR_C)barzab", "$(VAR_A$(VAR_B)foobarzabCbarzab"),
        ("$$$$$$(VAR_A)", "$$$(VAR_A)"),
        ("$$$$$$$(VAR_A)", "$$$A"),
        ("$VAR_A)", "$VAR_A)"),
        ("${VAR_A}", "${VAR_A}"),
        ("$(VAR_A", "$(VAR_A"),
        ("foobar$(missing)", "foobar$(missing)"),
        ("foobar$", "foobar$"),
        ("$(VAR_EMPTY)", ""),
        ("$()", "$()"),
        ("$(VAR_REF)", "$(VAR_A)"),
    ],
)
def test_expansion_is_kubelets(text: str, expanded: str) -> None:
    values = {"VAR_A": "A", "VAR_B": "B", "VAR_C": "C", "VAR_REF": "$(VAR_A)", "VAR_EMPTY": ""}
    assert expand(text, values) == expanded


def test_commands_and_variables_know_the_port() -> None:
    found = container(
        command=["python", "-m", "server"],
        args=["--port=$(PORT)", "$(URL)", "$(LATER)", "$$(PORT)"],
        env=[
            {"name": "URL", "value": "http://127.0.0.1:$(PORT)/$(LATER)"},
            {"name": "LATER", "value": "x"},
            {"name": "EMPTY"},
        ],
    )
    assert found.environment(5001) == {
        "PORT": "5001",
        "URL": "http://127.0.0.1:5001/$(LATER)",
        "LATER": "x",
        "EMPTY": "",
    }
    assert found.argv(5001) == (
        "python",
        "-m",
        "server",
        "--port=5001",
        "http://127.0.0.1:5001/$(LATER)",
        "x",
        "$(PORT)",
    )


def test_a_port_in_the_manifest_gives_way() -> None:
    found = container(env=[{"name": "PORT", "value": "8080"}, {"name": "NEXT", "value": "$(PORT)"}])
    assert found.environment(5001) == {"PORT": "5001", "NEXT": "5001"}
    assert found.ignored == ("spec.template.spec.containers[0].env[0]: ignored: coalmine run chooses a free PORT",)


def test_defaults() -> None:
    assert container() == LocalContainer(name="model", command=("serve",))


def test_the_container_named_model_is_the_model() -> None:
    template = {"spec": {"containers": [{"name": "log"}, {"name": "model", "command": ["m"]}]}}
    found = local_container(template, model=Model())
    assert found.command == ("m",)
    assert found.ignored == (
        "spec.template.spec.containers[0]: ignored: only the model's container runs on this machine",
    )
    template["spec"]["containers"].reverse()
    template["spec"]["containers"][0]["name"] = "server"
    assert local_container(template, model=Model()).name == "server"


def test_limits_directory_and_grace() -> None:
    found = container(
        {"terminationGracePeriodSeconds": 5},
        workingDir="/srv",
        resources={"requests": {"cpu": "9"}, "limits": {"memory": "0.5Gi", "cpu": 1.5, "nvidia.com/gpu": 1}},
    )
    assert (found.memory_limit_bytes, found.cpu_limit_cores) == (512 << 20, 1.5)
    assert (found.working_dir, found.termination_grace) == ("/srv", 5)


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ({"httpGet": {"path": "/ready", "port": 8080}}, Probe(path="/ready")),
        ({"httpGet": {"path": "ready", "port": "http"}}, Probe(path="/ready")),
        ({"httpGet": {"port": 9000, "scheme": "HTTPS"}}, Probe(port=9000, scheme="https")),
        ({"httpGet": {"port": "side"}}, Probe(port=9001)),
        (
            {
                "httpGet": {"port": 8080, "httpHeaders": [{"name": "a", "value": "b"}]},
                "initialDelaySeconds": 1,
                "periodSeconds": 2,
                "timeoutSeconds": 3,
                "successThreshold": 4,
                "failureThreshold": 5,
            },
            Probe(
                headers=(("a", "b"),), initial_delay=1, period=2, timeout=3, success_threshold=4, failure_threshold=5
            ),
        ),
        (None, None),
    ],
)
def test_readiness(probe: dict[str, Any] | None, expected: Probe | None) -> None:
    ports = [{"name": "http", "containerPort": 8080}, {"name": "side", "containerPort": 9001}]
    assert container(readinessProbe=probe, ports=ports).readiness == expected


def test_what_has_no_effect_here_is_told() -> None:
    found = container(
        {"initContainers": [{"name": "fetch"}]},
        image="x",
        volumeMounts=[{"name": "v"}],
        envFrom=[{"secretRef": {"name": "s"}}],
        livenessProbe={"httpGet": {}},
        startupProbe={"httpGet": {}},
        lifecycle={"preStop": {}},
        readinessProbe={"exec": {"command": ["true"]}},
    )
    where = "spec.template.spec.containers[0]"
    assert found.readiness is None
    assert found.ignored == (
        "spec.template.spec.initContainers: ignored: only the model's container runs on this machine",
        f"{where}.volumeMounts: ignored: no volumes are mounted on this machine",
        f"{where}.envFrom: ignored: no ConfigMaps and Secrets on this machine",
        f"{where}.livenessProbe: ignored: a process is started again when it ends, not when it hangs",
        f"{where}.startupProbe: ignored: only readiness is asked for",
        f"{where}.lifecycle: ignored: no hooks are run",
        f"{where}.readinessProbe: ignored: only httpGet is asked for, so the protocol's ready endpoint stands in",
    )


NO_COMMAND = (
    "command: missing: coalmine run starts processes, not images: give the command that starts the model server"
)
NO_QUANTITY = "is no quantity: write it like 512Mi, 2Gi, 500m or 2"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"command": None}, [NO_COMMAND]),
        ({"command": [], "args": ["x"]}, [NO_COMMAND]),
        ({"command": "serve"}, ['command: "serve" is no list']),
        ({"command": ["a", 5]}, ["command[1]: 5 is no text: put it in quotes"]),
        ({"args": ["a\x00b"]}, ["args[0]: holds a NUL character, which no process can be given"]),
        ({"env": {"A": "b"}}, ["env: a mapping is no list"]),
        ({"env": ["A=b"]}, ['env[0]: "A=b" is no mapping: give fields as `name: value`']),
        ({"env": [{"name": "A=", "value": "b"}]}, ['env[0].name: "A=" is no name of a variable']),
        ({"env": [{"name": "A", "value": True}]}, ["env[0].value: true is no text: put it in quotes"]),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {}}}]},
            ["env[0].valueFrom: nothing on this machine can fill it: give a value"],
        ),
        ({"workingDir": 5}, ["workingDir: 5 is no text: put it in quotes"]),
        ({"resources": 5}, ["resources: 5 is no mapping: give fields as `name: value`"]),
        ({"resources": {"limits": {"memory": "512MB"}}}, [f'resources.limits.memory: "512MB" {NO_QUANTITY}']),
        ({"resources": {"limits": {"cpu": True}}}, [f"resources.limits.cpu: true {NO_QUANTITY}"]),
        ({"resources": {"limits": {"cpu": "-1"}}}, ['resources.limits.cpu: "-1" is under 0']),
        (
            {"readinessProbe": {"httpGet": {"port": "web", "scheme": "ftp"}, "periodSeconds": 0}},
            [
                'readinessProbe.httpGet.scheme: "FTP" is not allowed: write HTTP or HTTPS',
                'readinessProbe.httpGet.port: "web" is no port: write 1 to 65535, or a name in ports',
                "readinessProbe.periodSeconds: 0 is no whole number from 1",
            ],
        ),
        (
            {"command": None, "args": [1], "env": [5]},
            [
                NO_COMMAND,
                "args[0]: 1 is no text: put it in quotes",
                "env[0]: 5 is no mapping: give fields as `name: value`",
            ],
        ),
    ],
)
def test_refused(fields: dict[str, Any], expected: list[str]) -> None:
    assert problem_lines(**fields) == [f"spec.template.spec.containers[0].{line}" for line in expected]


def test_a_fallbacks_template_is_named_as_such() -> None:
    with pytest.raises(Invalid, match=r"^spec\.fallback\.template\.spec\.containers\[0\]\.command: missing: "):
        local_container({"spec": {"containers": [{"name": "m"}]}}, model=Model(), path="spec.fallback.template")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("2", 2),
        ("500m", Fraction(1, 2)),
        ("100n", Fraction(1, 10**7)),
        ("5u", Fraction(5, 10**6)),
        (".5", Fraction(1, 2)),
        ("1.", 1),
        ("+1k", 1000),
        ("1M", 10**6),
        ("1Ki", 1024),
        ("1.5Gi", 3 << 29),
        ("1E", 10**18),
        ("1Ei", 1 << 60),
        ("1e3", 1000),
        ("12E-1", Fraction(6, 5)),
        ("0.1", Fraction(1, 10)),
    ],
)
def test_quantities_are_exact(text: str, value: Fraction) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize(
    "text", ["", ".", "1MB", "Mi", "1 Gi", "1ki", "1Mi2", "1e", "1e999", "0x1", "٣", "1_0", "9" * 99]
)
def test_no_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        parse_quantity(text)
