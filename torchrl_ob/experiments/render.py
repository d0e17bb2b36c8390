"""One episode of a trained run as a GIF, drawn without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchrl.render import RenderConfig, collect_render_rollouts
from torchrl.render.video import encode_gif

from torchrl_ob._rng import isolated_rng
from torchrl_ob.diagnostics.branching.simulator import is_vmas
from torchrl_ob.experiments.errors import ExperimentError, writing
from torchrl_ob.experiments.evaluation import EXPLORATION, Evaluation
from torchrl_ob.experiments.saved import trained_evaluation

__all__ = ["render_run"]

MODE = "rgb_array"


def render_run(
    folder: Path | str,
    path: Path | str | None = None,
    *,
    exploration: str = "deterministic",
    trust: bool = False,
    config_dir: Path | str | None = None,
) -> Path:
    """Draw one episode of a run's newest checkpoint, at the speed of the simulator.

    It is the episode whose reward ``evaluate_run(folder, episodes=1)`` gives, from its start to its
    end. Frames in which nothing moves are kept as one that is shown for longer. The random numbers
    of torch, numpy and python are left as they were.

    Args:
        folder: of the run.
        path: of the GIF; by default in the run's folder, named by the exploration.
        exploration: ``"deterministic"`` or ``"stochastic"``.
        trust: whether code that the folder names, and that is not torchrl_ob's own, may be called.
        config_dir: a folder of the user's own configs: code that they name may be called.

    Returns:
        The path of the GIF.

    Raises:
        ExperimentError: for a path of another suffix or that cannot be written, where the folder
            has no run or no checkpoint or names foreign code, for another environment than VMAS's, and where the machine
            cannot draw.
    """
    folder, path = Path(folder), None if path is None else Path(path)
    if path is None:
        path = folder / f"{exploration}.gif"
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise ExperimentError(
                f"cannot write {path}: what is there is no file. Remove it, or give --output."
            )
    if path.suffix.lower() != ".gif":
        raise ExperimentError(f"cannot write {path}: give a name that ends in .gif.")
    evaluation = trained_evaluation(folder, episodes=1, trust=trust, config_dir=config_dir)
    if not is_vmas(evaluation.env):
        raise ExperimentError(f"{folder} is not of VMAS, and render draws VMAS scenarios alone.")
    with isolated_rng(evaluation.seed, evaluation.env):
        frames = _episode(evaluation, exploration)
    with writing(f"the episode to {path}", "give another path"):
        path.parent.mkdir(parents=True, exist_ok=True)
        encode_gif(frames, path, fps=1 / evaluation.env.world.dt)
    return path


def _episode(evaluation: Evaluation, exploration: str) -> list[Any]:
    """A frame of the start and one after every step, until the episode is done."""
    env = evaluation.env
    try:
        env.render(mode=MODE)
    except Exception as error:
        if not isinstance(error, ImportError) and not type(error).__module__.startswith("pyglet"):
            raise  # pyglet has several of its own for what the machine lacks
        raise ExperimentError(
            f"VMAS cannot draw here ({error.__context__ or error}): install EGL and OpenGL, with "
            "apt-get install libegl1 libgl1 libglu1-mesa on Debian and Ubuntu."
        ) from error
    env.set_seed(evaluation.seed)
    config = RenderConfig(
        ckpt="",  # it need not make the policy and the environment: both are here
        policy="",
        env="",
        max_steps=evaluation.max_steps,
        exploration_mode=EXPLORATION[exploration].name.lower(),
        render_backend="env",
        render_mode=MODE,
    )
    (bundles,) = collect_render_rollouts(env, evaluation.policy, config).frames
    env.viewer.close()
    return [bundle.frames["default"] for bundle in bundles]
