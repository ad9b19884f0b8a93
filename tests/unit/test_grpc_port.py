"""spec.model.grpcPort, from the manifest to the sidecar's command line."""

from __future__ import annotations

import msgspec
import pytest
from tests.manifests import changed, good

from coalmine_operator.api.decode import Invalid, decode
from coalmine_operator.engine.revisions import target_of
from coalmine_operator.render.container import local_container
from coalmine_operator.render.injection import Identity, InjectionSettings, inject
from coalmine_sidecar.settings import read_settings


def revision(manifest: dict[str, object]) -> str:
    document = decode(manifest)
    return target_of(document.metadata, document.spec, 0.0).name


def test_another_port_is_another_revision_and_none_changes_nothing():
    assert revision(changed("spec.model.grpcPort", None)) == revision(good())
    assert revision(changed("spec.model.grpcPort", 8001)) != revision(good())


@pytest.mark.parametrize("port", [0, 65536, "8001"])
def test_no_port(port):
    with pytest.raises(Invalid, match=r"spec\.model\.grpcPort"):
        decode(changed("spec.model.grpcPort", port))


def test_the_sidecar_is_told():
    identity = Identity(revision="r", port=8080, grpc_port=8001, drain_key="k", secret="s")
    pod = {"spec": {"containers": [{"name": "model", "image": "m"}]}}
    (sidecar,) = inject(pod, InjectionSettings(image="i"), identity=identity).pod["spec"]["initContainers"]
    settings = read_settings(sidecar["args"], {})
    assert (settings.model, settings.model_grpc) == (("127.0.0.1", 8080), ("127.0.0.1", 8001))
    with pytest.raises(Invalid, match="8008"):
        inject(pod, InjectionSettings(image="i"), identity=msgspec.structs.replace(identity, grpc_port=8008))


def test_a_laptop_says_that_it_has_no_use_for_it():
    document = decode(changed("spec.model.grpcPort", 8001))
    ignored = local_container(document.spec.template, model=document.spec.model).ignored
    assert any(line.startswith("spec.model.grpcPort: ignored") for line in ignored)
