"""ModelDeployments: checked as `coalmine lint` checks them, and stamped with who gave an order.

Only what the manifest alone can tell is refused here; what needs a look at the cluster becomes a condition.
"""

from __future__ import annotations

from typing import Any

from ..api.decode import decode
from ..api.problems import ROOT, Invalid, show
from ..render import patch
from ..render.advice import advice
from ..render.injection import InjectionSettings
from ..render.manifests import problems
from ..render.orders import stamp
from .review import Review, allow, deny


def validate(review: Review, settings: InjectionSettings) -> dict[str, Any]:
    """Refuses a spec that is wrong, and warns of what is hardly meant.

    What is on its way out, or keeps the spec it had, passes: rules that came later must block no finalizer, no order
    and no label.
    """
    if review.operation not in ("CREATE", "UPDATE"):
        return allow(review)
    new, old = review.object, review.old_object
    if not isinstance(new, dict):
        return deny(review, [f"{ROOT}: {show(new)} is no mapping"])
    metadata = new.get("metadata")
    if isinstance(metadata, dict) and metadata.get("deletionTimestamp"):
        return allow(review)
    if isinstance(old, dict) and "spec" in old and old["spec"] == new.get("spec"):
        return allow(review)
    try:
        deployment = decode({**new, "status": {}})
    except Invalid as error:
        return deny(review, [str(problem) for problem in error.problems])
    found = problems(deployment.metadata, deployment.spec, settings)
    if found:
        return deny(review, [str(problem) for problem in found])
    return allow(review, warnings=tuple(advice(deployment.spec)))


def stamp_orders(review: Review) -> dict[str, Any]:
    """Records in an annotation who set the annotations that are orders. See `render.orders`."""
    new = review.object
    if review.operation not in ("CREATE", "UPDATE") or not isinstance(new, dict):
        return allow(review)
    before, after = _annotations(review.old_object), _annotations(new)
    stamped = stamp(before, after, review.user_info.username)
    if stamped == after:
        return allow(review)
    metadata = {**new["metadata"], "annotations": stamped}
    return allow(review, patch=patch.diff(new, {**new, "metadata": metadata}))


def _annotations(of: Any) -> dict[str, Any]:
    metadata = of.get("metadata") if isinstance(of, dict) else None
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    return annotations if isinstance(annotations, dict) else {}
