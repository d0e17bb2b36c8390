"""V(s) by the networks of the joint critic."""

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs import VmasEnv
from torchrl.modules import PopArtValueNorm
from torchrl.objectives.value import MultiAgentGAE

from torchrl_ob import JointQCritic, StateValue

N, OBS, STATE = 3, 4, 5


def batch(*size):
    agents = {"observation": torch.randn(*size, N, OBS)}
    return TensorDict({"agents": agents, "state": torch.randn(*size, STATE)}, size)


@pytest.mark.parametrize("backbone", ["pooled", "concat", "additive"])
@pytest.mark.parametrize("share_params", [True, False])
def test_v_is_q_of_the_same_network_where_no_weight_reads_an_action(backbone, share_params):
    torch.manual_seed(0)
    norm = PopArtValueNorm(shape=1, beta=0.9)
    norm.update(500 + 300 * torch.randn(1000, 1))
    options = {"backbone": backbone, "share_params": share_params, "hidden_dim": 16}
    options["value_norm"] = norm
    v = StateValue(N, OBS, STATE, **options)
    q = JointQCritic(N, 2, OBS, STATE, **options)
    found = v.backbone.state_dict()
    for name, parameter in q.backbone.named_parameters():
        if parameter.shape == found[name].shape:
            parameter.data.copy_(found[name])
        elif parameter.shape[-1] == 2:  # of the own action
            parameter.data.zero_()
        else:  # of everything concatenated, the actions last
            parameter.data.zero_()
            parameter.data[..., : found[name].shape[-1]] = found[name]
    td = batch(6, 7)
    td["agents", "action"] = torch.randn(6, 7, N, 2)
    expected = q(td.clone())["agents", "state_action_value"]
    assert expected.std() > 1  # in units of the return
    torch.testing.assert_close(v(td)["agents", "state_value"], expected)
    td["agents", "action"].normal_()
    torch.testing.assert_close(v(td)["agents", "state_value"], expected)


def test_it_reads_what_it_is_given():
    torch.manual_seed(0)
    for sizes, read in (
        ((OBS, None), {"agents"}),
        ((None, STATE), {"state"}),
        ((OBS, STATE), {"agents", "state"}),
    ):
        v, td = StateValue(N, *sizes, hidden_dim=8), batch(6)
        before = v(td.clone())["agents", "state_value"]
        for entry in ("agents", "state"):
            other = td.clone()
            other[entry] = batch(6)[entry]
            moved = not torch.equal(v(other)["agents", "state_value"], before)
            assert moved == (entry in read)


def test_gae_takes_it_from_an_environment():
    torch.manual_seed(0)
    env = VmasEnv("balance", num_envs=2, n_agents=4)
    critic = StateValue.from_env(env, backbone="additive", hidden_dim=8)
    gae = MultiAgentGAE(gamma=0.99, lmbda=0.9, value_network=critic)
    gae.set_keys(value=critic.out_keys[0], reward=env.reward_key)
    td = gae(env.rollout(3))
    assert td["advantage"].shape == (2, 3, 4, 1)
    assert critic(td)["agents", "state_value"].unique(dim=-2).shape[-2] == 1  # one of the team


def test_nothing_to_read_is_refused():
    with pytest.raises(ValueError, match="reads nothing: give observation_dim"):
        StateValue(N)
    with pytest.raises(KeyError, match=r"the critic reads \[\('agents', 'observation'\)\]"):
        StateValue(N, OBS)(batch(2).exclude("agents"))
