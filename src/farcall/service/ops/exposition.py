"""Measurements in Prometheus' text format, version 0.0.4. Values in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from farcall.service.ops.measures import Histogram

__all__ = ["CONTENT_TYPE", "Page"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]


class Page:
    """One answer to a scrape, written family by family."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def counter(self, name: str, about: str, *samples: tuple[Labels, float]) -> None:
        """`name` without `_total`."""
        self._family(f"{name}_total", "counter", about, samples)

    def gauge(self, name: str, about: str, *samples: tuple[Labels, float]) -> None:
        self._family(name, "gauge", about, samples)

    def histogram(self, name: str, about: str, *samples: tuple[Labels, Histogram]) -> None:
        self._head(name, "histogram", about)
        for labels, histogram in samples:
            total = 0
            for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
                total += count
                self._sample(f"{name}_bucket", {**labels, "le": _number(bound)}, total)
            self._sample(f"{name}_sum", labels, histogram.sum)
            self._sample(f"{name}_count", labels, total)

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def _family(self, name: str, kind: str, about: str, samples: Iterable[tuple[Labels, float]]) -> None:
        self._head(name, kind, about)
        for labels, value in samples:
            self._sample(name, labels, value)

    def _head(self, name: str, kind: str, about: str) -> None:
        self._lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]

    def _sample(self, name: str, labels: Labels, value: float) -> None:
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        self._lines.append(f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(float(value))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
