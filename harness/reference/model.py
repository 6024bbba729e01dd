"""A small decoder-only transformer whose answers are exactly known.

The model has the usual parts: embeddings, layers of causal multi-head attention and MLP with residuals, a KV cache, and greedy decoding.
Only the arithmetic is unusual. Every number is an integer modulo the prime `P`, stored as float64. Sums of products of such numbers are
exact. So a matmul gives the same result in numpy and in torch, on a CPU and on a GPU. The result does not depend on the batch, on the order
of additions, or on the number of tensor-parallel ranks. So each prompt has one right answer, and every token of an answer can be checked.

Attention weights are a polynomial of q·k instead of a softmax, and the MLP cubes its hidden values. Nothing is rounded. So every entry of
the KV of every position affects every token that follows. If a KV was corrupted, cut, shifted or mixed up with the KV of another request,
the text is wrong. A wrong state still gives a right token by chance, once in 62 times.

With `tp` ranks, each rank holds its share of the heads and of the MLP's columns. The function `reduce` adds up the partial sums of all
ranks. `expected` is the oracle: it computes the same function with integers, in separate code without batches, shares or KV bytes.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np

# The largest prime below 2^16: an entry takes two bytes, and 2^21 products can be added up in float64 without a loss.
P: Final = 65521
ALPHABET: Final = (string.ascii_letters + string.digits).encode()
WIDTH: Final = 64
HEADS: Final = 4
HEAD_WIDTH: Final = WIDTH // HEADS
HIDDEN: Final = 128
LAYERS: Final = 2
CONTEXT_MAX: Final = 4096
VOCABULARY: Final = 256
ENTRY_BYTES: Final = 2
# The size of the KV of one position: a key and a value for each layer.
POSITION_BYTES: Final = LAYERS * 2 * WIDTH * ENTRY_BYTES

# An array of numpy or torch. This module uses only operations that both libraries have.
Array: TypeAlias = Any
Reduce: TypeAlias = Callable[[Array], Array]


class Backend:
    """The library and the device that arrays use: numpy on the CPU, or torch on a device.

    Args:
        name: `numpy` or `torch`.
        device: the device for torch: `cpu`, `cuda`, or one GPU such as `cuda:1`. Without effect for numpy.
        rank: the number of the rank in its engine. If `device` is `cuda`, this number chooses one of the GPUs.

    Raises:
        RuntimeError: if torch or the device is missing. The message says what to do.
    """

    def __init__(self, name: str = "numpy", device: str = "cuda", rank: int = 0) -> None:
        self._device = device
        self._torch: Any = None
        if name == "numpy":
            return
        try:
            import torch  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - seconds
        except ImportError:
            raise RuntimeError(
                "the torch backend needs torch: pip install torch, or use --backend numpy"
            ) from None
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise RuntimeError(
                f"device {device}: torch sees no GPU; use --devices cpu or --backend numpy"
            )
        if device == "cuda":
            self._device = f"cuda:{rank % torch.cuda.device_count()}"
        self._torch = torch

    def array(self, values: np.ndarray[Any, Any]) -> Array:
        """Make a float64 array of these values, on the device."""
        if self._torch is None:
            return values.astype(np.float64)
        return self._torch.as_tensor(values.astype(np.float64), device=self._device)

    def zeros(self, *shape: int) -> Array:
        """Make a float64 array of zeros with this shape, on the device."""
        if self._torch is None:
            return np.zeros(shape)
        return self._torch.zeros(shape, dtype=self._torch.float64, device=self._device)

    def indices(self, values: Sequence[int]) -> Array:
        """Make an int64 array of these values, to index other arrays."""
        if self._torch is None:
            return np.asarray(values, dtype=np.int64)
        return self._torch.as_tensor(list(values), dtype=self._torch.int64, device=self._device)

    def numpy(self, array: Array) -> np.ndarray[Any, Any]:
        """Convert an array to numpy."""
        found: np.ndarray[Any, Any] = array if self._torch is None else array.detach().cpu().numpy()
        return found


@dataclass(frozen=True, slots=True)
class Weights:
    """All weights of the model, as integers from 0 to `P` - 1. The shapes of the arrays are:

    Attributes:
        token: (VOCABULARY, WIDTH); position: (CONTEXT_MAX, WIDTH); out: (WIDTH, letters of the alphabet).
        q, k, v: (LAYERS, HEADS, WIDTH, HEAD_WIDTH); o: (LAYERS, HEADS, HEAD_WIDTH, WIDTH).
        up: (LAYERS, WIDTH, HIDDEN); down: (LAYERS, HIDDEN, WIDTH).
    """

    token: np.ndarray[Any, Any]
    position: np.ndarray[Any, Any]
    q: np.ndarray[Any, Any]
    k: np.ndarray[Any, Any]
    v: np.ndarray[Any, Any]
    o: np.ndarray[Any, Any]
    up: np.ndarray[Any, Any]
    down: np.ndarray[Any, Any]
    out: np.ndarray[Any, Any]


@lru_cache(maxsize=4)
def weights_of(seed: int) -> Weights:
    """Return the weights for a seed. They are the same in every version of numpy."""
    bits = np.random.PCG64(seed)

    def draw(*shape: int) -> np.ndarray[Any, Any]:
        raw = np.asarray(bits.random_raw(int(np.prod(shape))))
        return (raw % P).astype(np.int64).reshape(shape)

    projection = (LAYERS, HEADS, WIDTH, HEAD_WIDTH)
    return Weights(
        token=draw(VOCABULARY, WIDTH),
        position=draw(CONTEXT_MAX, WIDTH),
        q=draw(*projection),
        k=draw(*projection),
        v=draw(*projection),
        o=draw(LAYERS, HEADS, HEAD_WIDTH, WIDTH),
        up=draw(LAYERS, WIDTH, HIDDEN),
        down=draw(LAYERS, HIDDEN, WIDTH),
        out=draw(WIDTH, len(ALPHABET)),
    )


class Shard:
    """The share of the model that one rank holds, with a KV cache that has one slot for each sequence of the batch.

    Args:
        backend: the library and the device of the arrays.
        seed: the seed of the weights.
        rank: the number of this share, from 0.
        tp: the number of shares. It divides `HEADS`.
        slots: the number of slots of the KV cache.
        reduce: takes the partial sum of this rank, and returns the sum over all ranks.
    """

    def __init__(
        self, backend: Backend, seed: int, rank: int, tp: int, slots: int, reduce: Reduce
    ) -> None:
        if HEADS % tp:
            raise ValueError(f"tp: found {tp}, expected a divisor of {HEADS}")
        whole, self._backend, self._reduce = weights_of(seed), backend, reduce
        self.heads = HEADS // tp
        mine = slice(rank * self.heads, (rank + 1) * self.heads)
        columns = slice(rank * HIDDEN // tp, (rank + 1) * HIDDEN // tp)
        self._token = backend.array(whole.token)
        self._position = backend.array(whole.position)
        self._q, self._k, self._v, self._o = (
            backend.array(part[:, mine]) for part in (whole.q, whole.k, whole.v, whole.o)
        )
        self._up = backend.array(whole.up[:, :, columns])
        self._down = backend.array(whole.down[:, columns])
        self._out = backend.array(whole.out)
        # Added to the scores: of equal scores, the first letter's becomes the largest. Torch does not say which of equal scores `argmax`
        # takes.
        self._rank_of_letter = backend.array(np.arange(len(ALPHABET))[::-1].copy())
        # The axes: slot, layer, key or value, head, position, entry. With numpy, memory pages that were never written take no memory.
        self.cache = backend.zeros(slots, LAYERS, 2, self.heads, CONTEXT_MAX, HEAD_WIDTH)

    def prefill(self, tokens: Sequence[int]) -> tuple[int, bytes]:
        """Return the token that follows a prompt, and the part of the prompt's KV that belongs to this share."""
        count = len(tokens)
        embedded = self._token[self._backend.indices(tokens)] + self._position[:count]
        causal = self._backend.array(np.tril(np.ones((count, count))))
        kv = self._backend.zeros(LAYERS, 2, self.heads, count, HEAD_WIDTH)

        def remember(layer: int, key: Array, value: Array) -> tuple[Array, Array]:
            # (position, head, entry) -> (head, position, entry)
            kv[layer, 0], kv[layer, 1] = key.swapaxes(0, 1), value.swapaxes(0, 1)
            return kv[layer, 0], kv[layer, 1]

        def attend(query: Array, keys: Array, values: Array) -> Array:
            scores = (query.swapaxes(0, 1) @ keys.swapaxes(-1, -2)) % P
            return ((_weigh(scores) * causal) @ values % P).swapaxes(0, 1)

        last = self._layers(embedded % P, remember, attend)[-1:]
        packed = self._backend.numpy(kv).astype("<u2").tobytes()
        return self._letters(last)[0], packed

    def load(self, slot: int, share: bytes) -> int:
        """Put this rank's share of a KV into a slot of the cache. Returns the number of positions in the share."""
        shape = (LAYERS, 2, self.heads, -1, HEAD_WIDTH)
        kv = np.frombuffer(share, dtype="<u2").reshape(shape)
        self.cache[slot, :, :, :, : kv.shape[3]] = self._backend.array(kv)
        return int(kv.shape[3])

    def step(
        self, slots: Sequence[int], tokens: Sequence[int], positions: Sequence[int]
    ) -> list[int]:
        """Make one more token for the sequence in each of these slots. Returns the new tokens, in the order of the slots.

        Args:
            slots: the slots.
            tokens: the last token of each sequence. Its KV is computed in this step.
            positions: the position of that token in each sequence, from 0.
        """
        backend = self._backend
        at, where = backend.indices(slots), backend.indices(positions)
        length = max(positions) + 1
        there = np.arange(length)[None, :] <= np.asarray(positions)[:, None]
        visible = backend.array(there)[:, None, None, :]
        embedded = self._token[backend.indices(tokens)] + self._position[where]

        def remember(layer: int, key: Array, value: Array) -> tuple[Array, Array]:
            self.cache[at, layer, 0, :, where] = key
            self.cache[at, layer, 1, :, where] = value
            cached = self.cache[at, layer, :, :, :length]
            return cached[:, 0], cached[:, 1]

        def attend(query: Array, keys: Array, values: Array) -> Array:
            scores = (query[:, :, None, :] @ keys.swapaxes(-1, -2)) % P
            return ((_weigh(scores) * visible) @ values % P)[:, :, 0]

        return self._letters(self._layers(embedded % P, remember, attend))

    def _layers(
        self,
        states: Array,
        remember: Callable[[int, Array, Array], tuple[Array, Array]],
        attend: Callable[[Array, Array, Array], Array],
    ) -> Array:
        """Apply all layers to states of shape (rows, WIDTH), and return the new states.

        Args:
            states: one row for each token.
            remember: stores the keys and values of a layer. Returns all keys and values to attend to in this layer.
            attend: computes the attention of queries to keys and values.
        """
        for layer in range(LAYERS):
            query, key, value = (
                (states[:, None, None, :] @ part[layer])[:, :, 0] % P
                for part in (self._q, self._k, self._v)
            )
            heads = attend(query, *remember(layer, key, value))
            mixed = (heads[:, :, None, :] @ self._o[layer])[:, :, 0].sum(1) % P
            states = (states + self._reduce(mixed)) % P
            hidden = (states @ self._up[layer]) % P
            cubed = (hidden * hidden % P) * hidden % P
            states = (states + self._reduce(cubed @ self._down[layer] % P)) % P
        return states

    def _letters(self, states: Array) -> list[int]:
        scores = (states @ self._out) % P * len(ALPHABET) + self._rank_of_letter
        return [ALPHABET[int(index)] for index in self._backend.numpy(scores.argmax(-1))]


