"""The medians as horizontal bars on a logarithmic axis: an SVG that can be read on light and on dark pages."""

from __future__ import annotations

import math
from xml.sax.saxutils import escape

from tests.bench import warm
from tests.bench.figures import Row, Sheet

_WIDTH, _LEFT, _RIGHT, _LINE, _BAR, _HEAD = 860, 330, 70, 24, 14, 44
_STYLE = """text { font: 13px system-ui, sans-serif; fill: #1f2328 } .head { font-weight: 600 } .axis { fill: #59636e }
line { stroke: #d1d9e0 } .ours { fill: #0a7f5a } .peer { fill: #8c959f }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .axis { fill: #9198a1 } line { stroke: #3d444d }
.ours { fill: #2fbf8f } .peer { fill: #6e7681 } }"""


def plot(sheet: Sheet) -> str:
    """Two panels, fastest first: fresh processes and first invocations; warm answers of one client."""
    fresh = [row for row in sheet.rows.values() if row.part == "cold"]
    one = warm.CLIENTS[0]
    kept = [name(kind, one) for name in (warm.latency, warm.peer_latency) for kind in warm.KINDS]
    panels = [
        ("From nothing: milliseconds to the first answer (green: sandboxd), or to the process's end", fresh),
        (
            "Warm: milliseconds to the answer, one client (green: sandboxd)",
            [row for name, row in sheet.rows.items() if name in kept],
        ),
    ]
    parts, top = list[str](), 0
    for title, rows in panels:
        measured = sorted((row for row in rows if row.values), key=lambda row: row.at(0.5) or 0)
        if measured:
            parts += _panel(title, measured, top)
            top += _HEAD + _LINE * len(measured) + 34
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}">'
        f"<style>{_STYLE}</style>{''.join(parts)}</svg>\n"
    )


def _panel(title: str, rows: list[Row], top: int) -> list[str]:
    medians = [row.at(0.5) or 0 for row in rows]
    low, high = 10 ** math.floor(math.log10(medians[0] / 2)), 10 ** math.ceil(math.log10(medians[-1]))
    scale = (_WIDTH - _LEFT - _RIGHT) / math.log10(high / low)
    bottom = top + _HEAD + _LINE * len(rows)
    parts = [f'<text class="head" x="8" y="{top + 22}">{escape(title)}</text>']
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        x = _LEFT + scale * math.log10(10**power / low)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top + 34}" y2="{bottom}"/>')
        parts.append(f'<text class="axis" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{10.0**power:g}</text>')
    for number, (row, median) in enumerate(zip(rows, medians, strict=True)):
        y, length = top + _HEAD + _LINE * number, scale * math.log10(median / low)
        kind = "ours" if "invocation" in row.name or row.name.startswith("warm") else "peer"
        parts.append(f'<text x="{_LEFT - 10}" y="{y + 12}" text-anchor="end">{escape(row.name)}</text>')
        parts.append(f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="2"/>')
        parts.append(f'<text x="{_LEFT + length + 6:.1f}" y="{y + 12}">{median:.3g}</text>')
    return parts
