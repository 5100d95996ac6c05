"""Tables of README and docs, computed from the stored rows of results/.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. `python -m docs.tools.tables`
writes all of them anew; a test compares them with the rows.
"""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import robot_table
from experiments.comparison import log_rate_ratios, mean_reduction, paired, rate_ratio
from experiments.figures.paper import read_paper
from experiments.reproduce import ROBOT, SIMULATED, group
from farl_jax.methods import BASELINE, MAIN, METHODS, OURS

ROOT = pathlib.Path(__file__).parents[2]
MARK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "franka.md")

EARLIER = SIMULATED.out / "earlier"
"""Rows of settings that differed from task to task."""
Row = Mapping[str, Any]
ByMethod = Mapping[str, Sequence[Row]]


def rendered(text: str) -> str:
    """A page with every marked table computed anew."""
    made = {"main": main_table, "paper": paper_table, "robot": robot_table_of_franka}
    made["earlier"] = lambda: main_table(EARLIER)
    made["methods"] = lambda: methods_table(EARLIER)
    return MARK.sub(lambda found: f"{found[1]}\n{made[found[2]]()}\n{found[3]}", text)


def main_table(folder: pathlib.Path = SIMULATED.out) -> str:
    """Both main methods on every task, all seeds together."""
    lines = [
        "| task | method | failure episodes | rate | fewer (95 %) | per episode (95 %) "
        "| final return | success |",
        "|---|---|---|---|---|---|---|---|",
    ]
    by_task = _by_task(folder)
    for task, methods in by_task.items():
        for method in MAIN:
            rows = methods[method]
            fewer = "" if method == BASELINE else _reduction(methods)
            rate = "" if method == BASELINE else _per_episode([methods])
            lines.append(
                f"| `{task}` | {'**FARL**' if method == OURS else 'Uni-O4'} "
                f"| {_total(rows, 'failure_episodes'):,} of {_total(rows, 'episodes'):,} "
                f"| {_percent(100.0 * _rate(rows), '.1f')} | {fewer} | {rate} "
                f"| {_mean(rows, 'final_return'):.1f} ({_span(rows, 'final_return')}) "
                f"| {_mean(rows, 'final_success'):.2f} |"
            )
    low, mean, high = mean_reduction(by_task)
    rate = _per_episode(list(by_task.values()))
    lines.append(f"| mean | | | | **{mean:.1f} %** ({low:.1f} to {high:.1f}) | {rate} | | |")
    return "\n".join(lines) + "\n"


def paper_table() -> str:
    """Reductions beside the paper's, with each seed's own, and the gate's share of steps."""
    lines = [
        "| task | fewer, by seed | paper | return: Uni-O4 | return: FARL | recovery acts in |",
        "|---|---|---|---|---|---|",
    ]
    theirs, known = read_paper()["failure_episodes"], []
    by_task = _by_task()
    for task, methods in by_task.items():
        numbers = theirs.get(task)
        paper = 100.0 * (1.0 - numbers[OURS] / numbers[BASELINE]) if numbers else None
        known += [] if paper is None else [paper]
        ours = methods[OURS]
        acts = _total(ours, "recovered_steps") / _total(ours, "online_steps")
        change = lambda rows: (
            f"{_mean(rows, 'initial_return'):.1f} -> {_mean(rows, 'final_return'):.1f}"
        )
        lines.append(
            f"| `{task}` | {paired(methods[BASELINE], ours)['reduction_percent']:.0f} % "
            f"({', '.join(_by_seed(methods))}) | {_percent(paper)} "
            f"| {change(methods[BASELINE])} | {change(ours)} "
            f"| {_percent(100.0 * acts, '.1f')} of steps |"
        )
    paper = _percent(float(np.mean(known)), ".1f") if known else "-"
    lines.append(f"| mean | {mean_reduction(by_task)[1]:.1f} % | {paper} | | | |")
    return "\n".join(lines) + "\n"


