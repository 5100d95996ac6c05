"""The pictures of the docs as SVG: the method, and the architecture as docs/layout.md and the
imports say it.

`python -m docs.tools.pictures` writes them into docs/pictures/; a test compares them.
"""

import ast
import html
import pathlib
import re
from collections.abc import Iterable

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "pictures"
PACKAGES = ("experiments", "farl_jax", "envs_mjx", "envs_gym")
BLUE, ORANGE, GREEN, GREY, DARK = "#0072B2", "#D55E00", "#009E73", "#5c5c5c", "#1f1f1f"
_TINTS = {BLUE: "#e3f0f8", ORANGE: "#fbe9df", GREEN: "#e0f3ec", GREY: "#f2f2f2"}


def pictures() -> dict[str, str]:
    """File name in docs/pictures/ -> its text."""
    return {"method.svg": method(), "architecture.svg": architecture()}


def method() -> str:
    """FARL in one picture: the offline phase, and the gate of a step."""
    parts = [
        _label(20, 28, "Offline: learn from demonstrations", bold=True),
        _box(20, 44, 170, 44, GREY, "demonstrations", "task, failure, recovery"),
        _box(230, 44, 170, 44, BLUE, "task policy", "BC, IQL, offline PPO"),
        _box(420, 44, 170, 44, GREEN, "recovery policy", "BC, IQL, offline PPO"),
        _box(610, 44, 170, 44, ORANGE, "world model", "with a failure head"),
        _path("M 105 88 L 105 104 L 695 104"),
        *(_arrow(x, 104, x, 90) for x in (315, 505, 695)),
        _label(20, 132, "Online: every step", bold=True),
        _box(20, 146, 130, 56, GREY, "observation s"),
        _arrow(150, 174, 186, 174),
        _box(190, 146, 150, 56, BLUE, "task policy", "wants action a"),
        _arrow(340, 174, 376, 174),
        _box(
            380,
            136,
            250,
            76,
            ORANGE,
            "world model imagines H steps",
            "R = risk that a leads to a failure",
        ),
        _arrow(630, 160, 666, 152),
        _arrow(630, 188, 666, 196),
        _box(670, 130, 190, 40, BLUE, "R ≤ ε: do a"),
        _box(670, 178, 190, 40, GREEN, "R > ε: recovery acts"),
        _path("M 765 218 L 765 250 L 85 250 L 85 206", arrow=True),
        _label(250, 244, "environment: next observation, reward, failure", color=GREY),
        _path("M 420 250 L 420 284", arrow=True),
        _box(190, 286, 460, 34, GREY, "PPO updates the task policy; the world model learns on"),
    ]
    return _svg(880, 336, "FARL: a gate between task policy and recovery policy", parts)


def architecture() -> str:
    """The four packages: their floors, their parts, and who imports whom."""
    column, gap, parts = 280, 16, []
    height = 0
    for i, package in enumerate(PACKAGES):
        x, y = 16 + i * (column + gap), 20
        parts.append(_label(x, y + 12, f"{package}/", bold=True))
        uses = sorted(_imports(package) & set(PACKAGES) - {package})
        parts.append(_label(x, y + 30, f"imports {', '.join(uses) or 'none of these'}", color=GREY))
        y += 44
        for floor, names in _floors(package):
            lines = _wrapped(names, 32)
            tall = 14 + 16 * len(lines)
            tint = _TINTS[BLUE if package == "experiments" else GREEN if i > 1 else ORANGE]
            parts.append(_rect(x, y, column, tall, tint, "#c8c8c8"))
            parts.append(_label(x + 8, y + 19, str(floor), color=GREY))
            parts += [_label(x + 32, y + 19 + 16 * n, text) for n, text in enumerate(lines)]
            y += tall + 4
        height = max(height, y)
    width = 16 + len(PACKAGES) * (column + gap)
    return _svg(width, height + 12, "Packages and floors: a part imports from lower floors", parts)


def _floors(package: str) -> list[tuple[int, list[str]]]:
    """(floor, parts) from docs/layout.md, the highest first."""
    text = (ROOT / "docs" / "layout.md").read_text(encoding="utf-8")
    table = text.split(f"## Floors of `{package}`")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", table, flags=re.MULTILINE)
    return [(int(floor), re.findall(r"`(\w+)`", names)) for floor, names in rows]


def _imports(package: str) -> set[str]:
    """Top-level names that a package's files import."""
    found = set()
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found


def _wrapped(names: Iterable[str], width: int) -> list[str]:
    lines = [""]
    for name in names:
        if lines[-1] and len(lines[-1]) + len(name) + 2 > width:
            lines.append("")
        lines[-1] += f", {name}" if lines[-1] else name
    return lines


def _box(x: int, y: int, width: int, height: int, color: str, *lines: str) -> str:
    """A box with centred lines; the first is bold where there are others."""
    middle, start = x + width / 2, y + height / 2 + 5 - 9 * (len(lines) - 1)
    texts = [
        _label(middle, start + 18 * n, line, anchor="middle", bold=n == 0 and len(lines) > 1)
        for n, line in enumerate(lines)
    ]
    return _rect(x, y, width, height, _TINTS[color], color) + "".join(texts)


def _rect(x: int, y: int, width: int, height: int, fill: str, stroke: str) -> str:
    size = f'x="{x}" y="{y}" width="{width}" height="{height}" rx="6"'
    return f'<rect {size} fill="{fill}" stroke="{stroke}" stroke-width="1.5"/>'


def _label(
    x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False, color: str = DARK
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{color}"{weight}>'
        f"{html.escape(text)}</text>"
    )


def _arrow(x: int, y: int, to_x: int, to_y: int) -> str:
    return _path(f"M {x} {y} L {to_x} {to_y}", arrow=True)


def _path(way: str, *, arrow: bool = False) -> str:
    end = ' marker-end="url(#head)"' if arrow else ""
    return f'<path d="{way}" fill="none" stroke="{GREY}" stroke-width="1.5"{end}/>'


def _svg(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    head = (
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M 0 0 L 8 4 L 0 8 z" fill="{GREY}"/></marker>'
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="Helvetica, Arial, sans-serif" '
        'font-size="14" role="img">',
        f"<title>{html.escape(title)}</title>",
        f"<defs>{head}</defs>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the pictures."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pictures().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
