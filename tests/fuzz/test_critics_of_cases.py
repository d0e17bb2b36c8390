"""Critics of any shape: candidates are what the joint action gives with one own action replaced."""

from dataclasses import dataclass
from functools import partial

import torch
from games import Plain
from hypothesis import strategies as st
from tensordict import TensorDict

from fuzz.harness import fuzz, require_refusal
from fuzz.strategies import flags, seeds
from torchrl_ob import JointQCritic
from torchrl_ob.critics.groups import join_critics
from torchrl_ob.critics.substitution import substitute_candidates

ENCODINGS = ("continuous", "categorical", "one_hot", "multi_categorical")


@dataclass(frozen=True)
class Critic:
    encodings: tuple[str, ...] = ("continuous",)  # of every group
    agents: tuple[int, ...] = (2,)
    widths: tuple[int, ...] = (3,)
    backbone: str = "pooled"
    share_params: bool = True
    observation_dim: int = 3
    state_dim: int = 0
    chunk_bytes: int | None = None
    batch: tuple[int, ...] = (2, 3)
    candidates: int = 2
    double: bool = True
    seed: int = 0


@st.composite
def critic_cases(draw):
    groups = draw(st.integers(1, 3))

    def each(strategy):
        return tuple(draw(st.lists(strategy, min_size=groups, max_size=groups)))

    return Critic(
        encodings=each(st.sampled_from(ENCODINGS)),
        agents=each(st.integers(1, 3)),
        widths=each(st.integers(1, 4)),
        backbone="concat" if groups == 1 and draw(flags) else "pooled",
        share_params=draw(flags),
        observation_dim=draw(st.integers(1, 3)),
        state_dim=draw(st.sampled_from([0, 2])),
        chunk_bytes=draw(st.none() | st.sampled_from([1, 200, 1000])),
        batch=draw(st.sampled_from([(), (1,), (4,), (2, 3), (1, 2, 2)])),
        candidates=draw(st.integers(1, 4)),
        double=draw(flags),
        seed=draw(seeds),
    )


def draw_actions(encoding, width, dtype, *shape):
    if encoding == "continuous":
        return torch.randn(*shape, width, dtype=dtype)
    if encoding == "multi_categorical":
        return torch.stack([torch.randint(width, shape), torch.randint(width + 1, shape)], -1)
    action = torch.randint(width, shape)
    return torch.nn.functional.one_hot(action, width) if encoding == "one_hot" else action


def make_critics(case, dtype):
    """One critic over all groups, by the name of each."""
    critics = {}
    groups = zip(case.encodings, case.agents, case.widths, strict=True)
    for k, (encoding, agents, width) in enumerate(groups):
        several = encoding == "multi_categorical"
        critics[f"g{k}"] = JointQCritic(
            agents,
            2 * width + 1 if several else width,
            case.observation_dim,
            case.state_dim or None,
            action_encoding=encoding,
            nvec=(width, width + 1) if several else None,
            backbone=case.backbone,
            share_params=case.share_params,
            observation_key=(f"g{k}", "observation"),
            action_key=(f"g{k}", "action"),
            hidden_dim=5,
            chunk_bytes=case.chunk_bytes,
        ).to(dtype)
    return join_critics(critics) if len(critics) > 1 else critics


def make_inputs(case, dtype):
    td = TensorDict({"state": torch.randn(*case.batch, 2, dtype=dtype)}, case.batch)
    groups = zip(case.encodings, case.agents, case.widths, strict=True)
    for k, (encoding, agents, width) in enumerate(groups):
        shape = (*case.batch, agents)
        td[f"g{k}", "observation"] = torch.randn(*shape, case.observation_dim, dtype=dtype)
        td[f"g{k}", "action"] = draw_actions(encoding, width, dtype, *shape)
    return td


def check_critic(case):
    torch.manual_seed(case.seed)
    dtype = torch.float64 if case.double else torch.float32
    critics, td = make_critics(case, dtype), make_inputs(case, dtype)
    close = {"rtol": 1e-9, "atol": 1e-9} if case.double else {"rtol": 1e-4, "atol": 1e-4}
    for k, (name, critic) in enumerate(critics.items()):
        n, size = case.agents[k], case.candidates
        own = draw_actions(case.encodings[k], case.widths[k], dtype, *case.batch, n, size)
        with torch.no_grad():
            found = critic.candidate_values(td, own)
            assert found.dtype == dtype
            keys = {"action_key": (name, "action"), "value_key": critic.out_keys[0]}
            generic = substitute_candidates(Plain(critic), td, own, **keys)
            small = substitute_candidates(Plain(critic), td, own, **keys, chunk_bytes=1)
        torch.testing.assert_close(generic, found, **close)
        torch.testing.assert_close(small, found, **close)
        one_by_one = torch.zeros_like(found)
        place = (slice(None),) * len(case.batch)
        for agent in range(n):
            for candidate in range(size):
                copy = td.clone()
                copy[name, "action"][(*place, agent)] = own[(*place, agent, candidate)]
                value = critic(copy)[critic.out_keys[0]]
                one_by_one[(*place, agent, candidate)] = value[(*place, agent, 0)].detach()
        torch.testing.assert_close(found, one_by_one, **close)


