"""Agents that are dead or have no choice, and actions that are not available."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.modules import MaskedCategorical, ProbabilisticActor
from torchrl.objectives import A2CLoss, ClipPPOLoss

from torchrl_ob import ComaAdvantage, JointQCritic, ObAdvantage
from torchrl_ob.diagnostics import critic_quality, gradient_variance
from torchrl_ob.diagnostics.intervals import Blocks
from torchrl_ob.experiments import update
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.learners import Learner
from torchrl_ob.experiments.update import make_differentiate, mean_over_active, minibatches

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of dynamo about itself
B, T, N, OBS, A = 12, 6, 3, 4, 5
OPTIONS = {"gamma": 0.9, "lmbda": 0.8}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def networks():
    net = nn.Sequential(nn.Linear(OBS, 16), nn.Tanh(), nn.Linear(16, A))
    policy = ProbabilisticActor(
        TensorDictModule(net, [("agents", "observation")], [("agents", "logits")]),
        in_keys={"logits": ("agents", "logits"), "mask": ("agents", "action_mask")},
        out_keys=[("agents", "action")],
        distribution_class=MaskedCategorical,
        distribution_kwargs={"use_cross_entropy": False},
        return_log_prob=True,
    )
    critic = JointQCritic(N, A, OBS, action_encoding="categorical", hidden_dim=16)
    return policy, critic


def rollouts(policy, batch=(B, T)):
    """Random states; an agent is dead in a third of them, with one action left to it."""

    def state():
        alive = torch.rand(*batch, N) > 1 / 3
        available = torch.rand(*batch, N, A) > 0.4
        available[..., 0] = True
        only = torch.zeros(A, dtype=torch.bool)
        only[0] = True
        agents = {
            "observation": torch.randn(*batch, N, OBS),
            "action_mask": torch.where(alive.unsqueeze(-1), available, only),
            "mask": alive,
        }
        return TensorDict({"agents": agents}, batch)

    td = policy(state())
    td["next"] = state()
    td["next", "reward"] = torch.randn(*batch, 1)  # of the team
    td["next", "done"] = td["next", "terminated"] = torch.rand(*batch, 1) < 0.1
    return td.detach()


def compute_losses(policy, critic, kind=ClipPPOLoss):
    options = {"normalize_advantage": True, "normalize_advantage_exclude_dims": [-2]}
    loss = kind(policy, critic, **(options if kind is ClipPPOLoss else {}))
    advantage = ObAdvantage(actor_network=policy, value_network=critic, **OPTIONS)
    loss.make_value_estimator(advantage)
    loss.set_keys(value=critic.out_keys[0], action=("agents", "action"))
    return loss, advantage


def make_minibatch(loss, advantage, batch, **options):
    actor, critic = advantage.team.actor, advantage.value_network
    learner = Learner("agents", actor, critic, loss, advantage, ("agents", "mask"))
    learner.estimate(batch)
    differentiate = make_differentiate(learner.losses, loss.parameters(), **options)
    return differentiate, next(minibatches(batch, learner.keys, B * T))


@pytest.mark.parametrize("kind", [ObAdvantage, ComaAdvantage])
def test_those_who_take_no_part_have_no_advantage_and_the_others_theirs(kind):
    policy, critic = networks()
    batch = rollouts(policy)
    advantage = kind(actor_network=policy, value_network=critic, bootstrap="expected", **OPTIONS)
    torch.manual_seed(1)
    found = advantage(batch.clone())
    torch.manual_seed(1)
    without = advantage(batch.clone().exclude(("agents", "mask")))
    alive = batch["agents", "mask"]
    assert (found["advantage"][~alive] == 0).all()
    assert torch.equal(found["advantage"][alive], without["advantage"][alive])
    assert (without["advantage"][~alive] != 0).any()
    assert torch.equal(found["value_target"], without["value_target"])  # the critic learns of all


@pytest.mark.parametrize("kind", [ObAdvantage, ComaAdvantage])
def test_an_unavailable_action_never_enters_a_baseline(kind):
    policy, critic = networks()
    batch = rollouts(policy)
    mask = batch["agents", "action_mask"]

    class Poisoned(JointQCritic):
        """Values of unavailable own actions a million times too large."""

        def candidate_values(self, tensordict, actions):
            values = super().candidate_values(tensordict, actions)
            return values + torch.where(tensordict["agents", "action_mask"], 0, 1e6)

    poisoned = Poisoned(N, A, OBS, action_encoding="categorical", hidden_dim=16)
    poisoned.load_state_dict(critic.state_dict())
    poisoned.in_keys = [*poisoned.in_keys, ("agents", "action_mask")]
    baselines = []
    for network in (critic, poisoned):
        torch.manual_seed(1)
        advantage = kind(actor_network=policy, value_network=network, **OPTIONS)
        baselines.append(advantage(batch.clone())["agents", "baseline"])
    assert (~mask).any()
    assert torch.equal(*baselines)


def test_a_mask_of_another_shape_is_told():
    policy, critic = networks()
    batch = rollouts(policy)
    advantage = ObAdvantage(actor_network=policy, value_network=critic, **OPTIONS)
    advantage(batch.clone().set(("agents", "mask"), batch["agents", "action_mask"]))  # of actions
    batch["agents", "mask"] = batch["agents", "mask"].unsqueeze(-1)
    with pytest.raises(ValueError, match=r"mask.*\[12, 6, 3\].*\[12, 6, 3, 1\].*set_keys"):
        advantage(batch)


@pytest.mark.parametrize("compile_update", [False, True])
@pytest.mark.usefixtures("graphs_run_eagerly")
def test_the_update_is_the_slow_loop_over_those_who_take_part(compile_update, monkeypatch):
    policy, critic = networks()
    loss, advantage = compute_losses(policy, critic)
    if (
        compile_update
    ):  # as of two ranks, which average between the compiled gradient and its clipping
        monkeypatch.setattr(update, "count_ranks", lambda: 2)
        monkeypatch.setattr(update, "average_gradients", lambda x: torch._foreach_mul_(x, 2.0))
    differentiate, minibatch = make_minibatch(
        loss, advantage, rollouts(policy), compile=compile_update
    )
    found = differentiate(minibatch)
    gradient = torch.cat([x.grad.flatten() for x in loss.parameters() if x.grad is not None])
    torch.testing.assert_close(found["grad_norm"], gradient.norm())
    with torch.no_grad():
        dist = loss.actor_network.get_dist(minibatch)
        objective, entropy = [], []
        alive, advantages = minibatch["agents", "mask"], minibatch["advantage"].squeeze(-1)
        for agent in range(N):
            mine = alive[:, agent]
            values = advantages[mine, agent]
            normal = (values - values.mean()) / values.std(correction=0)
            ratio = (
                dist.log_prob(minibatch["agents", "action"])[mine, agent]
                - minibatch["agents", "action_log_prob"][mine, agent]
            ).exp()
            objective.append(ratio * normal)  # the policy has not moved: nothing is clipped
            entropy.append(dist.entropy()[mine, agent])
    expected = -torch.cat(objective).mean()
    torch.testing.assert_close(found["loss_objective"], expected, atol=1e-5, rtol=1e-4)
    entropy = torch.cat(entropy).mean()
    if compile_update:  # TorchRL then estimates it from a sample
        return
    torch.testing.assert_close(found["loss_entropy"], -0.01 * entropy, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [ClipPPOLoss, A2CLoss])
def test_nothing_of_those_who_take_no_part_reaches_the_policy_but_all_reaches_the_critic(kind):
    policy, critic = networks()
    loss, advantage = compute_losses(policy, critic, kind)
    differentiate, minibatch = make_minibatch(loss, advantage, rollouts(policy))
    dead = ~minibatch["agents", "mask"]
    other = minibatch.clone()
    other["advantage"][dead] = 1e9
    if kind is ClipPPOLoss:
        other["agents", "action_log_prob"][dead] = -7.0
    other["value_target"][dead] += 1

    def gradients(batch):
        loss.zero_grad()
        losses = differentiate(batch)
        return [x.grad.clone() for x in policy.parameters()], losses

    (first, losses), (second, others) = gradients(minibatch), gradients(other)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
        assert a.any()
    assert losses["loss_critic"] != others["loss_critic"]


def test_a_loss_that_sums_over_agents_is_told():
    with pytest.raises(ExperimentError, match=r"loss_objective.*\[4\].*\[4, 3\]"):
        mean_over_active(TensorDict({"loss_objective": torch.ones(4)}), torch.ones(4, 3).bool())


def test_blocks_of_those_who_take_part_are_blocks_of_their_steps_alone():
    values, active = torch.randn(B, T, N, 2), torch.rand(B, T, N) > 0.5
    blocks = Blocks(values.shape[:2], 1, values, active)
    mean = blocks.mean(values).value
    for agent in range(N):
        expected = values[:, :, agent][active[:, :, agent]].mean(0)
        torch.testing.assert_close(mean[agent], expected)
    full = Blocks(values.shape[:2], 1, values, torch.ones_like(active))
    plain = Blocks(values.shape[:2], 1, values)
    for a, b in zip(full.mean(values), plain.mean(values), strict=True):
        torch.testing.assert_close(a, b)
    sums = plain.sums(values)
    counts = torch.rand(4, plain.count)
    torch.testing.assert_close(full.squared_mean(sums)(counts), plain.squared_mean(sums)(counts))


def test_diagnostics_measure_those_who_take_part():
    policy, critic = networks()
    batch = rollouts(policy)
    advantage = ObAdvantage(actor_network=policy, value_network=critic, **OPTIONS)
    quality = critic_quality(advantage, batch)
    candidates = advantage.team.candidates(batch)
    values = advantage.team.q_candidates(batch, candidates.actions)
    mean = (candidates.probabilities * values).sum(-1, keepdim=True)
    own = (candidates.probabilities * (values - mean).square()).sum(-1)
    alive = batch["agents", "mask"]
    for agent in range(N):
        expected = own[..., agent][alive[..., agent]].mean().sqrt()
        torch.testing.assert_close(quality.q_spread.value[agent], expected)
    diluted = gradient_variance(advantage, batch.clone().exclude(("agents", "mask"))).variance
    variance = gradient_variance(advantage, batch).variance
    assert (variance["ob"].value > diluted["ob"].value * 1.1).all()
