"""The command ``sb3-ncde hub``: a trained agent in a folder, with a model card, ready for the Hugging Face hub.

Nothing is uploaded here. Files are named as ``huggingface_sb3`` and the RL Zoo name them, which find them by that.
"""

import json
import shutil
from datetime import datetime, timezone
from pathlib import Path
from zipfile import ZipFile

import yaml
from huggingface_hub import EvalResult, ModelCardData
from huggingface_sb3 import ModelName, ModelRepoId
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_ncde.deploy.export import export_numpy, export_onnx
from sb3_ncde.zoo.registration import ALGO
from sb3_ncde.zoo.trained import Trained, load, parser_of_agents

CARD = """# {algorithm} with a continuous-time memory, on {env}

An agent of sb3_ncde: {policy}, {history_length} observations of memory.
Its mean return in {n_episodes} deterministic episodes is {mean:.2f} +- {spread:.2f}.

## Use

On a robot, with NumPy and sb3_ncde (`pip install --no-deps`) alone:

    agent = sb3_ncde.deploy.Agent.load("agent.npz")
    action = agent.act(observation)

`agent.onnx` is the same for ONNX Runtime. In Stable-Baselines3, with `vec_normalize.pkl` if it is there:

    from huggingface_sb3 import load_from_hub

    model = {algorithm}.load(load_from_hub("{repo}", "{model_file}"))

## Export

Largest differences from PyTorch, of {observations} observations: {differences}.
SHA-256 of the weights: `{sha256}`.

## Settings

```yaml
{settings}```
"""


def main() -> None:
    """Make the folder of an agent, and say how to upload it."""
    parser = parser_of_agents("Makes a model card and the files of an agent, and says how to put them on the hub.")
    parser.add_argument("-orga", "--organization", required=True, help="user or organization of the hub")
    parser.add_argument("--repo-folder", type=Path, default=Path("hub"), help="folder to make the agent's folder in")
    parser.add_argument("--episodes", type=int, default=10, help="of the evaluation")
    options = parser.parse_args()
    name = ModelName(options.algo, options.env)
    folder = options.repo_folder / name
    folder.mkdir(parents=True, exist_ok=True)
    repo = ModelRepoId(options.organization, name)
    write_files(load(options), folder, options.algo, repo, options.episodes)
    print(f"The model card and the files are in {folder}. With an account: hf upload {repo} {folder}")


def write_files(trained: Trained, folder: Path, algo: str, repo: str, n_episodes: int) -> None:
    """Write all that the hub is to have of an agent.

    :param trained: the agent
    :param folder: for the files
    :param algo: the algorithm's name in the RL Zoo
    :param repo: its name on the hub
    :param n_episodes: of the evaluation
    """
    model, env_id = trained.model, trained.name.gym_id
    evaluated = evaluate_policy(model, trained.env, n_episodes)
    mean, spread = (float(value) for value in evaluated)  # type: ignore[arg-type]  # lists where each return is asked for
    results = {
        "mean_reward": mean,
        "std_reward": spread,
        "is_deterministic": True,
        "n_eval_episodes": n_episodes,
        "eval_datetime": datetime.now(timezone.utc).isoformat(),
    }
    (folder / "results.json").write_text(json.dumps(results))

    model_file = ModelName(algo, trained.name).filename
    shutil.copy(trained.path, folder / model_file)
    names = {"args.yml": "args.yml", "config.yml": "config.yml", "vecnormalize.pkl": "vec_normalize.pkl"}
    for file in trained.folder.iterdir():
        if file.name in names:
            shutil.copy(file, folder / names[file.name])
    (folder / "env_kwargs.yml").write_text(yaml.dump(trained.env_kwargs))
    with ZipFile(folder / "train_eval_metrics.zip", "w") as archive:
        logs = trained.folder.parent
        for path in sorted([*logs.glob("evaluations.npz"), *logs.glob("*.csv")]):
            archive.write(path, path.name)

    export_numpy(model, folder / "agent.npz")
    told = export_onnx(model, folder / "agent.onnx")
    differences = told["parity"]["largest_difference"].items()
    result = EvalResult(
        task_type="reinforcement-learning",
        task_name="reinforcement-learning",
        dataset_type=env_id,
        dataset_name=env_id,
        metric_type="mean_reward",
        metric_name="mean_reward",
        metric_value=f"{mean:.2f} +/- {spread:.2f}",
    )
    tags = [env_id, "deep-reinforcement-learning", "reinforcement-learning", "stable-baselines3", "sb3-ncde"]
    data = ModelCardData(library_name="stable-baselines3", tags=tags, model_name=algo, eval_results=[result])
    card = CARD.format(
        algorithm="RecurrentPPO" if algo == ALGO else told["algorithm"],
        policy=told["policy"],
        env=env_id,
        repo=repo,
        model_file=model_file,
        history_length=told["encoder"]["description"]["layout"]["rule"]["history_length"],
        n_episodes=n_episodes,
        mean=mean,
        spread=spread,
        observations=told["parity"]["observations"],
        differences=", ".join(f"{name} {largest:.1e}" for name, largest in differences),
        sha256=told["sha256"],
        settings=(trained.folder / "config.yml").read_text(),
    )
    (folder / "README.md").write_text(f"---\n{data.to_yaml()}\n---\n\n{card}")
