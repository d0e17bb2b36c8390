"""BenchMARL's MAPPO at the sizes of ``training_loop.py``, which starts this in BenchMARL's own environment.

Given frames, environments, steps, epochs, the size of a minibatch, the learning rate and batches, it trains for
one batch at each line of its input, and answers with the mean reward of the episodes that ended. By hand:
``yes | python benchmarks/benchmarl_loop.py 6000 60 100 30 400 1e-3 3``.
"""

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from benchmarl.algorithms import MappoConfig
from benchmarl.environments import VmasTask
from benchmarl.experiment import Callback, Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig

warnings.simplefilter("ignore")


class InTurns(Callback):
    """Waits for a line before each batch, and answers when it has learned from it."""

    def on_setup(self) -> None:
        """Wait for the first."""
        sys.stdin.readline()

    def on_train_end(self, training_td: Any, group: str) -> None:
        """Answer, and wait for the next; none at the end."""
        print(f"reward {self.experiment.mean_return}", flush=True)
        sys.stdin.readline()


def train(folder: Path, sizes: list[str]) -> None:
    """Run it, with nothing written but its JSON file."""
    frames, envs, steps, epochs, minibatch, rate, batches = sizes
    config = ExperimentConfig.get_from_yaml()
    config.on_policy_collected_frames_per_batch = int(frames)
    config.on_policy_n_envs_per_worker = int(envs)
    config.on_policy_n_minibatch_iters = int(epochs)
    config.on_policy_minibatch_size = int(minibatch)
    config.lr, config.clip_grad_val = float(rate), 1.0
    config.max_n_iters, config.max_n_frames = int(batches), None
    config.loggers, config.evaluation, config.create_json = [], False, False
    config.save_folder = str(folder)
    task = VmasTask.NAVIGATION.get_from_yaml()
    task.config["max_steps"] = int(steps)
    algorithm = MappoConfig.get_from_yaml()
    algorithm.entropy_coef = 1e-4
    networks = MlpConfig.get_from_yaml()  # two layers of 256 with tanh
    experiment = Experiment(
        task=task,
        algorithm_config=algorithm,
        model_config=networks,
        critic_model_config=networks,
        seed=0,
        config=config,
        callbacks=[InTurns()],
    )
    experiment.run()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        train(Path(scratch), sys.argv[1:])
