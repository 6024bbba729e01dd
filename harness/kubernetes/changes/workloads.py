"""Find the workload behind the pods of a role: the object whose controller creates and deletes them, and how it is told to restart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.objects import (
    DAEMON_SETS,
    DEPLOYMENTS,
    REPLICA_SETS,
    STATEFUL_SETS,
    Json,
    Resource,
    labels_of,
    name_of,
    owner_of,
    version_of,
)
from graphquake.harness.kubernetes.pods import Pod

EXPECTED: Final = "expected a Deployment, a StatefulSet or a DaemonSet"
# Both versions of this kind describe the same objects. The first one has a table of components, the second one a list.
GRAPHS: Final = tuple(
    Resource("nvidia.com", version, "dynamographdeployments", "DynamoGraphDeployment")
    for version in ("v1alpha1", "v1beta1")
)
COMPONENT: Final = "nvidia.com/dynamo-component"


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload.

    Attributes:
        resource: its kind.
        item: the object.
        component: the component of a `DynamoGraphDeployment`. Empty for other kinds.
    """

    resource: Resource
    item: Json
    component: str = ""

    def __str__(self) -> str:
        """Return the kind, the name, and the component if there is one."""
        text = f"{self.resource.kind} {name_of(self.item)}"
        return f"{text}, component {self.component}" if self.component else text

    @property
    def scales(self) -> bool:
        """True if it has a number of replicas."""
        return self.resource in {DEPLOYMENTS, STATEFUL_SETS}

    def why_no_restart(self) -> str:
        """Return the reason why a changed template restarts nothing, or an empty text."""
        spec = self.item["spec"]
        if spec.get("paused"):
            return f"{self} is paused (spec.paused), so nothing restarts"
        if (spec.get("updateStrategy") or {}).get("type") == "OnDelete":
            return f"{self} waits for deletes (spec.updateStrategy is OnDelete), so nothing restarts"  # fmt: skip
        return ""

    def marked(self, annotations: Json) -> Json:
        """Return the merge patch that writes annotations into the template of the pods."""
        meta = {"annotations": annotations}
        if self.resource not in GRAPHS:
            return {"spec": {"template": {"metadata": meta}}}
        if self.resource == GRAPHS[0]:
            return {"spec": {"services": {self.component: {"extraPodMetadata": meta}}}}
        # A merge patch replaces a list as a whole. The version refuses it if another client has changed the object meanwhile.
        every = [self._with_mark(one, annotations) for one in self.item["spec"]["components"]]
        version = {"resourceVersion": version_of(self.item)}
        return {"metadata": version, "spec": {"components": every}}

    def _with_mark(self, component: Json, annotations: Json) -> Json:
        if component["name"] != self.component:
            return component
        template: Json = component.get("podTemplate") or {}
        meta: Json = template.get("metadata") or {}
        meta = {**meta, "annotations": {**(meta.get("annotations") or {}), **annotations}}
        return {**component, "podTemplate": {**template, "metadata": meta}}


async def workload_of(client: Client, pod: Pod, graph: str = "") -> Workload | str:
    """Return the workload behind a pod, or the reason why there is none.

    Args:
        client: the API server.
        pod: the pod.
        graph: the name of the `DynamoGraphDeployment` of which the pod is a part, or an empty text. Its operator keeps all below it.

    Raises:
        ApiError: if the API server refuses to tell.
    """
    if graph:
        return await _graph_of(client, pod, graph)
    kind, name = owner_of(pod.item)
    if not kind:
        return f"pod {pod.name} has no controller, {EXPECTED}"
    try:
        for resource in (STATEFUL_SETS, DAEMON_SETS):
            if kind == resource.kind:
                return Workload(resource, await client.get(resource, pod.namespace, name))
        if kind != REPLICA_SETS.kind:
            return f"the controller of pod {pod.name} is {kind} {name}, {EXPECTED}"
        kind, above = owner_of(await client.get(REPLICA_SETS, pod.namespace, name))
        if kind != DEPLOYMENTS.kind:
            return f"the controller of pod {pod.name} is ReplicaSet {name}, {EXPECTED}"
        return Workload(DEPLOYMENTS, await client.get(DEPLOYMENTS, pod.namespace, above))
    except ApiError as error:
        if error.is_missing:
            return f"the controller of pod {pod.name} is gone"
        raise


async def _graph_of(client: Client, pod: Pod, name: str) -> Workload | str:
    component = labels_of(pod.item).get(COMPONENT, "")
    for resource in GRAPHS:
        try:
            item = await client.get(resource, pod.namespace, name)
        except ApiError as error:
            if error.is_missing:
                continue
            raise
        spec = item["spec"]
        known = spec.get("services") or [one["name"] for one in spec.get("components") or []]
        if component in known:
            return Workload(resource, item, component)
        return f"DynamoGraphDeployment {name} has no component {component}"
    return f"DynamoGraphDeployment {name} is gone"
