"""Recognize answers that belong to another request, by their ids and model names.

No oracle is needed for this. Two signs are used: the id of an answer, and the model that it names. Both prove something only if the server
means them. An id that counts up begins again when its process is restarted, and then two requests rightly get the same id. So only ids
that look random are compared. Some servers name a model by another name than the client did. So a name is compared only if every answer
so far, and enough of them, named the model as the client did.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

# An id looks random if it holds this many letters and digits at its end, with this many different ones. A UUID without dashes has 32, and
# a counter with leading zeros has few different ones.
RANDOM_MIN: Final = 16
DIFFERENT_MIN: Final = 8
# The number of answers that must have named the asked model before an answer with another name counts as wrong.
NAMED_MIN: Final = 20
_NOT_RANDOM: Final = re.compile(r"[^0-9A-Za-z]")


class Identities:
    """The ids and the model names of the answers of one run.

    Args:
        model: the name of the model that each request asks for.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._numbers: dict[str, int] = {}
        self._named = 0
        self._names_vary = False

    def mistake(self, number: int, chunks: Sequence[dict[str, Any]]) -> tuple[str, str] | None:
        """Note one complete answer.

        Args:
            number: the number of the request.
            chunks: the parts of the answer.

        Returns:
            The class of the mistake and its description, or None if nothing shows that the answer belongs to another request.
        """
        return self._repeated_id(number, chunks) or self._other_model(chunks)

    def _repeated_id(self, number: int, chunks: Sequence[dict[str, Any]]) -> tuple[str, str] | None:
        said = next((chunk["id"] for chunk in chunks if chunk.get("id")), None)
        if not isinstance(said, str) or not looks_random(said):
            return None
        first = self._numbers.setdefault(said, number)
        # All attempts of one request have the same number. A cache may answer them with the same answer.
        if first == number:
            return None
        return "repeated id", f"the answer to request {first} had the same id, {said}"

    def _other_model(self, chunks: Sequence[dict[str, Any]]) -> tuple[str, str] | None:
        names = {chunk["model"] for chunk in chunks if isinstance(chunk.get("model"), str)}
        if not names or self._names_vary:
            return None
        if names == {self._model}:
            self._named += 1
        elif self._named < NAMED_MIN:
            self._names_vary = True
        else:
            other = min(names - {self._model})
            return "other model", f'the answer is from "{other}", asked for "{self._model}"'
        return None


def looks_random(said: str) -> bool:
    """True if an id looks as if no other request can get it by a counter or by a clock of seconds."""
    last = _NOT_RANDOM.sub("", said.partition("-")[2] or said)
    return len(last) >= RANDOM_MIN and len(set(last)) >= DIFFERENT_MIN
