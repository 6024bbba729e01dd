"""A real Dynamo worker (Backend SDK) with an engine whose right answers are all known (see `engines`).

Run this file as a module. `--mode` is the role of the worker behind a real `dynamo.frontend`:

- `agg` prefills and decodes.
- `prefill` computes the KV of a prompt and keeps it under an unguessable id. The worker serves each KV once, over TCP on loopback.
- `decode` fetches the KV bytes and generates the tokens that follow. The worker never looks at the prompt.

Promised: the tokens are right for the KV that the worker has, or the request fails. A KV fetch ends within `CONNECT_MAX_S` plus
`STALL_MAX_S`. A fetch that fails raises one of the exceptions that make a Dynamo frontend migrate the request. If a client leaves, the
worker notices at the next token. Migration needs no special code here: the frontend sends the prompt and the tokens so far as a new prompt.

Left to the SDK: discovery, the request plane, metrics, SIGTERM and drain. Left to the engine: the right tokens. The KV handle carries no
checksum on purpose. A wrong transfer must show as a wrong answer, because the property test looks for wrong answers.
"""

import argparse
import asyncio
import os
import secrets
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import uvloop
from dynamo.common.backend.engine import EngineConfig, LLMEngine, LlmRegistration
from dynamo.common.backend.worker import Worker, WorkerConfig
from dynamo.common.constants import DisaggregationMode
from dynamo.llm.exceptions import CannotConnect, ConnectionTimeout, Disconnected, InvalidArgument

from graphquake.harness.graphs import engines

# The address on which it listens for other workers: the one that Dynamo's runtime listens on, too.
HOST = os.environ.get("DYN_TCP_RPC_HOST", "127.0.0.1")
ID_BYTES = 16

# The limits of a KV fetch. A loopback connect takes well under 1 ms, and the KV of 64 tokens is one packet. Only a fetch from a worker that
# is stopped, or starved on a busy host, takes nearly as long as these limits. Their sum is below the error window of 2 s in the graph
# files.
CONNECT_MAX_S = 0.5
STALL_MAX_S = 1.0

# A KV that is never fetched (the client left, or the decode worker died) must not stay for ever. A decode worker fetches within
# milliseconds, and a migrated request makes a new KV. A terminated prefill worker waits for the KVs it holds, so a long time would also
# delay its exit. 4,096 KVs of 1 KiB each take 4 MiB.
KV_KEEP_S = 3.0
KV_KEEP_MAX = 4_096


class KvOutbox:
    """The KVs that a prefill worker holds until decode workers fetch them. Each KV can be fetched once, by its id, over TCP."""

    def __init__(self) -> None:
        self._held: OrderedDict[bytes, bytes] = OrderedDict()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def empty(self) -> bool:
        """True if the worker holds no KV that may still be fetched."""
        return not self._held

    async def open(self) -> None:
        """Listen on a free loopback port, and set `port` to its number."""
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stop listening and drop every held KV. Safe to call twice, or before `open`."""
        if self._server is not None:
            self._server.close()
        self._held.clear()

    def put(self, kv: bytes) -> dict[str, Any]:
        """Hold a KV until it is fetched, is older than `KV_KEEP_S`, or is the oldest of more than `KV_KEEP_MAX` KVs.

        Returns:
            The handle of the KV. A decode worker passes it to `fetch`.
        """
        handle_id = secrets.token_bytes(ID_BYTES)
        self._held[handle_id] = kv
        asyncio.get_running_loop().call_later(KV_KEEP_S, self._held.pop, handle_id, None)
        if len(self._held) > KV_KEEP_MAX:
            self._held.popitem(last=False)
        return {
            "kv_host": HOST,
            "kv_port": self.port,
            "kv_id": handle_id.hex(),
            "kv_bytes": len(kv),
        }

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read the id of a KV and send that KV. If the id is unknown or does not come in time, close the connection."""
        try:
            async with asyncio.timeout(STALL_MAX_S):
                kv = self._held.pop(await reader.readexactly(ID_BYTES), b"")
                writer.write(kv)
                await writer.drain()
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            writer.close()


async def fetch(handle: dict[str, Any]) -> bytes:
    """Fetch the KV that `handle` names from the prefill worker that holds it.

    Raises:
        CannotConnect: the prefill worker does not listen any more.
        ConnectionTimeout: the prefill worker does not accept within `CONNECT_MAX_S`, or does not send the KV within `STALL_MAX_S`.
        Disconnected: the prefill worker closed the connection early, because it died or no longer has this KV.
    """
    where = f"{handle['kv_host']}:{handle['kv_port']}"
    try:
        async with asyncio.timeout(CONNECT_MAX_S):
            reader, writer = await asyncio.open_connection(handle["kv_host"], handle["kv_port"])
    except TimeoutError as error:
        raise ConnectionTimeout(f"KV fetch: no connection to {where}") from error
    except OSError as error:
        raise CannotConnect(f"KV fetch: {where} refuses: {error}") from error
    try:
        async with asyncio.timeout(STALL_MAX_S):
            writer.write(bytes.fromhex(handle["kv_id"]))
            return await reader.readexactly(handle["kv_bytes"])
    except TimeoutError as error:
        raise ConnectionTimeout(f"KV fetch: {where} stalls") from error
    except (OSError, EOFError) as error:
        raise Disconnected(f"KV fetch: {where} closed early: {error}") from error
    finally:
        writer.close()


