"""The command ``sb3-ncde export``: a trained agent as one file, for ONNX Runtime or for NumPy alone."""

from pathlib import Path
from typing import Any

from sb3_ncde.deploy.export import Comparison, export_numpy, export_onnx
from sb3_ncde.zoo.trained import load, parser_of_agents

FORMATS = {"onnx": (export_onnx, ".onnx"), "numpy": (export_numpy, ".npz")}


def main() -> None:
    """Load an agent, compare it in its environment with what is exported of it, and write the file."""
    parser = parser_of_agents(
        "Writes a trained agent to one file: raw observations in, actions of the environment out."
    )
    parser.add_argument("--format", default="onnx", choices=list(FORMATS), help="for ONNX Runtime, or for NumPy alone")
    parser.add_argument("-o", "--output", type=Path, help="the file; None: named after the environment")
    parser.add_argument("--episodes", type=int, default=20, help="of the environment to compare the agent in")
    parser.add_argument(
        "--tolerance", type=float, default=Comparison().tolerance, help="of the difference from PyTorch"
    )
    options = parser.parse_args()
    trained = load(options)
    export, suffix = FORMATS[options.format]
    output = options.output or Path(f"{trained.name}{suffix}")
    raw: Any = trained.env.unwrapped
    export(trained.model, output, env=raw.envs[0], n_episodes=options.episodes, tolerance=options.tolerance)
    print(f"Saved to {output}")
