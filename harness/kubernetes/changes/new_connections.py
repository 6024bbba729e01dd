"""Try a new TCP connection from inside a pod: with Python if its image has it, and otherwise with a shell.

The shell needs `bash` and `timeout`, or `nc`. Only Python and `bash` tell a refusal from silence.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, TypeAlias, cast

from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.shell import run
from graphquake.harness.kubernetes.pods import Pod

# `refused` also stands for an end whose cause is not clear.
Outcome: TypeAlias = Literal["connected", "refused", "silent"]
# The time limit for a connection, in whole seconds, as `nc` needs it. The kernel of the other pod answers within milliseconds.
CONNECT_WITHIN_S: Final = 1
# The time limit for the command besides. A busy node needs long to start a process.
EXEC_WITHIN_S: Final = 10.0
PYTHON: Final = """
import socket, sys
host, limit, *ports = sys.argv[1:]
for port in ports:
    try:
        socket.create_connection((host, int(port)), float(limit)).close()
        said = "connected"
    except ConnectionRefusedError:
        said = "refused"
    except OSError:
        said = "silent"
    print(port, said)
    if said == "connected":
        break
"""
SHELL: Final = """
host=$1 limit=$2
shift 2
has() { command -v "$1" > /dev/null; }
for port; do
    if has bash && has timeout; then
        timeout "$limit" bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$host" "$port" 2> /dev/null
    elif has nc; then
        nc -z -w "$limit" "$host" "$port" < /dev/null > /dev/null 2>&1
    else
        exit 127
    fi
    case $? in
        0) echo "$port connected"; exit 0 ;;
        124 | 143) echo "$port silent" ;;
        *) echo "$port refused" ;;
    esac
done
"""
# The command could not be started: by the API server's own word, or by the status of a shell.
_NOT_STARTED: Final = (-1, 126, 127)


async def connect(
    client: Client, pod: Pod, address: str, ports: Iterable[int]
) -> tuple[int, Outcome]:
    """Try a new connection from a pod to each port, until one is accepted.

    Args:
        client: the API server.
        pod: the pod that connects.
        address: the address to connect to.
        ports: the ports, at least one.

    Returns:
        The last port that was tried, and what came of it.

    Raises:
        ApiError: if the pod can't try it.
    """
    tried = [str(one) for one in ports]
    asked = [address, str(CONNECT_WITHIN_S), *tried]
    within_s = EXEC_WITHIN_S + CONNECT_WITHIN_S * len(tried)
    for argv in (["python3", "-I", "-S", "-c", PYTHON], ["sh", "-c", SHELL, "sh"]):
        ran = await run(client, pod.namespace, pod.name, pod.container, [*argv, *asked], within_s)
        lines = ran.out.split("\n")[:-1]
        if ran.status == 0 and lines:
            port, outcome = lines[-1].split()
            return int(port), cast("Outcome", outcome)
        if ran.status not in _NOT_STARTED:
            raise ApiError(f"the try of a connection in pod {pod.name} failed: {(ran.err or ran.out).strip()[-200:]}")  # fmt: skip
    tools = "neither python3, nor sh with bash and timeout or with nc"
    raise ApiError(f"pod {pod.name} has {tools}, so it can't try a connection")
