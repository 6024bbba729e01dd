"""The parts of `Target` that need pods, for targets without them: actions that never land, and no notices of a cluster."""

from __future__ import annotations

import time
from collections.abc import Sequence

from graphquake.harness.history.notices import Notice
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Landed

WHY = "the graph does not live in a cluster"


class NoCluster:
    """See `ClusterActions`. Steps of a cluster are not possible for such a graph, so that none of these actions is asked for."""

    async def scale(self, role: str, replicas: int) -> Landed:
        """See `ClusterActions.scale`."""
        return _not_landed(f"{role} to {replicas}")

    async def unscale(self, role: str) -> Landed:
        """See `ClusterActions.unscale`."""
        return _not_landed(role)

    async def rollout(self, role: str) -> Landed:
        """See `ClusterActions.rollout`."""
        return _not_landed(role)

    async def cordon(self, replica: Replica) -> Landed:
        """See `ClusterActions.cordon`."""
        return _not_landed(str(replica))

    async def uncordon(self, replica: Replica) -> Landed:
        """See `ClusterActions.uncordon`."""
        return _not_landed(str(replica))


def _not_landed(what: str) -> Landed:
    return Landed(ok=False, proof=f"{what}: {WHY}", at_s=time.monotonic())


class NoPods:
    """The parts of `Target` that need pods. No step asks for the actions: its kind does not fit the roles."""

    async def delete(self, replica: Replica, grace_s: int | None) -> Landed:
        """See `Actions.delete`."""
        del grace_s
        return Landed(ok=False, proof=f"{replica} is not a pod", at_s=time.monotonic())

    @property
    def cluster(self) -> NoCluster:
        """See `Actions.cluster`."""
        return NoCluster()

    @property
    def notices(self) -> Sequence[Notice]:
        """See `Target.notices`."""
        return ()

    @property
    def disturbed(self) -> None:
        """See `Target.disturbed`. Nothing lies between clients and replicas."""
        return None
