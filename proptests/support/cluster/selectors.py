"""Label selectors and field selectors."""

from __future__ import annotations

import re
from typing import Any

_SET = re.compile(
    r"(!?)\s*([^\s!=,()]+)(?:\s*(==|=|!=)\s*([^\s,()]*)|\s+(in|notin)\s+\(([^)]*)\))?\Z"
)


def _parts(text: str) -> list[str]:
    """Split at commas that are not within parentheses."""
    return [one.strip() for one in re.split(r",(?![^(]*\))", text) if one.strip()]


def has_labels(selector: str, labels: dict[str, str]) -> bool:
    """True if labels match a selector: `a=b`, `a!=b`, `a`, `!a`, `a in (b, c)`, `a notin (b)`."""
    return all(_holds(part, labels) for part in _parts(selector))


def _holds(part: str, labels: dict[str, str]) -> bool:
    found = _SET.match(part)
    if found is None:
        raise ValueError(f"unable to parse requirement: {part}")
    negated, key, operator, value, word, values = found.groups()
    if operator:
        return (labels.get(key) == value) == (operator != "!=")
    if word:
        among = [one.strip() for one in values.split(",")]
        return (labels.get(key) in among) == (word == "in")
    return (key in labels) != bool(negated)


def selects(selector: dict[str, Any] | None, labels: dict[str, str]) -> bool:
    """True if labels match the selector of a Deployment, ReplicaSet or Service. An empty one selects nothing."""
    wanted = (selector or {}).get("matchLabels", selector) or {}
    return bool(wanted) and all(labels.get(key) == value for key, value in wanted.items())


def has_fields(selector: str, item: dict[str, Any]) -> bool:
    """True if an object matches a field selector such as `metadata.name=a,status.phase!=Running`."""
    for part in _parts(selector):
        key, operator, value = re.split(r"(!?==?)", part, maxsplit=1)
        found: Any = item
        for name in key.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        if (str(found or "") == value) == operator.startswith("!"):
            return False
    return True
