"""A task's life drawn to scale, and the same as a table."""

from __future__ import annotations

from farcall.console.components.table import Cell, Column, DataTable, Empty
from farcall.console.components.text import Tag
from farcall.console.views.timeline import Timeline

__all__ = ["timeline_picture"]

_CLASSES = {
    "received": "fc-step-waits",
    "waiting-for-nodes": "fc-step-waits",
    "running": "fc-step-runs",
    "execution-start": "fc-step-runs",
    "execution-end": "fc-step-after",
    "result-received": "fc-step-after",
    "result-enqueued": "fc-step-after",
}


def timeline_picture(drawn: Timeline) -> None:
    """A bar of which each state has its share, and a table of the states."""
    with Tag("div").classes("fc-timeline") as bar:
        bar.props["role"] = "img"
        bar.props["aria-label"] = drawn.sentence
        for step in drawn.steps:
            if step.width_percent > 0:
                piece = Tag("div", step.word).classes(f"fc-step {_CLASSES.get(step.state, 'fc-step-other')}")
                piece.style(f"width: {step.width_percent:.2f}%")  # a number of ours
                piece.props["title"] = f"{step.word}: {step.lasted}"
    rows = [
        {
            "state": Cell(value=step.state, text=step.word),
            "at": step.at,
            "by": step.by,
            "lasted": Cell(value=step.lasted_s, text=f"{step.lasted} so far" if step.is_now else step.lasted or None),
        }
        for step in drawn.steps
    ]
    columns = (
        Column(name="state", label="State", kind="status"),
        Column(name="at", label="Since", kind="time"),
        Column(name="by", label="Told by"),
        Column(name="lasted", label="Lasted", kind="number"),
    )
    DataTable(columns, rows, caption="Transitions", empty=Empty(title="No transitions are recorded."))
    Tag("p", f"{drawn.total} in all.").classes("fc-unknown")
