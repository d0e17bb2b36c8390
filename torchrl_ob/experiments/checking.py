"""What can be told of a config before anything is built."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from torchrl_ob.experiments.errors import ExperimentError

__all__ = ["check_config"]

POSITIVE = (
    "total_frames",
    "env.num_envs",
    "env.max_steps",
    "collector.frames_per_batch",
    "trainer.num_epochs",
    "trainer.minibatch_size",
    "checkpoint.interval",
    "checkpoint.keep",
    "evaluation.interval",
    "evaluation.num_envs",
)
SEEDS = ("seed", "evaluation.seed")
SWITCHES = (
    "env.continuous_actions",
    "env.parallel",
    "env.use_mask",
    "env.shared_reward",
    "trainer.normalize_advantage",
    "trainer.compile",
    "trainer.dueling_fit.compile",
    "progress_bar",
)


def check_config(config: DictConfig) -> None:
    """Check values, sizes, and that the parts fit one another.

    Raises:
        ExperimentError: in one line, with the remedy.
    """
    _check_values(config)
    frames, envs = config.collector.frames_per_batch, config.env.num_envs
    _divides("collector.num_workers", config.collector.get("num_workers", 1), "env.num_envs", envs)
    _divides("env.num_envs", envs, "collector.frames_per_batch", frames)
    _divides("collector.frames_per_batch", frames, "total_frames", config.total_frames)
    _divides(
        "collector.frames_per_batch", frames, "checkpoint.interval", config.checkpoint.interval
    )
    _divides(
        "collector.frames_per_batch", frames, "evaluation.interval", config.evaluation.interval
    )
    if config.trainer.minibatch_size > frames:
        raise ExperimentError(
            f"trainer.minibatch_size={config.trainer.minibatch_size} is larger than "
            f"collector.frames_per_batch={frames}: lower it."
        )
    whole = config.trainer.num_epochs == 1 and config.trainer.minibatch_size == frames
    if config.loss._target_.endswith(("A2CLoss", "ReinforceLoss")) and not whole:
        raise ExperimentError(
            f"{config.loss._target_.rsplit('.')[-1]} has no ratio of policies and takes one step a batch: "
            f"take trainer.num_epochs=1 trainer.minibatch_size={frames}."
        )
    tau = config.trainer.target_tau
    if not isinstance(tau, int | float) or not 0 < tau <= 1:
        raise ExperimentError(f"trainer.target_tau must be above 0 and at most 1, got {tau!r}.")
    is_gae = config.advantage._target_.endswith("gae")
    is_value = config.critic._target_.endswith("state_value_from_env")
    if is_gae and not is_value:
        raise ExperimentError(
            "advantage=gae needs V(s), and the critic reads the action: take critic=state_value."
        )
    if is_gae and config.loss.get("delay_value", False):
        raise ExperimentError(
            "a loss with a target critic, such as loss=reinforce, needs an advantage of the joint action: "
            "take advantage=coma, or loss.delay_value=false."
        )
    if not is_gae and is_value:
        raise ExperimentError(
            f"{config.advantage._target_.rsplit('.')[-1]} needs Q(s, a), and the critic is a state "
            "value: take critic=pooled or critic=concat."
        )
    if "DuelingCritic" in config.critic._target_ and config.loss.critic_coeff != 0:
        raise ExperimentError(
            "critic=dueling is fitted apart from the loss: take experiment=dueling, or "
            "loss.critic_coeff=0.0 beside it."
        )
    normed = "_target_" in config.value_norm
    if normed and not config.loss._target_.endswith(("MAPPOLoss", "IPPOLoss")):
        raise ExperimentError(
            "a value norm is updated by MAPPOLoss and IPPOLoss alone: take loss=mappo or loss=ippo."
        )

    if normed and config.trainer.compile:
        raise ExperimentError(
            "trainer.compile=true cannot compile a value norm, which changes while the loss is "
            "computed: take value_norm=none."
        )


def _check_values(config: DictConfig) -> None:
    for key in (*POSITIVE, *SEEDS):
        value = OmegaConf.select(config, key)
        low, high = (0, 2**32 - 1) if key in SEEDS else (1, None)
        if type(value) is not int or value < low or (high is not None and value > high):
            kind = f"a whole number from {low} to {high}" if high else "a whole number, 1 or more"
            raise ExperimentError(f"{key} must be {kind}, got {value!r}.")
    for key in SWITCHES:
        value = OmegaConf.select(config, key, default=False)  # an environment may lack its own
        if type(value) is not bool:
            raise ExperimentError(f"{key} must be true or false, got {value!r}.")
    if not isinstance(config.resume, str | None):
        raise ExperimentError(
            f"resume must be auto, the path of a run or of a checkpoint, or null, got {config.resume!r}."
        )


def _divides(small_name: str, small: int, large_name: str, large: int) -> None:
    if small < 1 or large < 1 or large % small:
        raise ExperimentError(
            f"{large_name}={large} must be a multiple of {small_name}={small}, both positive."
        )
