"""The rights that the docs name for a run, and those that requests need."""

from __future__ import annotations

import re

import pytest

from support.pages import DOCS


def allowed() -> set[tuple[str, str]]:
    """The verbs and resources that the manifest of the docs allows."""
    yaml = pytest.importorskip("yaml")
    page = (DOCS / "how-to" / "kubernetes.md").read_text()
    (block,) = (
        one for one in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "kind: Role\n" in one
    )
    rules = yaml.safe_load(block)["rules"]
    return {(verb, kind) for one in rules for verb in one["verbs"] for kind in one["resources"]}


def needed(requests: list[str]) -> set[tuple[str, str]]:
    """The verbs and resources of some requests. Everybody may ask for the version."""
    found = set()
    for method, url in (one.split(maxsplit=1) for one in requests if "/version" not in one):
        path, _, query = url.partition("?")
        path = path.removeprefix("/api/v1/").removeprefix("/apis/apps/v1/")
        path = path.removeprefix("/apis/discovery.k8s.io/v1/")
        path = path.removeprefix("/apis/discovery.k8s.io/v1beta1/")
        path = path.removeprefix("/apis/networking.k8s.io/v1/")
        parts = path.removeprefix("namespaces/lab/").split("/")
        one_of_many = "list" if len(parts) == 1 else "get"
        verb = {"GET": "watch" if "watch=true" in query else one_of_many, "POST": "create"}.get(
            method, method
        )
        found.add((verb.lower(), "/".join([parts[0], *parts[2:]])))
    return found
