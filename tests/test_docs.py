"""The pages say what is so: their code runs as it stands, their links lead somewhere, their tables are complete."""

import json
import os
import re
import runpy
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import pandas as pd
import pytest
import yaml

import sb3_ncde  # noqa: F401  (registers environments)
from sb3_ncde.acting.tableaus import SOLVERS
from sb3_ncde.arguments import NCDEArguments
from sb3_ncde.cde.feature_norms import FEATURE_NORMS
from sb3_ncde.cde.interpolation import INTERPOLATIONS
from sb3_ncde.cde.solvers import ADAPTIVE_SOLVERS
from sb3_ncde.history.time_source import TIME_KINDS
from sb3_ncde.hyperparams import settings
from sb3_ncde.quickstart import YARDSTICKS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """Return the code of a language on a page, block by block."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def section(page: Path, title: str) -> str:
    """Return what stands on a page under a title."""
    return re.split(r"\n##+ ", re.split(rf"\n##+ {re.escape(title)}\n", page.read_text())[1])[0]


SNIPPETS = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, code in enumerate(blocks(page, "python"), start=1)
]

FEWER = {
    # After less, it may be right that NCDEPolicy warns of values that are far from what it learned from.
    r"(RecurrentPPO.*)\.learn\([^,)]+": r"\1.learn(1_024",
    r"\.learn\((?!1_024)[^,)]+": ".learn(256",  # a rollout at least
    r"n_eval_episodes=\d+": "n_eval_episodes=2",
    r"n_episodes=\d+": "n_episodes=2",
}
"""What is changed of a page's code before it is run: only how long it trains and evaluates."""


