"""The plot of cost against size, as SVG."""

import math
from xml.sax.saxutils import escape

from cost import Call, Prices

WIDTH, HEIGHT = 800, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 250, 50, 55
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"]

# The plotted calls, one for each kind of work.
DRAWN = [
    ("tokens-authorize", "a token", "check a token (authorizer)"),
    ("tokens-introspect", "a token", "introspect"),
    ("org-user-tokens-list", "10 tokens", "list 10 tokens"),
    ("registry-npm", "a file", "download, logged"),
    ("org-user-tokens-issue", "a token", "issue"),
    ("org-user-tokens-revoke", "a token", "revoke"),
]


def svg(calls: list[Call], prices: Prices) -> str:
    """Dollars for a million calls against tokens in the organization, both axes logarithmic."""
    by_name = {(call.operation, call.what): call for call in calls}
    lines = [(label, by_name[operation, what]) for operation, what, label in DRAWN]
    sizes = list(calls[0].taken)
    lowest = math.floor(math.log10(min(prices.of_all(call, size) for _, call in lines for size in sizes)))
    highest = math.ceil(math.log10(max(prices.of_all(call, size) for _, call in lines for size in sizes)))
    first, last = math.log10(min(sizes)), math.log10(max(sizes))

    def x(size: float) -> float:
        return LEFT + (math.log10(size) - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(dollars: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(dollars) - lowest) / (highest - lowest) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="13">',
        "<title>Cost of a million calls against tokens in the organization</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(LEFT, 24, "A million calls, US dollars, by tokens in the organization", size=15),
    ]
    for power in range(lowest, highest + 1):
        for step in (1, 2, 5) if power < highest else (1,):
            dollars = step * 10.0**power
            parts.append(f'<path d="M{LEFT} {y(dollars):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
            parts.append(text(LEFT - 8, y(dollars) + 4, f"{dollars:g}", anchor="end"))
    for power in range(round(first), round(last) + 1):
        size = 10**power
        parts.append(f'<path d="M{x(size):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eee"/>')
        parts.append(text(x(size), HEIGHT - BOTTOM + 20, f"{size:,}", anchor="middle"))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "tokens in the organization", anchor="middle"))
    turned = f'transform="rotate(-90 18 {(TOP + HEIGHT - BOTTOM) / 2})"'
    parts.append(text(18, (TOP + HEIGHT - BOTTOM) / 2, "US dollars", anchor="middle", more=turned))
    heights = places([y(prices.of_all(call, sizes[-1])) for _, call in lines])
    for (label, call), colour, place in zip(lines, COLOURS, heights, strict=True):
        points = [(x(size), y(prices.of_all(call, size))) for size in sizes]
        path = "M" + "L".join(f"{at:.1f} {height:.1f}" for at, height in points)
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{at:.1f}" cy="{height:.1f}" r="3.5" fill="{colour}"/>' for at, height in points]
        caption = f"{label}: {prices.of_all(call, sizes[-1]):.2f}"
        parts.append(text(WIDTH - RIGHT + 14, place + 4, caption, more=f'fill="{colour}"'))
    return "\n".join([*parts, "</svg>\n"])


def places(heights: list[float]) -> list[float]:
    """Positions for the labels of lines at these heights, without overlaps."""
    placed: dict[int, float] = {}
    lowest = math.inf
    for at in sorted(range(len(heights)), key=lambda at: -heights[at]):
        placed[at] = lowest = min(heights[at], lowest - 16)
    return [placed[at] for at in range(len(heights))]


def text(x: float, y: float, content: str, anchor: str = "start", size: int = 13, more: str = "") -> str:
    """A line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" {more}>{escape(content)}</text>'
