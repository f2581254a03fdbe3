"""The report: tables and pictures of what the files of a folder say, and of nothing else."""

from pathlib import Path

import pandas as pd
from rich.console import Console

from comparison import figures, tables
from comparison.agents import AGENTS, CEILING, FLOOR
from comparison.intervals import REPEATS
from comparison.results import OURS, complete, final, matrices, read, scored

COMPARED = [
    OURS,
    *(name for name, agent in AGENTS.items() if agent.rank == 0 and not agent.only and name != CEILING),
]
"""Agents of the statistics over tasks. PPO that sees everything has a score of 1 by definition."""
COMPARED.remove("NCDEPolicy")  # which is a part of ours, and on long tasks, without traces, is not meant to be used
DRAWN = [*COMPARED[1:], "NCDEPolicy", "NCDEPolicy with traces", CEILING]
"""Agents of the curves of single tasks."""
OFF_POLICY = [name for name, agent in AGENTS.items() if agent.algorithm == "sac"]


def report(folder: Path, output: Path, repeats: int = REPEATS) -> None:
    """Write ``report.md`` and its pictures.

    :param folder: of the files of runs
    :param output: folder to write to
    :param repeats: draws of each bootstrap
    """
    output.mkdir(parents=True, exist_ok=True)
    runs, evaluations = read(folder)
    scores = scored(evaluations)
    least = 2 if final(evaluations)["seed"].nunique() > 1 else 1
    parts = ["# What agents learn where memory is needed", INTRODUCTION.format(n=len(runs))]

    tasks = complete(scores, COMPARED, least)
    if tasks:
        values = matrices(scores, COMPARED, tasks)
        table, estimates = tables.aggregates(scores, COMPARED, least, repeats)
        figures.aggregates(estimates, output / "aggregates.png")
        figures.efficiency(scores, COMPARED, tasks, repeats, output / "efficiency.png")
        figures.profiles(values, repeats, output / "profiles.png")
        parts += [
            "## Over tasks",
            f"Interquartile mean of the scores at the end, and its 95 % interval (stratified bootstrap, {repeats} "
            f"draws). Tasks with at least {least} seeds of each of these agents: {'; '.join(tasks)}.",
            table,
            *(f"![{what}]({name}.png)" for name, what in PICTURES.items()),
            "### Probability of improvement",
            tables.improvements(values, repeats),
        ]
    parts += ["## What counts as 0 and as 1", tables.scale(evaluations), "## Task by task"]
    figures.curves(evaluations, DRAWN, "steps", output / "curves.png")
    figures.curves(evaluations, DRAWN, "cpu_seconds", output / "curves_of_time.png")
    parts += [
        "![Return against steps](curves.png)",
        "![Return against seconds](curves_of_time.png)",
        tables.returns(evaluations, runs),
    ]
    if not scores.empty:
        parts += [
            f"## Time to a score of {tables.THRESHOLD}",
            "Seconds of a core and steps of training until the first of ten evaluations with this score, even if a "
            "later one is below: median over the seeds that reach it, and how many do where not all do. Where the "
            "agent that counts as 1 has learned badly, this says how soon an agent is better than nothing, not how "
            "soon it is good.",
            tables.times(scores),
        ]
        parts += _off_policy(scores, least, repeats)
        if scores["other"].notna().any():
            figures.transfer(scores, DRAWN, output / "transfer.png")
            parts += [
                "## Other sensors than those of the training",
                "Area under the scores with other sensors, without training again, divided by its width.",
                tables.transfer(scores),
                "![Score with other sensors](transfer.png)",
            ]
        parts += ["## Ablations", ABLATIONS, tables.ablations(scores)]
    parts += ["## Versions and machines", tables.conditions(runs)]
    (output / "report.md").write_text("\n\n".join(parts) + "\n")
    Console().print(f"{output / 'report.md'}, of {len(runs)} runs")


def _off_policy(scores: pd.DataFrame, least: int, repeats: int) -> list[str]:
    if not complete(scores, OFF_POLICY, least):
        return []
    text = "The same statistics for SAC, which trains for fewer steps; 0 and 1 are those of PPO here too."
    return ["## SAC", text, tables.aggregates(scores, OFF_POLICY, least, repeats)[0]]


INTRODUCTION = (
    "Made by `benchmarks/learning.py --report` of {n} runs. What is compared with what, whose settings are whose, and "
    "which inequalities remain, says `benchmarks/README.md`. A score of 0 is what "
    f"{FLOOR} reaches at the end of its training, and 1 what {CEILING} reaches, in the mean over seeds; where the "
    "greatest return is known, that is 1."
)
PICTURES = {
    "aggregates": "Interquartile mean of scores, by group",
    "efficiency": "Interquartile mean of scores against steps and against time",
    "profiles": "Share of runs above each score",
}
ABLATIONS = "Score with one argument changed: mean and spread over seeds (return; seeds, seconds of a core)."
