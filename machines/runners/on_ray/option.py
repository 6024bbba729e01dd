"""Read the value `ray:K` or `ray:K@ADDRESS` of `--chaos-slots`. This module imports only the standard library, as `options` does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# The highest number of slots on a cluster. A larger number must be a mistake.
RAY_SLOTS_MAX: Final = 1024
_FORM: Final = re.compile(r"ray:(\d+)(?:@(\S+))?\Z")
EXPECTED: Final = f"ray:K or ray:K@ADDRESS with K from 1 to {RAY_SLOTS_MAX}"


@dataclass(frozen=True, slots=True)
class OnRay:
    """The slots that a user asks a Ray cluster for.

    Attributes:
        slots: their number.
        address: the address of the cluster, as `ray.init` takes it. If it is empty, Ray starts a cluster on this machine.
        cores: the number of cores that Ray reserves for each slot.
    """

    slots: int
    address: str = ""
    cores: float = 1.0

    def __str__(self) -> str:
        return f"ray:{self.slots}{f'@{self.address}' if self.address else ''}"


def is_on_ray(text: str) -> bool:
    """True if the value of `--chaos-slots` is about a Ray cluster."""
    return text.partition(":")[0] == "ray"


def read_on_ray(text: str, cores: float) -> OnRay:
    """Read the value of `--chaos-slots`, for which `is_on_ray` is true.

    Raises:
        ValueError: if it does not have the right form. The message names the text that was found and a correct one.
    """
    found = _FORM.match(text)
    if not found or not 1 <= int(found[1]) <= RAY_SLOTS_MAX:
        raise ValueError(f'found "{text}", expected {EXPECTED}')
    return OnRay(int(found[1]), found[2] or "", cores)