@pytest.mark.parametrize("code", SNIPPETS)
def test_each_snippet_runs_alone(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a namespace of its own and an empty folder, with nothing added."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gym, "registry", dict(gym.registry))  # what a page registers is forgotten
    for pattern, replacement in FEWER.items():
        code = re.sub(pattern, replacement, code, flags=re.DOTALL)
    exec(compile(code, "snippet", "exec"), {"__name__": "__main__"})


def test_snippets_train_evaluate_and_save_what_they_say() -> None:
    """A page without code, or with code that does not train, is not what a user looks for."""
    with_code = {page.stem for page in PAGES if blocks(page, "python")}
    without = {"api", "evidence", "how-it-works", "troubleshooting"}
    assert with_code == {page.stem for page in PAGES} - without
    for page in PAGES:
        assert all(".learn(" in code for code in blocks(page, "python")), page


def test_readme_is_a_front_page() -> None:
    """Of 150 lines, with one complete example of 15 lines at most."""
    assert 135 <= len(README.read_text().splitlines()) <= 165
    (example,) = blocks(README, "python")
    assert len(example.splitlines()) <= 15
    assert 'device="cpu"' in example
    versions = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert f"[Python {versions[0]} to {versions[-1]}]" in README.read_text()
    for workflow in re.findall(r"actions/workflows/(\w+\.yml)", README.read_text()):
        assert (ROOT / ".github" / "workflows" / workflow).exists()


def test_own_environment_is_forty_lines() -> None:
    (example,) = blocks(DOCS / "own-environment.md", "python")
    assert sum(bool(line) for line in example.splitlines()) <= 40


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    """To a file of the repository, and to a title of its page; what is on the web is not looked up."""
    web = r"https?:|\.\./\.\./actions"  # GitHub's page of a workflow, from the README
    links = re.findall(rf"\]\((?!{web})([^)#]*)(?:#([^)]*))?\)", page.read_text())
    assert links
    for path, anchor in links:
        target = page if path == "" else page.parent / path
        assert target.exists(), path
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_lines_are_of_a_length(page: Path) -> None:
    """A hundred and twenty characters at most, but for tables and what is typed in."""
    for line in page.read_text().splitlines():
        assert len(line) <= 120 or line.startswith(("|", "    ")), line


def named(text: str) -> set[str]:
    """Return the words that stand in the first cell of a table's rows as code."""
    cells = re.findall(r"^\| (`.*?) \|", text, flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_tables_of_arguments_are_those_of_the_docstrings() -> None:
    """The page is what its script makes of them, and names whatever can be chosen."""
    page = (DOCS / "arguments.md").read_text()
    assert page == runpy.run_path(str(DOCS / "argument_tables.py"))["with_tables"](page)
    assert set(NCDEArguments.__dataclass_fields__) <= named(page)
    for name in (*SOLVERS, *ADAPTIVE_SOLVERS, *INTERPOLATIONS, *FEATURE_NORMS, *TIME_KINDS):
        assert f"`{name}`" in page


def test_table_of_interpolations_is_complete() -> None:
    assert set(INTERPOLATIONS) <= named(section(DOCS / "how-it-works.md", "Paths"))


def test_table_of_environments_is_complete_and_right() -> None:
    table = section(DOCS / "sensors.md", "Environments")
    ours = {env_id for env_id in gym.registry if env_id.startswith("sb3_ncde/")}
    assert named(table) >= ours
    for env_id in ours:
        (row,) = re.findall(rf"^\| `{env_id}` \| (.*?) \| (.*?) \|", table, flags=re.MULTILINE)
        space = gym.make(env_id).observation_space
        parts = dict(space.spaces) if isinstance(space, gym.spaces.Dict) else {"": space}
        assert [key for key in parts if key] == re.findall(r"`(\w+)`", row[0])
        assert [part.shape for part in parts.values()] == [(int(n),) for n in re.findall(r"Box \((\d+),\)", row[0])]
        assert (row[1] != "no") == ("SensorLoss" in env_id)


def test_entry_of_the_own_environment_is_one() -> None:
    page = DOCS / "own-environment.md"
    (entry,) = blocks(page, "yaml")
    assert len(entry.splitlines()) <= 10
    ((name, values),) = yaml.safe_load(entry).items()
    NCDEArguments(**values["policy_kwargs"])
    assert values.keys() <= {*settings("default").model, *settings("default")._fields, "policy_kwargs"}
    assert f'"{name}"' in blocks(page, "python")[0]


SHORTER = {
    "train": "-n 512 --eval-freq -1",
    "enjoy": "-n 100",
    "plot": "-w 1",
    "record-video": "-n 20",
    "benchmark": "--seeds 0 -n 512 --eval-steps 100",
    "tune": "-n 512 --max-total-trials 1 --eval-episodes 1 --n-evaluations 1 -params n_timesteps:512",
}
"""Options that make each of the commands short; the last of an option's values counts."""


def type_in(line: str, folder: Path) -> None:
    """Run a page's command in a folder, as the shell of the environment that runs the tests."""
    # Where there is a display, no window.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"}
    command = line.partition("#")[0].replace("rl_zoo3.", "")
    name = next(word for word in command.split() if word in SHORTER)
    typed = f"{line.partition('#')[0]} {SHORTER[name]}"
    done = subprocess.run(typed, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, typed + done.stdout + done.stderr


@pytest.mark.filterwarnings("ignore")
def test_commands_of_the_zoo_run(tmp_path: Path) -> None:
    """As typed in from the page, in one folder; those of a server only where there is one."""
    pytest.importorskip("rl_zoo3")
    page = (DOCS / "rl-zoo.md").read_text()
    lines = re.findall(r"^    ((?:sb3-ncde|python -m) .*)$", page, flags=re.MULTILINE)
    assert {word for line in lines for word in line.split()} >= SHORTER.keys()
    # Those of other algorithms are run by tests/test_zoo_off_policy.py, but for two.
    others = [line for line in lines if "--algo" in line and "ppo" not in line]
    assert len(others) >= 4
    for line in lines:
        if line in others and not ("dqn" in line and ("train" in line or "enjoy" in line) and "trial" not in line):
            continue
        if "postgresql://" in line:
            if "TEST_POSTGRES" not in os.environ:
                continue
            line = re.sub(r"postgresql://\S+", os.environ["TEST_POSTGRES"], line)
            line = line.replace("--study-name pendulum", f"--study-name {tmp_path.name}-{time.time()}")
        type_in(line, tmp_path)
    in_readme = re.findall(r"^    (sb3-ncde .*)$", README.read_text(), flags=re.MULTILINE)
    assert in_readme
    assert {line.partition("#")[0].split()[1] for line in in_readme} <= SHORTER.keys()


@pytest.mark.filterwarnings("ignore")
def test_commands_of_the_zoo_for_an_own_environment_run(tmp_path: Path) -> None:
    """With the page's two files, and nothing else."""
    pytest.importorskip("rl_zoo3")
    page = DOCS / "own-environment.md"
    (tmp_path / "tank.py").write_text(blocks(page, "python")[0])
    (tmp_path / "tank.yml").write_text(blocks(page, "yaml")[0])
    lines = re.findall(r"^    (.*sb3-ncde .*)$", page.read_text(), flags=re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        type_in(line, tmp_path)


def figures(text: str) -> set[str]:
    """Return the cells of tables that are a figure: mean and spread."""
    return set(re.findall(r"-?\d+(?:\.\d+)? \+- \d+(?:\.\d+)?", text))


OLDER = "What is older than the window"
AT_THE_END = "Returns at the end"


def test_figures_of_the_readme_stand_in_the_evidence() -> None:
    evidence = (DOCS / "evidence.md").read_text()
    table = section(README, "What you gain, and the price")
    assert figures(table)
    assert figures(table) <= figures(evidence)
    first_page = figures(" ".join((DOCS / "index.md").read_text().split()))
    assert len(first_page) == 4
    assert first_page <= figures(table)
    numbers = set(re.findall(r"\d+,\d{3}", table))
    assert numbers
    assert numbers <= set(re.findall(r"\d+,\d{3}", evidence))


def over_seeds(means: "pd.Series[float]") -> str:
    """Return a cell of the pages: mean over seeds, spread and the worst of them if there are several, how many."""
    spread = f" +- {means.std():.1f} ({means.min():.1f})" if len(means) > 1 else ""
    return f"{means.mean():.1f}{spread}, {len(means)}"


@pytest.mark.parametrize("env_id", list(YARDSTICKS))
def test_yardsticks_are_those_of_the_file(env_id: str) -> None:
    """The page's row, and what ``make train`` prints beside a score."""
    page = section(DOCS / "evidence.md", "What the settings reach")
    ((steps, *cells),) = re.findall(
        rf"^\| `{env_id}` \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", page, flags=re.MULTILINE
    )
    assert int(steps.replace(",", "")) == settings(env_id).n_timesteps
    results = pd.read_csv(DOCS / "yardstick.csv")
    of_task = results[results["task"] == env_id.removeprefix("sb3_ncde/")].groupby("agent")["mean"]
    found = {str(agent): means for agent, means in of_task}
    names = ("NCDEPolicy", "PPO sees the same", "PPO sees the velocity too")
    assert cells == [over_seeds(found[agent]) for agent in names]
    assert YARDSTICKS[env_id].memoryless == f"{found[names[1]].mean():.0f}"
    if ":" in YARDSTICKS[env_id].most:
        assert YARDSTICKS[env_id].most.endswith(f": {found[names[2]].mean():.0f}")


def test_picture_of_the_readme_is_drawn_from_the_runs(tmp_path: Path) -> None:
    """And what it draws is what the README says."""
    script = runpy.run_path(str(DOCS / "irregular_picture.py"))
    script["main"](["--output", str(tmp_path)])
    assert (tmp_path / "irregular.png").read_bytes().startswith(b"\x89PNG")
    results = script["read"]()
    (cells,) = re.findall(
        r"^\| return, the same agents with always 5 steps \| (.*) \|$", README.read_text(), re.MULTILINE
    )
    drawn = [results.loc[(results["agent"] == agent) & (results["other"] == 5), "mean"] for agent in script["COLORS"]]
    expected = [f"{means.mean():.0f} +- {means.std():.0f}" for means in drawn]
    assert cells.replace("**", "").split(" | ") == expected


def test_terms_have_one_meaning() -> None:
    """``skip``, ``dt`` and ``period`` are explained where the arguments are."""
    page = (DOCS / "arguments.md").read_text()
    for term in ("skip", "dt", "period"):
        assert re.search(rf"^\| `{term}`", page, flags=re.MULTILINE), term


def test_a_part_of_the_suite_runs_as_a_part() -> None:
    """``make test ARGS=tests/test_sensors.py`` is of that file alone, and without the coverage of all."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/test_sensors.py"]
    collected = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(line.startswith("tests/test_sensors.py") for line in collected.splitlines() if "::" in line)
    assert "$(or $(ARGS),-n 2 --cov)" in (ROOT / "Makefile").read_text()


def test_figures_of_long_memory_are_those_of_the_file() -> None:
    """Each row of the page's two tables, from the agents one by one."""
    results = pd.read_csv(DOCS / "memory.csv")
    first, second = rows_of(OLDER), rows_of(AT_THE_END)
    assert [row[0] for row in (*first, *second)] == list(results["task"].unique())
    ours, *others = "NCDEPolicy, traces", "traces alone", "MlpLstmPolicy 64", "stacked frames"
    reaching = (ours, "NCDEPolicy, traces, unit", *others)

    def runs_of(task: str, steps: str, agent: str) -> list[pd.DataFrame]:
        of_task = results[results["task"] == task]
        assert int(steps.replace(",", "")) == of_task["steps"].max()
        return [run for _, run in of_task[of_task["agent"] == agent].groupby("seed")]

    for task, steps, *cells in first:
        for agent, cell in zip(reaching, cells, strict=True):
            runs = runs_of(task, steps, agent)
            firsts = [run.loc[run["mean"] >= 0.95, "steps"].min() for run in runs]
            expected = "-"
            if runs and not pd.isna(firsts).any():
                expected = f"{max(firsts):,.0f}, {len(runs)}"
            elif runs:
                expected = f"never ({min(run['mean'].iloc[-1] for run in runs):.2f}), {len(runs)}"
            assert cell == expected, (task, agent)
    for task, steps, *cells, _published in second:
        for agent, cell in zip((ours, *others), cells, strict=True):
            means = pd.Series([run["mean"].iloc[-1] for run in runs_of(task, steps, agent)])
            spread = f" +- {means.std():.2f} ({means.min():.2f})" if len(means) > 1 else ""
            expected = f"{means.mean():.2f}{spread}, {len(means)}" if len(means) else "-"
            assert cell == expected, (task, agent)


def test_figures_of_other_algorithms_are_those_of_the_file() -> None:
    """Each row of the page's table and the README's, from the agents one by one."""
    results = pd.read_csv(DOCS / "off_policy.csv")
    for page in (DOCS / "algorithms.md", README):
        rows = re.findall(r"^\| (\w+?)(?:NoVel)?, [\w-]+ \| ([\d,]+) \| (.*) \|$", page.read_text(), re.MULTILINE)
        assert {row[0] for row in rows} == set(results["task"])
        for task, steps, cells in rows:
            of_row = results[(results["task"] == task) & (results["steps"] == int(steps.replace(",", "")))]
            for agent, cell in zip(("memory", "stacked frames", "full state"), cells.split(" | "), strict=True):
                means = of_row.loc[of_row["agent"] == agent, "mean"]
                assert cell == (over_seeds(means) if len(means) else "-"), (page.name, task, agent)


def test_seconds_of_other_algorithms_are_those_of_the_file() -> None:
    page = (DOCS / "algorithms.md").read_text().split("Seconds of a training")[1].split("What the figures say")[0]
    rows = re.findall(r"^\| (\w+?)(?:NoVel)? \| ([\d, |-]+) \|$", page, re.MULTILINE)
    results = pd.read_csv(DOCS / "off_policy.csv")
    assert {row[0] for row in rows} == set(results["task"])
    for task, cells in rows:
        of_task = results[results["task"] == task]
        last = of_task[of_task["steps"] == of_task["steps"].max()]
        for agent, cell in zip(("memory", "stacked frames", "full state"), cells.split(" | "), strict=True):
            seconds = last.loc[last["agent"] == agent, "seconds"].dropna()
            assert cell == (f"{int(seconds.median()):,}" if len(seconds) else "-"), (task, agent)


def test_latencies_are_those_of_the_file() -> None:
    """Each cell of the page's table."""
    results = pd.read_csv(DOCS / "deploy.csv")
    page = (DOCS / "deployment.md").read_text().replace("`", "")
    cells = [f"{median} / {high}" for median, high in zip(results["median"], results["percentile_99"], strict=True)]
    for number, name in enumerate(results["agent"].unique()):
        assert f"| {name} | {' | '.join(cells[3 * number : 3 * number + 3])} |" in page, name


LEARNED = {
    "Irregular Pendulum": "irregular Pendulum",
    "Irregular CartPole": "irregular CartPole",
    "Irregular Pendulum, the previous action hidden": "irregular Pendulum, actions hidden",
    "Irregular CartPole, the previous action hidden": "irregular CartPole, actions hidden",
    "A quarter of the values missing": "Pendulum, a quarter missing",
}
"""Of the page's titles, the tasks of ``benchmarks/learning.py``."""


@pytest.mark.parametrize("title", LEARNED)
def test_tables_of_what_was_learned_are_those_of_the_runs(title: str) -> None:
    """Each cell, from the files of the runs one by one: at the end, and with other sensors where the table has them."""
    (head,) = re.findall(r"^\| (agent .*) \|$", section(DOCS / "evidence.md", title), re.MULTILINE)
    rows = [dict(zip(head.split(" | "), row, strict=True)) for row in rows_of(title)]
    runs: dict[str, list[pd.DataFrame]] = {}
    for file in sorted((DOCS / "learning" / "runs").glob("*.csv")):
        about = json.loads(file.read_text().split("\n")[0][1:])
        if about["task"] == LEARNED[title]:
            runs.setdefault(about["agent"], []).append(pd.read_csv(file, comment="#"))
    assert {row["agent"] for row in rows} == runs.keys()
    for row in rows:
        found = runs[row["agent"]]
        ends = [run[run["other"].isna()].iloc[-1] for run in found]
        means = pd.Series([end["mean"] for end in ends])
        assert row["return"] == f"{means.mean():.0f} +- {means.std():.0f} ({means.min():.0f})"
        assert row["seeds"] == str(len(found))
        assert row["seconds of a core"] == f"{pd.Series([end['cpu_seconds'] for end in ends]).median():.0f}"
        for column in row.keys() - {"agent", "return", "seeds", "seconds of a core"}:
            number = float(column.split()[0].rstrip("%")) / (100 if "%" in column else 1)
            other = pd.Series([run.loc[run["other"] == number, "mean"].item() for run in found])
            assert row[column] == f"{other.mean():.0f} +- {other.std():.0f}", (row["agent"], column)


def rows_of(title: str) -> list[list[str]]:
    """Return the cells of the table under a title of the evidence, row by row, without the head and without marks."""
    page = section(DOCS / "evidence.md", title).replace("`", "").replace("**", "")
    return [[cell.strip() for cell in line.split("|")] for line in re.findall(r"^\|(.*)\|$", page, re.MULTILINE)[2:]]


def test_returns_with_masks_are_those_of_the_file() -> None:
    results = pd.read_csv(DOCS / "masked.csv").groupby("policy", sort=False)["mean"]
    expected = [
        [str(policy), f"{means.mean():.2f}", ", ".join(f"{mean:.2f}" for mean in means)] for policy, means in results
    ]
    assert rows_of("A task for mask and memory") == expected


def test_ratios_of_solvers_are_those_of_the_file() -> None:
    kept = pd.read_csv(DOCS / "ratio.csv", dtype=str, keep_default_na=False).to_numpy().tolist()
    assert rows_of("Adaptive solvers") == kept
    times = [float(row[-1]) for row in kept if row[1]]
    for page in ("evidence", "how-it-works", "troubleshooting"):
        assert f"{min(times):.0f} to {max(times):.0f} times slower" in (DOCS / f"{page}.md").read_text()


@pytest.mark.parametrize("task", ["pendulum", "cartpole", "missing", "wide", "images"])
def test_speeds_are_those_of_the_script(task: str) -> None:
    """Each row of what ``benchmarks/speed.py`` has kept, rollout, update and total, stands on the page."""
    page = (DOCS / "evidence.md").read_text().split("## Speed")[1].split("\n## ")[0]
    kept = (DOCS / "speed" / f"{task}.txt").read_text()
    rows = re.findall(r"^│ .* │ +([\d,]+) │ +([\d,]+) │ +([\d,]+) │", kept, re.MULTILINE)
    assert rows
    for speeds in rows:
        assert " | ".join(speeds) in page, speeds


def test_speeds_of_sac_are_those_of_the_script() -> None:
    page = (DOCS / "algorithms.md").read_text()
    kept = (DOCS / "speed" / "off_policy.txt").read_text()
    (stacked,) = re.findall(r"^│ 4 stacked frames +│(.*)│$", kept, re.MULTILINE)
    update, step, exported = [cell.strip().replace(" - ", " to ") for cell in stacked.split("│")][-3:]
    assert f"| an update of SAC, 256 transitions | {update} |" in page
    assert f"| acting: `predict` and the environment | {step} |" in page
    assert f"| the same, [exported](deployment.md): `Agent.act` in NumPy | {exported} |" in page
    (robot,) = re.findall(r"^│ memory, exported +│(.*)│$", kept, re.MULTILINE)
    acting = [cells.split("│")[2].strip() for cells in (robot, stacked)]
    said = re.findall(r"takes ([\d.]+) ms here, SB3's `predict` on stacked frames ([\d.]+) ms", " ".join(page.split()))
    assert said == [tuple(acting)]


def test_the_time_of_predict_is_that_of_the_script() -> None:
    page = (DOCS / "evidence.md").read_text().split("## Speed")[1].split("\n## ")[0]
    rows = re.findall(r"([\d,]+) us │ +([\d,]+) us │ +([\d.]+) │", (DOCS / "speed" / "predict.txt").read_text())
    assert len(rows) == 4
    for median, high, ratio in rows:
        assert f"| {median} us | {int(high):,} us | {ratio} |" in page