test_critic = fuzz(critic_cases(), check_critic, short=50)


def check_action_outside(case):
    """An action that is none of the choices is refused where it was taken, and among candidates."""
    torch.manual_seed(case.seed)
    critics, td = make_critics(case, torch.float64), make_inputs(case, torch.float64)
    for k, (name, critic) in enumerate(critics.items()):
        if case.encodings[k] == "continuous":
            continue
        wrong, taken = td.clone(), td[name, "action"]
        bad = (0, 2)[case.candidates % 2] if case.encodings[k] == "one_hot" else case.widths[k] + 1
        flat = taken.reshape(-1, case.widths[k] if case.encodings[k] == "one_hot" else 1)
        flat[int(torch.randint(len(flat), ()))] = bad if case.candidates > 1 else -1
        wrong[name, "action"] = flat.reshape(taken.shape)
        own = wrong[name, "action"].unsqueeze(len(case.batch) + 1)
        for ask in (partial(critic, wrong), partial(critic.candidate_values, td, own)):
            try:
                ask()
            except (ValueError, RuntimeError) as error:
                require_refusal(error)
            else:
                raise AssertionError(f"{taken.tolist()} is taken")


def check_pooled_sum(case):
    """The values, from the networks, agent by agent: ``ρ(z_i + M mean_j σ(z_j) + S s)``."""
    torch.manual_seed(case.seed)
    critics, td = make_critics(case, torch.float64), make_inputs(case, torch.float64)
    groups = list(critics)
    joint = {name: getattr(critics[name], "critics", critics)[name] for name in groups}
    size = torch.Size(case.batch).numel()
    flat = td.reshape(size)
    for state in range(size):
        shown = {}
        for name in groups:
            net, critic = joint[name].backbone, joint[name]
            for agent in range(critic.action_shape[0]):
                observation = flat[name, "observation"][state, agent]
                action = encode_features(critic, flat[name, "action"][state, agent])
                inner = linear(net.observation, agent, observation)
                inner = inner + linear(net.action, agent, action)
                shown[name, agent] = linear(net.own, agent, torch.tanh(inner))
        mean = sum(torch.tanh(z) for z in shown.values()) / len(shown)
        for name in groups:
            net = joint[name].backbone
            value = critics[name](flat.clone())[critics[name].out_keys[0]][state]
            for agent in range(joint[name].action_shape[0]):
                if joint[name].all_actions_at_once:
                    action = encode_features(joint[name], flat[name, "action"][state, agent])
                    z = blank(net, agent, flat[name, "observation"][state, agent], action)
                    rest = mean + (torch.tanh(z) - torch.tanh(shown[name, agent])) / len(shown)
                else:
                    z, rest, action = shown[name, agent], mean, None
                total = z + linear(net.team, agent, rest)
                if case.state_dim:
                    total = total + linear(net.state, agent, flat["state"][state])
                expected = linear(net.tail[1], agent, torch.tanh(total))
                expected = expected.sum() if action is None else (expected * action).sum()
                torch.testing.assert_close(value[agent, 0], expected, rtol=1e-9, atol=1e-9)


def blank(net, agent, observation, action):
    """How an agent is embedded where all of its actions are valued at once."""
    inner = linear(net.observation, agent, observation)
    inner = inner + linear(net.action, agent, torch.zeros_like(action))
    return linear(net.own, agent, torch.tanh(inner))


def linear(layer, agent, x):
    weight = layer.weight[agent if len(layer.weight) > 1 else 0]
    out = weight @ x
    return out if layer.bias is None else out + layer.bias[agent if len(layer.bias) > 1 else 0, 0]


def encode_features(critic, action):
    if critic.action_encoding == "continuous":
        return action
    if critic.action_encoding == "one_hot":
        return action.double()
    widths = critic.nvec or (critic.action_dim,)
    index = action.reshape(-1).tolist()
    out = torch.zeros(sum(widths), dtype=torch.float64)
    for start, choice in zip(torch.tensor([0, *widths]).cumsum(0).tolist(), index, strict=False):
        out[start + choice] = 1
    return out


test_action_outside = fuzz(critic_cases(), check_action_outside, short=30)
pooled = critic_cases().filter(lambda case: case.backbone == "pooled")
test_pooled_sum = fuzz(pooled, check_pooled_sum, short=30)
