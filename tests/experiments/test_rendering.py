"""A GIF of a run: the episode of the evaluation, whole, at the speed of the simulator."""

import random
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image, ImageSequence
from vmas.simulator.environment import Environment

from torchrl_ob.experiments import render as rendering
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.render import render_run
from torchrl_ob.experiments.run import run
from torchrl_ob.experiments.saved import trained_evaluation
from torchrl_ob.train import config_folder, main

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning"),
    pytest.mark.filterwarnings("ignore:Force limits not specified:UserWarning"),
]

STEPS = 6
TINY = (
    "experiment=smoke",
    "progress_bar=false",
    "device=cpu",
    "total_frames=60",
    f"env.max_steps={STEPS}",
    "collector.frames_per_batch=60",
    "trainer.minibatch_size=60",
    "evaluation.interval=60",
    "checkpoint.interval=60",
)

REMEMBER = {"balance": ("policy=gru", "trainer.sequence_length=3")}  # its state is carried


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function from a scenario to the folder of a run of it."""
    folders = {}

    def train(scenario):
        if scenario not in folders:
            folders[scenario] = tmp_path_factory.mktemp(scenario)
            overrides = [*TINY, f"env.scenario={scenario}", *REMEMBER.get(scenario, ())]
            with initialize_config_dir(str(config_folder()), version_base="1.3"):
                config = compose("train", overrides)
            run(config, folders[scenario])
        return folders[scenario]

    return train


def images(path):
    """Frames of a GIF and for how many milliseconds each is shown."""
    with Image.open(path) as gif:
        frames = [
            (np.array(frame.convert("RGB")), frame.info["duration"])
            for frame in ImageSequence.Iterator(gif)
        ]
    return [list(column) for column in zip(*frames, strict=True)]


@pytest.mark.parametrize(("scenario", "seconds"), [("balance", 0.1), ("give_way", 0.05)])
def test_a_frame_for_the_start_and_for_every_step_each_as_long_as_a_step(
    scenario, seconds, trained
):
    path = render_run(trained(scenario))
    assert path == trained(scenario) / "deterministic.gif"
    frames, durations = images(path)
    assert durations == [1000 * seconds] * (STEPS + 1)
    assert all((x != y).any() for x, y in pairwise(frames))


def test_time_goes_on_where_nothing_moves(trained, tmp_path, monkeypatch):
    still = np.zeros((8, 8, 3), dtype=np.uint8)
    env = trained_evaluation(trained("balance"), episodes=1).env
    env.render(mode="rgb_array")
    monkeypatch.setattr(type(env.viewer), "get_array", lambda _: still)
    _, durations = images(render_run(trained("balance"), tmp_path / "still.gif"))
    assert durations == [100 * (STEPS + 1)]


@pytest.mark.parametrize("exploration", ["deterministic", "stochastic"])
def test_the_episode_is_that_of_the_evaluation(exploration, trained, tmp_path, monkeypatch):
    found = []

    def collect(*arguments):
        found.append(collect_render_rollouts(*arguments))
        return found[0]

    collect_render_rollouts = rendering.collect_render_rollouts
    monkeypatch.setattr(rendering, "collect_render_rollouts", collect)
    folder = trained("balance")
    render_run(folder, tmp_path / "new" / "a.gif", exploration=exploration)
    (episode,) = found[0].trajectories
    expected = trained_evaluation(folder, episodes=1).episodes(exploration)["reward"]
    assert episode["next", "agents", "episode_reward"][:, -1].mean((-2, -1)).equal(expected)
    assert episode["next", "done"].flatten().tolist() == [False] * (STEPS - 1) + [True]


def test_explorations_differ_and_each_is_drawn_the_same_again(trained, tmp_path):
    folder = trained("balance")
    draw = partial(render_run, folder, tmp_path / "again.gif")
    first = {x: render_run(folder, exploration=x) for x in ("deterministic", "stochastic")}
    assert len({path.read_bytes() for path in first.values()}) == 2
    torch.manual_seed(6)
    for exploration, path in first.items():
        assert draw(exploration=exploration).read_bytes() == path.read_bytes()


def test_random_numbers_are_left_as_they_were(trained, tmp_path):
    def draw():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()  # noqa: NPY002

    def seed():
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002
        random.seed(5)

    folder = trained("balance")
    seed()
    expected = draw()
    seed()
    render_run(folder, tmp_path / "a.gif", exploration="stochastic")
    assert draw() == expected


@pytest.mark.parametrize("name", ["a.mp4", "gif", "a.gif.png"])
def test_another_suffix_is_refused_before_the_run_is_read(name, tmp_path):
    with pytest.raises(ExperimentError, match=r"give a name that ends in \.gif"):
        render_run(tmp_path / "nothing", tmp_path / name)
    assert not list(tmp_path.iterdir())


class NoSuchDisplayException(Exception):
    """As pyglet's, whose module cannot be imported everywhere."""

    __module__ = "pyglet.canvas.xlib"


def failing(monkeypatch, error):
    def fail(_):
        raise error

    monkeypatch.setattr(Environment, "_init_rendering", fail)


@pytest.mark.parametrize(
    "error", [NoSuchDisplayException('Cannot connect to "None"'), ImportError('Library "GL"')]
)
def test_a_machine_that_cannot_draw_is_told_what_to_install(error, trained, tmp_path, monkeypatch):
    failing(monkeypatch, error)
    with pytest.raises(ExperimentError, match="apt-get install libegl1 libgl1") as told:
        render_run(trained("balance"), tmp_path / "a.gif")
    assert str(error) in str(told.value)
    assert "\n" not in str(told.value)
    assert not list(tmp_path.iterdir())


def test_a_scenario_that_cannot_be_drawn_is_not_laid_on_the_machine(trained, monkeypatch):
    failing(monkeypatch, AttributeError("of a scenario"))
    with pytest.raises(AttributeError, match="of a scenario"):
        render_run(trained("balance"))


def test_a_path_that_cannot_be_written_is_told(trained, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ExperimentError, match=r"cannot write .*a\.gif.*another path"):
        render_run(trained("balance"), tmp_path / "file" / "a.gif")


def test_the_command_prints_where_the_gif_is(trained, tmp_path, monkeypatch, capsys):
    path = tmp_path / "mine.gif"
    options = ["--output", str(path), "--exploration", "stochastic"]
    monkeypatch.setattr("sys.argv", ["torchrl-ob", "render", str(trained("balance")), *options])
    main()
    assert capsys.readouterr().out == f"{path}\n"
    other = render_run(trained("balance"), tmp_path / "other.gif", exploration="stochastic")
    assert path.read_bytes() == other.read_bytes()