def methods_table(folder: pathlib.Path) -> str:
    """Every method with stored rows: failure episodes (share), final return (range over seeds)."""
    by_task = _by_task(folder)
    lines = [f"| method | {' | '.join(f'`{task}`' for task in by_task)} |"]
    lines.append(f"|{'---|' * (1 + len(by_task))}")
    stored = {method for methods in by_task.values() for method in methods}
    for method in (name for name in METHODS if name in stored):
        cells = [_cell(methods.get(method, ())) for methods in by_task.values()]
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def robot_table_of_franka() -> str:
    """Every method in fifty episodes on one robot, beside the paper's real robot."""
    if not (ROOT / ROBOT.out / "main.jsonl").is_file():
        return f"No rows are stored yet; `farl reproduce --figure robot` makes `{ROBOT.out}`.\n"
    lines = [f"| task | {' | '.join(robot_table.HEADS)} |"]
    lines.append(f"|{'---|' * (1 + len(robot_table.HEADS))}")
    paper, by_task = read_paper(), _by_task(ROBOT.out)
    for task, methods in by_task.items():
        for line in robot_table.lines(methods, paper["failing_pairs"].get(task, {})):
            method, *rest = robot_table.cells(line)
            lines.append(f"| `{task}` | `{method}` | {' | '.join(rest)} |")
    return "\n".join([*lines, "", robot_table.conclusion(by_task, paper)]) + "\n"


def _cell(rows: Sequence[Row]) -> str:
    if not rows:
        return "-"
    share = _percent(100.0 * _rate(rows), ".1f")
    final = f"{_mean(rows, 'final_return'):.1f} ({_span(rows, 'final_return')})"
    return f"{_total(rows, 'failure_episodes'):,} ({share}), {final}"


def _by_task(folder: pathlib.Path = SIMULATED.out) -> dict[str, dict[str, list[Row]]]:
    """The stored rows of seeds that both main methods have: task -> method -> rows by seed."""
    text = (ROOT / folder / "main.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    known = {(row["task"], row["method"], row["seed"]) for row in rows}
    return group([r for r in rows if all((r["task"], m, r["seed"]) in known for m in MAIN)])


def _reduction(methods: ByMethod) -> str:
    found = paired(list(methods[BASELINE]), list(methods[OURS]))
    low, high = found["reduction_interval"]
    return f"{found['reduction_percent']:.0f} % ({low:.0f} to {high:.0f})"


def _per_episode(tasks: Sequence[ByMethod]) -> str:
    """Reduction of failure episodes per episode, the mean of log rate ratios over tasks."""
    found = rate_ratio([log_rate_ratios(methods[BASELINE], methods[OURS]) for methods in tasks])
    fewer, limits = found.fewer
    return f"{fewer:.0f} %" + (f" ({limits[0]:.0f} to {limits[1]:.0f})" if limits else "")


def _by_seed(methods: ByMethod) -> list[str]:
    base = {row["seed"]: row for row in methods[BASELINE]}
    shares = [
        1.0 - row["failure_episodes"] / max(base[row["seed"]]["failure_episodes"], 1)
        for row in methods[OURS]
    ]
    return [f"{100.0 * share:.0f}" for share in shares]


def _percent(value: float | None, shape: str = ".0f") -> str:
    return "-" if value is None else f"{value:{shape}} %"


def _total(rows: Sequence[Row], name: str) -> int:
    return sum(row[name] for row in rows)


def _rate(rows: Sequence[Row]) -> float:
    return _total(rows, "failure_episodes") / _total(rows, "episodes")


def _mean(rows: Sequence[Row], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _span(rows: Sequence[Row], name: str) -> str:
    values = [row[name] for row in rows]
    return f"{min(values):.0f} to {max(values):.0f}"


def main() -> None:
    """Write all tables anew."""
    for page in PAGES:
        page.write_text(rendered(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
