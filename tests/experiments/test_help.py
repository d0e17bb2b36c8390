"""What ``train --help`` prints: the config that would run, each key with the comment of its file."""

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from short_runs import GROUPS

from torchrl_ob.experiments.config.help import list_options, read_remark, write_help
from torchrl_ob.train import config_folder, main

CONFIGS = config_folder()


def lines(*overrides):
    text = write_help(overrides, CONFIGS)
    return text, {x.name: x for x in list_options(text.partition("overrides:\n")[2])}


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("advantage=ob_critic", "optimizer.lr=0.5", "experiment=[team_reward,smoke]"),
        ("logger=[wandb,tensorboard]", "env=smax", "scheduler=constant"),
    ],
)
def test_it_is_the_config_that_would_run_and_yaml(overrides):
    text, _ = lines(*overrides)
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = OmegaConf.to_container(compose("train", [*overrides]))
    assert yaml.safe_load(text.partition("overrides:\n")[2]) == yaml.safe_load(
        OmegaConf.to_yaml(config)
    )


def test_every_comment_of_the_files_is_there():
    _, found = lines()
    text = (CONFIGS / "train.yaml").read_text()
    for option in list_options(text):
        if not option.name.startswith("hydra"):
            assert (
                option.name.startswith("defaults") or found[option.name].comment == option.comment
            )
    for group in GROUPS:
        chosen = {"env": "vmas", "optimizer": "adam", "advantage": "ob"}.get(group)
        if chosen:
            for option in list_options((CONFIGS / group / f"{chosen}.yaml").read_text()):
                assert found[f"{group}.{option.name}"].comment == option.comment


def test_comments_are_of_the_choice_and_of_what_it_starts_from_alone():
    _, found = lines("advantage=ob_expected")
    own = {x.name: x for x in list_options((CONFIGS / "advantage/ob_expected.yaml").read_text())}
    parent = {x.name: x for x in list_options((CONFIGS / "advantage/ob.yaml").read_text())}
    assert found["advantage.bootstrap"].comment == own["bootstrap"].comment
    assert found["advantage.gamma"].comment == parent["gamma"].comment
    assert found["advantage"].comment == "advantage=ob_expected"
    _, found = lines("advantage=ob_critic")
    assert found["advantage.bootstrap"].comment == parent["bootstrap"].comment
    _, found = lines("logger=[wandb,tensorboard]")
    for name in ("wandb", "tensorboard"):
        remark = read_remark((CONFIGS / f"logger/{name}.yaml").read_text())
        assert found[f"logger.{name}"].comment == f"logger={name}: {remark}"


def test_the_command_prints_it(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["torchrl-ob", "train", "--help", "seed=7"])
    main()
    out = capsys.readouterr().out
    assert "\nseed: 7\n" in out
    assert "\ndevice: auto  # cuda where there is one\n" in out
    monkeypatch.setattr("sys.argv", ["torchrl-ob", "train", "--help", "sed=7"])
    with pytest.raises(SystemExit, match="the config has no 'sed': did you mean 'seed'"):
        main()
