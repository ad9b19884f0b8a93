"""crds/modeldeployments.yaml against the types of `api/`: every field, kind, default and bound, both ways."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import yaml
from msgspec import NODEFAULT, inspect

from coalmine_operator.api import spec, status
from coalmine_operator.api.duration import Duration
from coalmine_operator.api.wire import is_time

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "crds/modeldeployments.yaml").read_text()
CRD = yaml.safe_load(TEXT)
VERSION = CRD["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]

Schema = dict[str, Any]

#: Bounds that the types leave to Kubernetes, or that the operator keeps in code.
ONLY_IN_CRD: Final = {
    "spec.autoRollback.alerts[].matchLabels": {"maxProperties": 64},
    "status.conditions": {"maxItems": 32},  # other controllers may add theirs
    "status.rollout.banked": {"maxItems": 20},  # one a metric
    "status.rollout.preexisting": {"maxItems": 100},
    "status.verdicts": {"maxItems": 21},  # one a metric, and one on the baseline
    "status.lastRollback.evidence": {"maxItems": 21},
    "status.history[].verdicts": {"maxItems": 21},
    "status.quarantined": {"maxItems": status.MAX_QUARANTINED},
    "status.history": {"maxItems": status.MAX_HISTORY},
    "status.alerts": {"maxItems": status.MAX_ALERTS},
    "status.orders": {"maxItems": status.MAX_ORDERS},
    "status.events": {"maxItems": status.MAX_EVENTS},
    "status.retiring": {"maxItems": 200},
    "status.bins": {"maxProperties": 64},
    "status.bins{}": {"maxItems": 64},
    "status.alerts[].labels": {"maxProperties": 64},
    "status.lastRollback.alert.labels": {"maxProperties": 64},
    "status.history[].alert.labels": {"maxProperties": 64},
}
#: Free in form: passed on as they are, whatever the schema says inside them.
FREE: Final = ("spec.template", "spec.fallback.template", "spec.model.lineage")
BOUNDS: Final = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    *(f"{least}{what}" for least in ("min", "max") for what in ("Length", "Items", "Properties")),
)
DURATION = "^([0-9]+([.][0-9]+)?(ms|s|m|h|d))+$"


@dataclass
class Pair:
    """One field as the types and as the CRD have it. `kind` without Optional; `default` as it is on the wire."""

    path: str
    kind: inspect.Type
    schema: Schema
    default: Any = NODEFAULT
    required: bool = True
    time: bool = False


def pairs_of(kind: inspect.Type, schema: Schema, path: str) -> Iterator[Pair]:
    """All that is inside; raises KeyError where the CRD lacks a field."""
    match kind:
        case inspect.StructType():
            for field in kind.fields:
                at = f"{path}.{field.encode_name}"
                inner = schema["properties"][field.encode_name]
                pair = Pair(
                    at,
                    plain(field.type),
                    inner,
                    on_the_wire(default_of(field)),
                    required=field.required,
                    time=path.startswith("status") and is_time(field),
                )
                yield pair
                yield from pairs_of(pair.kind, inner, at)
        case inspect.VarTupleType():
            item = plain(kind.item_type)
            yield Pair(f"{path}[]", item, schema["items"])
            yield from pairs_of(item, schema["items"], f"{path}[]")
        case inspect.DictType() if not isinstance(kind.value_type, inspect.AnyType):
            item = plain(kind.value_type)
            yield Pair(f"{path}{{}}", item, schema["additionalProperties"])
            yield from pairs_of(item, schema["additionalProperties"], f"{path}{{}}")


def plain(kind: inspect.Type) -> inspect.Type:
    """Without null, which is absent on Kubernetes; descriptions apart."""
    if isinstance(kind, inspect.Metadata):
        return kind.type
    if isinstance(kind, inspect.UnionType):
        rest = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
        return plain(rest[0]) if len(rest) == 1 else kind
    return kind


def default_of(field: inspect.Field | msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default_factory is NODEFAULT else field.default_factory()


def on_the_wire(value: Any) -> Any:
    """A default of ours as short as a person would write it."""
    if isinstance(value, msgspec.Struct):
        fields = ((field, getattr(value, field.name)) for field in msgspec.structs.fields(value))
        return {field.encode_name: on_the_wire(item) for field, item in fields if item != default_of(field)}
    return [on_the_wire(item) for item in value] if isinstance(value, tuple) else value


SPEC = list(pairs_of(inspect.type_info(spec.ModelDeploymentSpec), SCHEMA["properties"]["spec"], "spec"))
STATUS = list(pairs_of(inspect.type_info(status.Status), SCHEMA["properties"]["status"], "status"))
PAIRS = {pair.path: pair for pair in SPEC + STATUS}


def parts_of(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Every schema of the CRD with its path, inside the free parts as well."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from parts_of(inner, f"{path}.{name}")
    if "items" in schema:
        yield from parts_of(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from parts_of(schema["additionalProperties"], f"{path}{{}}")


PARTS = {path: schema for part in ("spec", "status") for path, schema in parts_of(SCHEMA["properties"][part], part)}


def kind_of(pair: Pair) -> Schema:
    """What the CRD has to say of the kind and the bounds of a field."""
    match pair.kind:
        case _ if pair.time:
            return {"type": "string", "format": "date-time"}
        case inspect.StructType():
            return {"type": "object"}
        case inspect.DictType(value_type=inspect.AnyType()):
            return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        case inspect.DictType():
            return {"type": "object"}
        case inspect.VarTupleType(min_length=least, max_length=most):
            return {"type": "array"} | given(minItems=least or None, maxItems=most)
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.LiteralType(values=words):
            return {"type": "string", "enum": words}
        case inspect.StrType(min_length=least, max_length=most):
            return {"type": "string"} | given(minLength=least, maxLength=most)
        case inspect.IntType():
            return {"type": "integer"} | limits(pair.kind)
        case inspect.FloatType():
            return {"type": "number"} | limits(pair.kind)
        case inspect.CustomType(cls=cls) if cls is Duration:
            return {"type": "string", "maxLength": 64}
        case inspect.UnionType():
            return {"x-kubernetes-preserve-unknown-fields": True}
    raise TypeError(f"{pair.path}: a field of the API may not be a {pair.kind}")


def given(**bounds: Any) -> Schema:
    return {name: bound for name, bound in bounds.items() if bound is not None}


def limits(kind: inspect.IntType | inspect.FloatType) -> Schema:
    return given(
        minimum=kind.ge if kind.gt is None else kind.gt,
        exclusiveMinimum=None if kind.gt is None else True,
        maximum=kind.le if kind.lt is None else kind.lt,
        exclusiveMaximum=None if kind.lt is None else True,
    )


def rules_of(schema: Schema) -> str:
    return "\n".join(rule["rule"] + "\n" + rule["message"] for rule in schema.get("x-kubernetes-validations", []))


def test_the_crd_has_no_field_that_the_types_lack() -> None:
    inside = tuple(f"{free}." for free in FREE)
    assert {path for path in PARTS if not path.startswith(inside)} - {"spec", "status"} == set(PAIRS)


@pytest.mark.parametrize("path", PAIRS)
def test_kind_and_bounds(path: str) -> None:
    pair = PAIRS[path]
    wanted = kind_of(pair) | ONLY_IN_CRD.get(path, {})
    known = {name: pair.schema[name] for name in ("type", "enum", *BOUNDS) if name in pair.schema}
    if pair.time:
        known["format"] = pair.schema.get("format")
    if "x-kubernetes-preserve-unknown-fields" in pair.schema:
        known["x-kubernetes-preserve-unknown-fields"] = pair.schema["x-kubernetes-preserve-unknown-fields"]
    assert sorted(known.pop("enum", [])) == sorted(wanted.pop("enum", []))
    assert known == wanted


@pytest.mark.parametrize("path", [pair.path for pair in SPEC])
def test_default(path: str) -> None:
    """Absent in the CRD where it is null or empty: that is what absent means. Parts of ours default to `{}`."""
    pair = PAIRS[path]
    found = pair.schema.get("default", NODEFAULT)
    if isinstance(pair.default, Duration):
        assert Duration.parse(found) == pair.default
    elif isinstance(pair.kind, inspect.StructType) and pair.default == {}:
        assert found == {}
    elif pair.default is NODEFAULT or pair.default in (None, "", [], {}):
        assert found is NODEFAULT
    else:
        assert found == pair.default
        assert type(found) is type(pair.default)
    if isinstance(found, str | int | float):
        spelled = json.dumps(found).strip('"')
        assert pair.schema["description"].endswith(f" Default {spelled}."), "kubectl explain shows no other"


def test_a_status_has_no_defaults() -> None:
    """What the operator did not write must not appear: it would look like a difference for ever."""
    assert [path for path, schema in PARTS.items() if path.startswith("status") and "default" in schema] == []


@pytest.mark.parametrize(
    "path", ["spec", *(path for path, pair in PAIRS.items() if isinstance(pair.kind, inspect.StructType))]
)
def test_required(path: str) -> None:
    """A time that never was is absent (see api/wire.py)."""
    fields = {name.rpartition(".")[2]: pair for name, pair in PAIRS.items() if name.rpartition(".")[0] == path}
    wanted = {name for name, pair in fields.items() if pair.required and not pair.time and name.isalpha()}
    assert set(PARTS[path].get("required", [])) == wanted


@pytest.mark.parametrize("path", [path for path, pair in PAIRS.items() if isinstance(pair.kind, inspect.CustomType)])
def test_durations_are_checked_in_words(path: str) -> None:
    rules = rules_of(PAIRS[path].schema)
    assert DURATION in rules
    assert "write it like 250ms, 15s, 10m or 1h30m" in rules
    assert "at most 3650d" in rules


def patterned(kind: inspect.Type) -> tuple[str, str] | None:
    """Pattern and description of a text field."""
    match kind:
        case inspect.Metadata(type=inspect.StrType(pattern=str() as pattern)):
            return pattern, (kind.extra_json_schema or {}).get("description", "")
        case inspect.UnionType():
            return next(filter(None, map(patterned, kind.types)), None)
    return None


def texts_with_patterns() -> Iterator[tuple[str, str, str]]:
    def inside(kind: inspect.Type, path: str) -> Iterator[tuple[str, str, str]]:
        kind_ = plain(kind)
        if found := patterned(kind):
            yield path, *found
        elif isinstance(kind_, inspect.StructType):
            for field in kind_.fields:
                yield from inside(field.type, f"{path}.{field.encode_name}")
        elif isinstance(kind_, inspect.VarTupleType):
            yield from inside(kind_.item_type, f"{path}[]")

    yield from inside(inspect.type_info(spec.ModelDeploymentSpec), "spec")


@pytest.mark.parametrize(("path", "pattern", "words"), list(texts_with_patterns()))
def test_patterns_are_checked_in_words(path: str, pattern: str, words: str) -> None:
    rules = rules_of(PAIRS[path].schema)
    assert f"self.matches('{pattern}')" in rules
    assert words in rules


@pytest.mark.parametrize("path", PARTS)
def test_every_field_is_described(path: str) -> None:
    """Plain sentences, since `kubectl explain` shows them."""
    if path.endswith("{}") or PARTS[path] in ({"type": "string"}, {"type": "number"}, {"type": "integer"}):
        return
    if path.endswith("[]") and PARTS[path]["type"] not in ("object",):
        return
    words = PARTS[path].get("description", "")
    assert re.fullmatch(r"[A-Z`].{8,}\.", words), f"{path}: a sentence says what it is"


@pytest.mark.parametrize("path", [path for path, schema in PARTS.items() if schema.get("type") == "array"])
def test_every_list_is_bounded(path: str) -> None:
    assert PARTS[path]["maxItems"] <= 200


def test_every_rule_says_what_to_do() -> None:
    def rules(schema: Any) -> Iterator[Mapping[str, str]]:
        if isinstance(schema, dict):
            yield from schema.get("x-kubernetes-validations", [])
            for inner in schema.values():
                yield from rules(inner)
        elif isinstance(schema, list):
            for inner in schema:
                yield from rules(inner)

    found = list(rules(SCHEMA))
    assert len(found) >= 30
    for rule in found:
        assert rule["message"]
        assert "\n" not in rule["message"]


def test_helm_reads_no_template_in_it() -> None:
    assert "{{" not in TEXT


def test_names_and_columns() -> None:
    assert CRD["spec"]["group"] == spec.GROUP
    assert f"{spec.GROUP}/{VERSION['name']}" == spec.API_VERSION
    names = CRD["spec"]["names"]
    assert (names["kind"], names["shortNames"], names["categories"]) == (spec.KIND, ["md"], ["coalmine"])
    assert CRD["metadata"]["name"] == f"{names['plural']}.{spec.GROUP}"
    columns = VERSION["additionalPrinterColumns"]
    assert [column["name"] for column in columns if not column.get("priority")] == [
        "Phase",
        "Stable",
        "Canary",
        "Weight",
        "Step",
        "Age",
    ]
    for column in columns:
        if column["jsonPath"].startswith(".status"):
            assert PARTS[column["jsonPath"][1:]]["type"] == column["type"]


def test_scale_points_at_fields_that_are() -> None:
    scale = VERSION["subresources"]["scale"]
    assert PARTS[scale["specReplicasPath"][1:]]["type"] == "integer"
    assert PARTS[scale["statusReplicasPath"][1:]]["type"] == "integer"
    assert PARTS[scale["labelSelectorPath"][1:]]["type"] == "string"
