"""The exact model: a tiny deterministic "LLM". All of its right answers are known beforehand.

The model serves to check answers while workers die. A token of a prompt is a byte of printable ASCII. The KV entry of a position is 16
bytes. They depend on the entries before it, on the token and on the position. The next token depends on every byte of every KV entry. If a
KV was corrupted, cut, outdated or taken from another request, the text becomes wrong at once. The same is true if a token is lost, doubled
or out of order.

Promised: the same prompt gives the same text in every process and Python version. All tokens made here are lower-case letters, so one token
is one character. `decode` works from KV bytes alone, so a worker that fetched the KV never needs the prompt. Left to `dynamo_worker`:
serving requests, delays, the transfer of KV, and failures.

The model has one weakness: a wrong state gives the right letter by chance, once in 26 times. In a long answer, one wrong token makes the
tokens after it wrong as well. So a long answer is strong evidence, and an answer of one token is weak evidence.

The model folder `tiny/` beside this file has no weights. It has the files that Dynamo needs to tokenize, and the shape of a small Llama, so
vLLM can run it with random weights. A short script wrote the files as plain JSON. The tokenizer is a byte-level BPE without merges. Ids 0
to 255 are GPT-2's byte alphabet: the token id is the byte value, and bytes that do not print are mapped to U+0100 onwards, in order. Ids
256 to 260 are special tokens with brackets that an ASCII prompt cannot spell. Ids 261 to 2047 are three letters each ("aaa", "aab", …). No
prompt tokenizes to these, but Dynamo's mocker draws its answers from 1000 to 1999.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b

KV_ENTRY_BYTES = 16
# The longest sequence: 2^16 positions of 16 bytes are 1 MiB of KV. No request of the load is nearly as long.
POSITIONS_MAX = 65_536
TOKEN_MAX = 255
_ALPHABET = b"abcdefghijklmnopqrstuvwxyz"
_NOTHING_BEFORE = bytes(KV_ENTRY_BYTES)


class KvCache:
    """The KV of one request. It grows by one token at a time.

    Each KV byte is hashed only once, into a running digest. So one more token costs the same time at any length.
    """

    __slots__ = ("_digest", "_kv")

    def __init__(self, kv: bytes = b"") -> None:
        """Start from KV bytes: none for a new request, or the KV of all positions so far, e.g. as fetched from another worker.

        Raises:
            ValueError: if `kv` is not a whole number of entries, or is too long.
        """
        if len(kv) % KV_ENTRY_BYTES or len(kv) > POSITIONS_MAX * KV_ENTRY_BYTES:
            raise ValueError(
                f"kv: found {len(kv)} bytes, expected a multiple of {KV_ENTRY_BYTES} "
                f"for at most {POSITIONS_MAX} positions"
            )
        self._kv = bytearray(kv)
        self._digest = blake2b(kv, digest_size=8)

    @property
    def kv(self) -> bytes:
        """All KV bytes so far, `KV_ENTRY_BYTES` for each position, in order."""
        return bytes(self._kv)

    def extend(self, token: int) -> None:
        """Append the KV entry of `token` (0..255) at the next position.

        Raises:
            ValueError: if `token` is not a byte value, or the cache is full.
        """
        position = len(self._kv) // KV_ENTRY_BYTES
        if not 0 <= token <= TOKEN_MAX:
            raise ValueError(f"token: found {token}, expected a byte value, 0 to {TOKEN_MAX}")
        if position >= POSITIONS_MAX:
            raise ValueError(f"cache: full, expected at most {POSITIONS_MAX} positions")
        before = bytes(self._kv[-KV_ENTRY_BYTES:]) or _NOTHING_BEFORE
        here = bytes([token]) + position.to_bytes(4, "big")
        entry = blake2b(before + here, digest_size=KV_ENTRY_BYTES).digest()
        self._kv += entry
        self._digest.update(entry)

    def next_token(self) -> int:
        """Return the token that follows the sequence: a lower-case letter that depends on every KV byte so far."""
        return _ALPHABET[int.from_bytes(self._digest.digest(), "big") % len(_ALPHABET)]


def prefill(tokens: Iterable[int]) -> KvCache:
    """Return the KV of a whole prompt. Its tokens are byte values, 0 to 255."""
    cache = KvCache()
    for token in tokens:
        cache.extend(token)
    return cache


def decode(cache: KvCache) -> Iterator[int]:
    """Yield the tokens that follow the sequence in `cache`, without end. Each token that is yielded is also added to `cache`."""
    while True:
        token = cache.next_token()
        cache.extend(token)
        yield token


def expected(prompt: str, max_tokens: int) -> str:
    """Return the only right text of a completion.

    Args:
        prompt: printable ASCII. Each character is a token.
        max_tokens: the number of tokens that were asked for. The answer has as many characters.

    Raises:
        ValueError: if the prompt has a character that is not a single token.
    """
    if not prompt.isascii():
        raise ValueError(f"prompt: found {prompt!r}, expected ASCII, one token a character")
    tokens = decode(prefill(prompt.encode("ascii")))
    return bytes(next(tokens) for _ in range(max_tokens)).decode("ascii")
