"""The circumstances of a run: its time, the machine, the versions, and the scenario if the run belongs to one.

The file `graph.json` in the folder of a run holds these facts. Older runs kept facts and versions in one flat table. In that table, a
version that the user named `host` or `began` overwrote the fact of that name. `Host.from_json` reads both forms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

# The keys of the old flat table that are facts. All other keys are versions.
_OLD_FACTS: Final = frozenset({"began", "host", "python", "scenario"})
_OLD_MACHINE: Final = re.compile(r"(\d+) cores, (?:(\d+) GPUs|no GPU)\Z")


@dataclass(frozen=True, slots=True)
class Host:
    """The time, the machine and the versions of one run. No promise uses them.

    Attributes:
        began: the wall-clock time at which the baseline began, or None if it is not known.
        cores: the number of CPU cores that the run may use, or 0 if it is not known.
        gpus: the number of GPUs that the run may use.
        python: the version of the Python that runs Graphquake.
        versions: the versions that the commands of `[versions]` in the graph file printed, by name.
        scenario: the name of the scenario of Dynamo's fault tolerance suite. Empty for every other run.
        node: the node of a cluster that ran it. Empty if the run was made where the search is.
    """

    began: datetime | None = None
    cores: int = 0
    gpus: int = 0
    python: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    scenario: str = ""
    node: str = ""

    @property
    def machine(self) -> str:
        """The numbers of cores and GPUs in words, e.g. `2 cores, no GPU`."""
        if not self.cores:
            return "unknown machine"
        return f"{self.cores} cores, {f'{self.gpus} GPUs' if self.gpus else 'no GPU'}"

    @property
    def place(self) -> str:
        """The node and its hardware in words, e.g. `gpu-7 (64 cores, 8 GPUs)`. Empty if the run was made where the search is."""
        return f"{self.node} ({self.machine})" if self.node else ""

    def facts(self) -> list[str]:
        """Return one text for the node, if it is known, one for the machine, and one for each version, e.g. `python 3.12.3`."""
        python = [f"python {self.python}"] if self.python else []
        versions = [f"{name} {version}" for name, version in self.versions.items()]
        node = [f"node {self.node}"] if self.node else []
        return [*node, self.machine, *python, *versions]

    def to_json(self) -> dict[str, object]:
        """Return the JSON table that `graph.json` holds under `host`."""
        node = {"node": self.node} if self.node else {}
        return node | {
            "began": self.began.isoformat() if self.began else "",
            "cores": self.cores,
            "gpus": self.gpus,
            "python": self.python,
            "versions": dict(self.versions),
            "scenario": self.scenario,
        }

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Host:
        """Return the facts from the table `host` of `graph.json`, in the present form or in the old flat form.

        Raises:
            ValueError: if `began` is not a time.
        """
        began = datetime.fromisoformat(table["began"]) if table.get("began") else None
        python, scenario = table.get("python", ""), table.get("scenario", "")
        # In the old form every value is a text, also that of a version named "versions".
        if isinstance(table.get("versions"), dict):
            return cls(
                began,
                table["cores"],
                table["gpus"],
                python,
                table["versions"],
                scenario,
                table.get("node", ""),
            )
        found = _OLD_MACHINE.match(table.get("host", ""))
        cores, gpus = (int(found[1]), int(found[2] or 0)) if found else (0, 0)
        versions = {name: text for name, text in table.items() if name not in _OLD_FACTS}
        return cls(began, cores, gpus, python, versions, scenario)
