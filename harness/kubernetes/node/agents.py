"""The agents of one graph: a pod on each node that holds a replica, made when it is first needed, and removed at the end.

The pods carry the id of the run. They end by themselves half a minute after the harness is gone, and `sweep` removes those that have ended.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from graphquake.harness.errors import GraphError, InputError
from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.objects import PODS, Json
from graphquake.harness.kubernetes.api.shell import Shell, shell
from graphquake.harness.kubernetes.changes.records import Owner, Record, record_of
from graphquake.harness.kubernetes.node.bundle import bundle
from graphquake.harness.kubernetes.node.container_limits import PLACES
from graphquake.harness.kubernetes.pods import read_pod

# The label of everything that a run creates. Its value is the id of the run.
RUN: Final = "graphquake/run"
# The time limit for a node to start an agent. It may have to fetch the image.
START_WITHIN_S: Final = 120.0
# The longest life of an agent's pod, whatever happens.
LIFE_MAX_S: Final = 24 * 3600
# The harness says a word this often. An agent that hears none for three seconds undoes everything.
WORD_EVERY_S: Final = 0.5
ANSWER_WITHIN_S: Final = 10.0
REMOVED_WITHIN_S: Final = 3.0
POLL_S: Final = 0.05
CONTAINER: Final = "agent"
# The source is in the environment of the pod, because the command line of an `exec` is part of a URL.
SOURCE: Final = "GRAPHQUAKE_AGENT"
RUN_SOURCE: Final = f"import os; exec(compile(os.environ['{SOURCE}'], 'agent.py', 'exec'))"


# What the agent needs for kills and stalls, and what else it needs to enter the network of a pod and to make a device there.
CAPABILITIES: Final = ("KILL", "SYS_PTRACE")
OF_NETWORK: Final = ("NET_ADMIN", "NET_RAW", "SYS_ADMIN")


class Answer(NamedTuple):
    """What an agent says to an order.

    Attributes:
        ok: true if it was carried out.
        proof: the proof, or the reason why it was not carried out.
        result: the result, if the order has one.
    """

    ok: bool
    proof: str
    result: Any


def manifest(
    namespace: str, node: str, image: str, run: str, capabilities: Iterable[str] = CAPABILITIES
) -> Json:
    """Return the pod of an agent.

    Args:
        namespace: the namespace of the graph.
        node: the node whose processes the agent reaches.
        image: an image with Python 3.11 or later.
        run: the id of the run.
        capabilities: the capabilities of the agent.
    """
    name = f"graphquake-agent-{run}-{secrets.token_hex(3)}"
    container = {
        "name": CONTAINER,
        "image": image,
        "command": ["python3", "-u", "-c", RUN_SOURCE, "keep", f"/tmp/{name}"],  # noqa: S108 # of the agent's own container
        "env": [{"name": SOURCE, "value": bundle()}],
        "volumeMounts": [{"name": "cgroup", "mountPath": str(PLACES[0])}],
        "securityContext": {"runAsUser": 0, "capabilities": {"add": [*capabilities]}},
    }
    spec = {
        "hostPID": True,
        "nodeName": node,
        "restartPolicy": "Never",
        "activeDeadlineSeconds": LIFE_MAX_S,
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
        "volumes": [{"name": "cgroup", "hostPath": {"path": "/sys/fs/cgroup"}}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {RUN: run},
            "annotations": Record("", None, None, Owner.here(), time.time()).marks(run)[
                "annotations"
            ],
        },
        "spec": spec,
    }


class Session:
    """The connection to one agent."""

    def __init__(self, begun: Shell) -> None:
        self._shell = begun
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[Answer]] = {}

    async def ask(self, do: str, **asked: Any) -> Answer:
        """Give an order, and return the answer.

        Raises:
            ApiError: if the connection is lost, or no answer comes in time.
        """
        number = next(self._numbers)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            await self._shell.write(json.dumps({"id": number, "do": do, **asked}).encode() + b"\n")
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await answer
        except TimeoutError:
            raise ApiError(f"the agent did not answer to {do} within {ANSWER_WITHIN_S:g} s") from None  # fmt: skip
        finally:
            del self._answers[number]

    async def talk(self) -> None:
        """Say a word now and then, and hear the answers, until the connection is lost.

        Raises:
            ApiError: when it is lost.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._say())
            tasks.create_task(self._hear())

    async def _say(self) -> None:
        while True:
            await asyncio.sleep(WORD_EVERY_S)
            await self.ask("nothing")

    async def _hear(self) -> None:
        rest = b""
        async for data in self._shell.read():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                said = json.loads(line)
                answer = self._answers.get(said["id"])
                if answer is not None and not answer.done():
                    answer.set_result(Answer(said["ok"], said["proof"], said["result"]))
        raise ApiError(f"the connection to an agent is lost {self._shell.err.strip()[-200:]}".strip())  # fmt: skip


