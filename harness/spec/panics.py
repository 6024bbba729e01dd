"""The log lines that `no_panic` looks for: the patterns of a graph file, or the default ones.

The default patterns match only lines by which a runtime reports a broken program. They do not match errors that a program reports itself,
tracebacks, or the last lines of a process that is asked to end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from graphquake.harness.spec.table import Table


@dataclass(frozen=True, slots=True)
class LinePattern:
    """A regular expression for forbidden lines.

    Attributes:
        expression: the expression, for a text of many lines.
        needles: short texts, of which each match contains at least one. To look for them first is much faster than the expression. If
            there are none, the expression is always used.
    """

    expression: re.Pattern[str]
    needles: tuple[str, ...] = ()

    @classmethod
    def of(cls, expression: str, *needles: str) -> LinePattern:
        """Compile an expression. `^` is the start of a line."""
        return cls(re.compile(expression, re.MULTILINE), needles)

    def matches(self, text: str) -> Iterator[re.Match[str]]:
        """Find all matches in a text."""
        if not self.needles or any(needle in text for needle in self.needles):
            yield from self.expression.finditer(text)


# The default patterns, each with its name.
DEFAULT: Final[Mapping[str, LinePattern]] = MappingProxyType(
    {
        # "thread 'main' panicked at src/main.rs:2:5:", in newer releases with a number behind the name.
        "Rust panic": LinePattern.of(
            r"thread '[^'\n]*'(?: \(\d+\))? (?:has overflowed its stack|panicked at )", "thread '"
        ),
        # "panic: runtime error: …", "fatal error: all goroutines are asleep - deadlock!", and the first goroutine of the trace.
        "Go panic": LinePattern.of(
            r"^panic: |^goroutine \d+ \[running\]:|^fatal error: (?:all goroutines|concurrent map|unexpected signal|runtime: )",
            "panic: ",
            "goroutine ",
            "fatal error: ",
        ),
        # Python writes this line when the interpreter can't go on, and faulthandler when a signal ends it.
        "Python fatal error": LinePattern.of(r"Fatal Python error: "),
        # Abseil, glog and PyTorch. They name SIGTERM in the same way, which is not a bug.
        "fatal signal": LinePattern.of(
            r"\*\*\* (?:Aborted at|SIG(?:SEGV|ABRT|BUS|ILL|FPE)\b)|!+ Segfault encountered !+"
            r"|(?<!Fatal Python error: )Segmentation fault|exited on signal (?:4|6|7|8|11)\b",
            "*** ",
            "! Segfault encountered",
            "Segmentation fault",
            "exited on signal ",
        ),
        # The C++ runtime, and the heap checks of the C library.
        "C++ abort": LinePattern.of(
            r"terminate called (?:after throwing|without an active exception|recursively)|\*\*\* stack smashing detected"
            r"|^(?:double free or corruption|corrupted (?:size|double-linked)|free\(\): |malloc\(\): |munmap_chunk\(\): )",
            "terminate called ",
            "*** stack",
            "double free",
            "corrupted ",
            "free(): ",
            "malloc(): ",
            "munmap_chunk(): ",
        ),
    }
)


def read_patterns(table: Table, key: str) -> tuple[str, ...]:
    """Return the regular expressions of a key.

    Raises:
        InputError: if the key does not hold a list of valid regular expressions.
    """
    texts = table.texts(key)
    for text in texts:
        try:
            re.compile(text, re.MULTILINE)
        except re.error as error:
            raise table.error(
                key, f"found {text!r}, expected a regular expression: {error}"
            ) from None
    return texts


def compiled(patterns: Sequence[str]) -> Mapping[str, LinePattern]:
    """Return the patterns to search for, by their names. The name of a user's own pattern is the pattern itself, in quotes.

    Args:
        patterns: the patterns of the graph file. If there are none, the default ones are meant.
    """
    return {f'"{text}"': LinePattern.of(text) for text in patterns} or DEFAULT
