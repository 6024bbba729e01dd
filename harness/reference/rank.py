"""One rank of an engine: a process that holds its share of the model and carries out the commands of its worker.

It reads commands from a socket that it inherits and ends when that socket does. Ranks add up their partial sums through sockets, too:
rank 0 collects, adds and returns them. All calls block, because a rank has nothing else to do. An idle rank uses no CPU.

Run by `engine`, as a module.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

# numpy uses one thread in each rank, because the matrices are small and all ranks share the cores.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402 - numpy reads these variables when it is imported

from graphquake.harness.reference import model  # noqa: E402

HEAD: Final = struct.Struct(">II")
_PR_SET_NAME: Final = 15


def receive(source: socket.socket, size: int) -> bytes:
    """Read exactly `size` bytes from a socket.

    Raises:
        EOFError: if the other side is gone.
    """
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        count = source.recv_into(view[got:])
        if not count:
            raise EOFError
        got += count
    return bytes(data)


def receive_frame(source: socket.socket) -> tuple[dict[str, Any], bytes]:
    """Read one frame in the format of `wire`. Returns its message and the bytes after the message."""
    head, body = HEAD.unpack(receive(source, HEAD.size))
    message: dict[str, Any] = json.loads(receive(source, head))
    return message, receive(source, body)


def send_frame(sink: socket.socket, message: dict[str, Any], body: bytes = b"") -> None:
    """Send one frame in the format of `wire`: a message and bytes after it."""
    head = json.dumps(message).encode()
    sink.sendall(HEAD.pack(len(head), len(body)) + head + body)


def reducer(backend: model.Backend, peers: list[socket.socket], rank: int) -> model.Reduce:
    """Return the function that adds up the partial sums of all ranks. Each rank has to call it with arrays of the same shape.

    Args:
        backend: the library and the device of the arrays.
        peers: the sockets to other ranks. Rank 0 has one to each other rank. Every other rank has one, to rank 0.
        rank: the number of this rank.
    """
    if not peers:
        return lambda partial: partial

    def reduce(partial: model.Array) -> model.Array:
        mine = backend.numpy(partial)
        if rank:
            peers[0].sendall(mine.tobytes())
            summed = receive(peers[0], mine.nbytes)
        else:
            parts = [
                np.frombuffer(receive(peer, mine.nbytes)).reshape(mine.shape) for peer in peers
            ]
            summed = (sum(parts, mine) % model.P).tobytes()
            for peer in peers:
                peer.sendall(summed)
        return backend.array(np.frombuffer(summed).reshape(mine.shape))

    return reduce


class Rank:
    """One rank: carries out the commands of its worker on its share of the model.

    Args:
        shard: the share of the model.
        control: the socket to the worker. Commands come from it, and answers go to it.
    """

    def __init__(self, shard: model.Shard, control: socket.socket) -> None:
        self.shard = shard
        self._control = control

    def run(self) -> None:
        """Carry out commands until the worker closes the socket, which raises EOFError or ConnectionError."""
        send_frame(self._control, {"ready": os.getpid()})
        while True:
            message, body = receive_frame(self._control)
            match message["do"]:
                case "prefill":
                    token, share = self.shard.prefill(message["tokens"])
                    send_frame(self._control, {"token": token}, share)
                case "load":
                    self.shard.load(message["slot"], body)
                case "step":
                    tokens = self.shard.step(
                        message["slots"], message["tokens"], message["positions"]
                    )
                    send_frame(self._control, {"tokens": tokens})


def main(kind: type[Rank] = Rank, argv: Sequence[str] | None = None) -> None:
    """Run one rank until its worker closes the control socket or dies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--tp", type=int, required=True)
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--control", type=int, required=True, help="a file descriptor")
    parser.add_argument("--peers", default="", help="file descriptors, with commas")
    options = parser.parse_args(argv)
    ctypes.CDLL(None).prctl(_PR_SET_NAME, b"gq-rank", 0, 0, 0)
    control = socket.socket(fileno=options.control)
    peers = [socket.socket(fileno=int(one)) for one in options.peers.split(",") if one]
    try:
        backend = model.Backend(options.backend, options.device, options.rank)
    except RuntimeError as error:
        send_frame(control, {"error": str(error)})
        sys.exit(1)
    shard = model.Shard(
        backend,
        options.seed,
        options.rank,
        options.tp,
        options.slots,
        reducer(backend, peers, options.rank),
    )
    with suppress(EOFError, ConnectionError):
        kind(shard, control).run()


if __name__ == "__main__":
    main()