class Agents:
    """The agents of one graph. `close` it.

    Args:
        client: the API server.
        namespace: the namespace of the graph.
        image: the image of the agents.
        capabilities: the capabilities of the agents.
        lost: is called if the connection to an agent is lost.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        image: str,
        capabilities: Iterable[str],
        lost: Callable[[GraphError], None],
    ) -> None:
        self.run = secrets.token_hex(4)
        self._client = client
        self._namespace = namespace
        self._image = image
        self._capabilities = tuple(capabilities)
        self._lost = lost
        self._made: list[Json] = []
        self._sessions: dict[str, asyncio.Future[Session]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def at(self, node: str) -> Session:
        """Return the connection to the agent of a node. Make the agent, if there is none yet.

        Raises:
            ApiError: if it can't be made, or does not start.
        """
        if node not in self._sessions:
            self._sessions[node] = asyncio.get_running_loop().create_future()
            task = asyncio.get_running_loop().create_task(self._serve(node))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(self._sessions[node])

    async def ready_at(self, nodes: Iterable[str]) -> None:
        """Make the agents of some nodes, so that the first fault need not wait for one.

        Raises:
            InputError: if the API server refuses the pod of an agent.
            ApiError: if an agent does not start.
        """
        nodes = list(nodes)
        for node in nodes[:1]:
            pod = self._manifest(node)
            try:
                await self._client.create(PODS, pod, dry=True)
            except ApiError as error:
                raise InputError(f"kubernetes.agent: a dry run of its pod: {error}") from None
        await asyncio.gather(*map(self.at, nodes))

    async def close(self) -> None:
        """End all connections, so that the agents undo everything, and remove their pods."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # If the API server is away, the pods end by themselves, and the next start removes them.
        with suppress(TimeoutError):
            async with asyncio.timeout(REMOVED_WITHIN_S):
                for made in self._made:
                    with suppress(ApiError):
                        await self._client.delete(PODS, made, grace_s=0)

    def _manifest(self, node: str) -> Json:
        return manifest(self._namespace, node, self._image, self.run, self._capabilities)

    async def _serve(self, node: str) -> None:
        opened = self._sessions[node]
        try:
            made = await self._client.create(PODS, self._manifest(node))
            self._made.append(made)
            name = made["metadata"]["name"]
            await self._until_runs(name)
            argv = ["python3", "-u", "-c", RUN_SOURCE, "serve", f"/tmp/{name}"]  # noqa: S108 # of the agent's own container
            async with shell(self._client, self._namespace, name, CONTAINER, argv) as begun:
                session = Session(begun)
                opened.set_result(session)
                await session.talk()
        except (ApiError, ExceptionGroup) as error:
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            if not opened.done():
                opened.set_exception(error)
            else:
                self._lost(GraphError(f"node {node}: {error}"))

    async def _until_runs(self, name: str) -> None:
        until_s = time.monotonic() + START_WITHIN_S
        while True:
            pod = read_pod(await self._client.get(PODS, self._namespace, name))
            if pod.runs:
                return
            if pod.over or time.monotonic() > until_s:
                raise ApiError(f"the agent {name} does not run: {pod.waits_for}. Its image needs Python 3.11 or later")  # fmt: skip
            await asyncio.sleep(POLL_S)


def _is_orphan(item: Json) -> bool:
    record = record_of(item)
    return record is not None and record.owner.lives() is False


async def sweep(client: Client, namespace: str) -> list[str]:
    """Remove the agents that have ended, or whose run was killed on this machine, and return their names.

    Another agent that runs may belong to a run that goes on elsewhere. It ends by itself if that run was killed.
    """
    found = await client.list_all(PODS, namespace, labels=RUN)
    over = [item for item in found.items if read_pod(item).over or _is_orphan(item)]
    return [item["metadata"]["name"] for item in over if await client.delete(PODS, item, grace_s=0)]