class DynamoWorker(LLMEngine):
    """The worker: connects an engine to Dynamo, in one of three roles: `agg`, `prefill` or `decode`."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._mode = DisaggregationMode(args.mode)
        self._model_path: str = args.model_path
        self._model_name: str = args.model_name
        self._engine = engines.engine_of(args)
        self._outbox = KvOutbox()

    @classmethod
    async def from_args(cls, argv: list[str] | None = None) -> tuple["DynamoWorker", WorkerConfig]:
        """Make a worker and its Dynamo settings from the command line and from Dynamo's own DYN_* environment variables."""
        parser = argparse.ArgumentParser(description="A Dynamo worker whose answers are known")
        parser.add_argument("--model-path", required=True)
        parser.add_argument("--model-name", default="tiny")
        parser.add_argument("--mode", choices=["agg", "prefill", "decode"], required=True)
        engines.add_options(parser)
        args = parser.parse_args(argv)
        if not (Path(args.model_path) / "tokenizer.json").is_file():
            # Dynamo would take a path that does not exist for the name of a model, and try to download that model.
            parser.error(f"--model-path: found {args.model_path}, expected a folder with a model")
        worker = cls(args)
        config = WorkerConfig(
            namespace=os.environ.get("DYN_NAMESPACE", "dynamo"),
            component="prefill" if args.mode == "prefill" else "backend",
            model_name=args.model_path,
            served_model_name=args.model_name,
            disaggregation_mode=worker._mode,
            enable_kv_routing=False,
            discovery_backend=os.environ.get("DYN_DISCOVERY_BACKEND", "file"),
            request_plane=os.environ.get("DYN_REQUEST_PLANE", "tcp"),
            event_plane=os.environ.get("DYN_EVENT_PLANE", "zmq"),
        )
        return worker, config

    async def start(self, worker_id: int) -> EngineConfig:
        """Start the engine. A prefill worker also opens its KV port. Returns the facts about the model that Dynamo needs."""
        del worker_id
        await self._engine.start()
        if self._mode is DisaggregationMode.PREFILL:
            await self._outbox.open()
        return EngineConfig(
            model=self._model_path,
            served_model_name=self._model_name,
            llm=LlmRegistration(
                context_length=4096,
                kv_cache_block_size=16,
                total_kv_blocks=16_384,
                max_num_seqs=256,
                max_num_batched_tokens=8192,
            ),
        )

    async def generate(self, request: Any, context: Any) -> AsyncGenerator[Any, None]:
        """Yield the answer to one request, one chunk a token. A prefill worker yields one chunk: the first token with the KV handle."""
        if self._mode is DisaggregationMode.DECODE:
            handle = handle_of(request)
            first, kv = handle["token"], await fetch(handle)
        else:
            first, kv = await self._prefill(request["token_ids"])
        if self._mode is DisaggregationMode.PREFILL:
            handle = self._outbox.put(kv) | {"token": first}
            yield chunk(first, last=True) | {"disaggregated_params": handle}
            return
        wanted = (request.get("stop_conditions") or {}).get("max_tokens") or 16
        made = 0
        async with aclosing(self._engine.decode(kv, first, wanted)) as tokens:
            async for token in tokens:
                made += 1
                if context.is_stopped():
                    yield {"token_ids": [], "index": 0, "finish_reason": "cancelled"}
                    return
                yield chunk(token, last=made == wanted)

    async def _prefill(self, prompt: list[int]) -> tuple[int, bytes]:
        try:
            return await self._engine.prefill(prompt)
        except ValueError as error:
            # The prompt has a token that the model does not have. Another worker could not answer either, so the frontend must not migrate.
            raise InvalidArgument(str(error)) from error

    async def is_quiescent(self) -> bool:
        """True if the worker holds no KV that may still be fetched. Then a draining prefill worker may exit."""
        return self._outbox.empty

    async def cleanup(self) -> None:
        """Close the KV port and end the engine."""
        self._outbox.close()
        await self._engine.close()


def handle_of(request: Any) -> dict[str, Any]:
    """Return the KV handle that the prefill worker put into its answer to this request.

    Raises:
        InvalidArgument: the request has no KV handle, because it did not go through a prefill worker.
    """
    params = (request.get("prefill_result") or {}).get("disaggregated_params")
    if not params:
        raise InvalidArgument("decode: found no prefill_result, expected a KV handle")
    return dict(params)


def chunk(token: int, *, last: bool) -> dict[str, Any]:
    """Return the chunk for one generated token, in the form of Dynamo's SDK. If `last` is true, the chunk also ends the answer."""
    if last:
        return {"token_ids": [token], "index": 0, "finish_reason": "length"}
    return {"token_ids": [token], "index": 0}


async def serve() -> None:
    """Run one worker until Dynamo's SDK ends it, e.g. after SIGTERM."""
    worker, config = await DynamoWorker.from_args()
    await Worker(worker, config).run()


if __name__ == "__main__":
    uvloop.run(serve())