def _weigh(scores: Array) -> Array:
    """Return the attention weight for each score: a polynomial in place of a softmax."""
    return (scores * scores + scores) % P


def split(kv: bytes, tp: int) -> list[bytes]:
    """Split a KV cache by heads, into one share for each of `tp` ranks.

    The axes of the cache are layer, key or value, head, position, entry. An entry takes two bytes, little-endian.
    """
    whole = np.frombuffer(kv, dtype="<u2").reshape(LAYERS, 2, HEADS, -1, HEAD_WIDTH)
    return [part.tobytes() for part in np.split(whole, tp, axis=2)]


def join(shares: Sequence[bytes]) -> bytes:
    """Join the shares of all ranks to the KV bytes of all heads. The inverse of `split`."""
    shape = (LAYERS, 2, HEADS // len(shares), -1, HEAD_WIDTH)
    parts = [np.frombuffer(share, dtype="<u2").reshape(shape) for share in shares]
    return np.concatenate(parts, axis=2).tobytes()


# --------------------------------------------------------------------------------------------------------- the oracle


@lru_cache(maxsize=1 << 16)
def expected(prompt: str, max_tokens: int, seed: int = 1) -> str:
    """Return the only right text of a completion.

    Args:
        prompt: ASCII text. Each character is a token.
        max_tokens: the number of tokens of the text. Each token is a letter or a digit.
        seed: the seed of the weights.
    """
    whole = weights_of(seed)
    tokens, said = list(prompt.encode("ascii")), bytearray()
    keys = [np.zeros((HEADS, 0, HEAD_WIDTH), dtype=np.int64) for _ in range(LAYERS)]
    values = [np.zeros((HEADS, 0, HEAD_WIDTH), dtype=np.int64) for _ in range(LAYERS)]
    begun = 0
    while len(said) < max_tokens:
        fresh = [*tokens, *said][begun:]
        state = (whole.token[fresh] + whole.position[begun : begun + len(fresh)]) % P
        visible = (
            np.arange(begun + len(fresh))[None, :] <= np.arange(begun, begun + len(fresh))[:, None]
        )
        for layer in range(LAYERS):
            query = np.einsum("tw,hwe->hte", state, whole.q[layer]) % P
            keys[layer] = np.concatenate(
                [keys[layer], np.einsum("tw,hwe->hte", state, whole.k[layer]) % P], axis=1
            )
            values[layer] = np.concatenate(
                [values[layer], np.einsum("tw,hwe->hte", state, whole.v[layer]) % P], axis=1
            )
            score = np.einsum("hte,hue->htu", query, keys[layer]) % P
            weight = (score * (score + 1)) % P * visible
            heads = np.einsum("htu,hue->hte", weight, values[layer]) % P
            state = (state + np.einsum("hte,hew->tw", heads, whole.o[layer])) % P
            hidden = state @ whole.up[layer] % P
            state = (state + (hidden**2 % P * hidden % P) @ whole.down[layer]) % P
        begun += len(fresh)
        logits = state[-1] @ whole.out % P
        said.append(ALPHABET[int(np.argmax(logits))])
    return said.decode("ascii")
