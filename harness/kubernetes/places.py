"""Which pod is which replica: pods come and go, and replicas keep their numbers.

A role has a fixed number of places. A pod takes a free place, and keeps it until it is gone. While a deleted pod still shuts down, its
replacement may run already: it waits until the place is free. So a place never holds two lives at once. A pod beyond the number of places,
e.g. during a rollout, is in no place yet.

This module is a pure function of what the cluster says, so it is the same whether changes are seen one by one or several at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from graphquake.harness.kubernetes.pods import Ended, Pod

What: TypeAlias = Literal["began", "ready", "ended"]


class Happening(NamedTuple):
    """A change at one place.

    Attributes:
        what: a life `began`, was first `ready`, or `ended`.
        number: the number of the replica.
        pod: the pod, as it is now or was last.
        end: how the life ended, or None if nobody knows. Only for `ended`.
    """

    what: What
    number: int
    pod: Pod
    end: Ended | None = None


@dataclass(slots=True)
class Place:
    """One place: the pod in it, and the life that runs there.

    Attributes:
        pod: the pod in this place, as it was seen last. None if the place is free.
        life: the container id of the life that runs, or empty if none does.
        was_ready: true if this life has been ready.
    """

    pod: Pod | None = None
    life: str = ""
    was_ready: bool = False


@dataclass(slots=True)
class Places:
    """The places of one role.

    Args:
        count: the number of replicas.

    Attributes:
        unplaced: the pods that were in no place at the last update.
    """

    count: int
    places: list[Place] = field(init=False)
    unplaced: list[Pod] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.places = [Place() for _ in range(self.count)]

    def update(self, pods: Iterable[Pod]) -> list[Happening]:
        """Take over what the cluster says now. Return what has happened since the last call, deaths first.

        Args:
            pods: all pods of the role, in any order.
        """
        now = {pod.uid: pod for pod in pods}
        happened: list[Happening] = []
        for index, place in enumerate(self.places):
            happened += self._followed(index, place, now)
        held = {place.pod.uid for place in self.places if place.pod}
        new = [pod for pod in now.values() if pod.uid not in held and not pod.over]
        # A pod that was deleted before it was ever seen in a place is never a replica.
        waiting = sorted((p for p in new if not p.deleting), key=lambda p: (p.created, p.name))
        for index, place in enumerate(self.places):
            if place.pod is None and waiting:
                place.pod = waiting.pop(0)
                happened += self._begun(index, place)
        held = {place.pod.uid for place in self.places if place.pod}
        self.unplaced = [pod for pod in new if pod.uid not in held]
        return happened

    def _followed(self, index: int, place: Place, now: dict[str, Pod]) -> Iterator[Happening]:
        if place.pod is None:
            return
        before, pod = place.pod, now.get(place.pod.uid)
        if place.life and (pod is None or pod.container_id != place.life or not pod.runs):
            end = (pod or before).end_of(place.life)
            place.life = ""
            yield Happening("ended", index, pod or before, end)
        place.pod = pod if pod is not None and not pod.over else None
        yield from self._begun(index, place)

    def _begun(self, index: int, place: Place) -> Iterator[Happening]:
        pod = place.pod
        if pod is None or not pod.runs:
            return
        if not place.life:
            place.life, place.was_ready = pod.container_id, False
            yield Happening("began", index, pod)
        if pod.ready and not place.was_ready:
            place.was_ready = True
            yield Happening("ready", index, pod)
