"""The theorem itself, through the public modules: same mean gradient, least variance at b*."""

import numpy as np
import pytest
import torch
from dense_rules import dense_candidates
from games import CONTINUOUS, DISCRETE, FunctionCritic, make_actor, random_batch

from torchrl_ob import ComaAdvantage, MapgAdvantage, ObAdvantage
from torchrl_ob.expectations.rules import gauss_hermite
from torchrl_ob.team import Team


def enumerate_discrete(kind, num_agents, seed):
    """Actor, every joint action ``[J, n, *event]`` with its probability, Q table, and mask."""
    generator = torch.Generator().manual_seed(seed)
    factors = (2,) if kind == "multi_categorical" else ()
    choices = 2 if factors else 3
    logits = torch.randn(num_agents, *factors, choices, generator=generator, dtype=torch.float64)
    mask = None
    if kind.startswith("masked"):
        mask = torch.ones(num_agents, choices, dtype=torch.bool)
        mask[0, -1] = False
    actor = make_actor(kind, [logits.clone()])
    own = torch.cartesian_prod(*[torch.arange(choices)] * max(1, sum(factors))).reshape(
        -1, *factors
    )
    index = torch.cartesian_prod(*[torch.arange(len(own))] * num_agents)
    index = index.reshape(-1, num_agents)  # [J, n]
    table = torch.randn([len(own)] * num_agents, generator=generator, dtype=torch.float64) * 10
    actions = own[index]
    if "one_hot" in kind:
        actions = torch.nn.functional.one_hot(actions, choices)

    def q(action):
        if "one_hot" in kind:
            action = action.argmax(-1)
        if factors:
            action = action[..., 0] * choices + action[..., 1]
        value = table[tuple(action.unbind(-1))]
        return value.unsqueeze(-1).expand(*value.shape, num_agents)

    return actor, actions, None, FunctionCritic(q), mask


def enumerate_continuous(kind, num_agents, seed):
    """As above, on a dense quadrature grid of joint actions of one dimension each."""
    generator = torch.Generator().manual_seed(seed)
    loc = torch.randn(num_agents, 1, generator=generator, dtype=torch.float64)
    scale = torch.rand(num_agents, 1, generator=generator, dtype=torch.float64) + 0.3
    bounds = {"low": -0.7, "high": 1.3} if kind in ("tanh_normal", "truncated_normal") else {}
    actor = make_actor(kind, [loc.clone(), scale.clone()], **bounds)
    nodes, weights = gauss_hermite(30)
    if kind == "truncated_normal":
        nodes, weights = (torch.as_tensor(x) for x in np.polynomial.legendre.leggauss(40))
        points = (0.3 + nodes)[:, None, None].expand(-1, num_agents, 1)  # on [-0.7, 1.3]
        density = (-((points - loc) ** 2) / (2 * scale**2)).exp() * weights[:, None, None]
        own_weights = density / density.sum(0)
    else:
        points = loc + scale * nodes[:, None, None]
        if kind == "tanh_normal":
            points = torch.tanh(points) * 1.0 + 0.3
        own_weights = weights[:, None, None].expand(-1, num_agents, 1)
    index = torch.cartesian_prod(*[torch.arange(len(points))] * num_agents).reshape(-1, num_agents)
    agents = torch.arange(num_agents)
    actions, weight = points[index, agents], own_weights[index, agents, 0].prod(-1)
    a, b, c = torch.randn(3, num_agents, generator=generator, dtype=torch.float64)

    def q(action):
        x = action.squeeze(-1)
        value = (a * x + b).tanh().sum(-1) * 3 + (c * x).sum(-1).cos() * 5
        return value.unsqueeze(-1).expand(*value.shape, num_agents)

    return actor, actions, weight, FunctionCritic(q), None


def gradients(actor, td, signal):
    """Gradient of each sample in ψ: a list, for each parameter, of ``[J, n, *psi]``."""
    inputs = td.select(*actor.in_keys)
    params = actor.get_dist_params(inputs)
    leaves = {
        key: params.get(key).detach().clone().requires_grad_()
        for key in actor.dist_params_keys
        if params.get(key).is_floating_point()
    }
    for key, leaf in leaves.items():
        params.set(key, leaf)
    log_prob = actor.build_dist_from_params(params).log_prob(td["agents", "action"])
    log_prob = log_prob.where(log_prob.isfinite(), torch.zeros_like(log_prob))
    scores = torch.autograd.grad(log_prob.sum(), list(leaves.values()))
    out = []
    for score in scores:
        score = score.nan_to_num().flatten(3)  # [J, 1, n, psi]
        out.append(score * signal)
    return torch.cat(out, -1)[:, 0], log_prob.sum(-1)[:, 0]


KINDS = [*DISCRETE, "independent_normal", "tanh_normal", "truncated_normal"]


@pytest.mark.parametrize(
    ("kind", "num_agents"),
    # a dense grid of more than two continuous actions is too large; the discrete kinds cover them
    [(kind, n) for kind in KINDS for n in ((1, 2) if kind in CONTINUOUS else (1, 2, 3, 4, 5, 6))],
)
def test_every_baseline_keeps_the_mean_and_ob_has_the_least_variance(kind, num_agents, monkeypatch):
    setup = enumerate_discrete if kind in DISCRETE else enumerate_continuous
    actor, actions, weight, critic, mask = setup(kind, num_agents, seed=num_agents)
    td = random_batch([len(actions), 1], actions.unsqueeze(1), dtype=torch.float64, mask=mask)
    options = {
        "actor_network": actor,
        "value_network": critic,
        "gamma": 0.9,
        "lmbda": 0.9,
        "signal": "critic",
    }
    moments = {}
    for name, module in (("ob", ObAdvantage), ("coma", ComaAdvantage), ("none", MapgAdvantage)):
        advantage = module(**options)
        advantage.set_keys(reward=("agents", "reward"))
        if kind in CONTINUOUS:  # the critic is no polynomial
            size = 80 if kind == "truncated_normal" else 40
            dense = dense_candidates(actor.get_dist(td), num_points=size)
            monkeypatch.setattr(Team, "candidates", lambda *_, dense=dense, **__: dense)
        signal = advantage(td)["advantage"]
        g, log_prob = gradients(actor, td, signal)
        w = log_prob.exp() if weight is None else weight
        if mask is not None:
            w = w * mask[0][actions[:, 0].argmax(-1) if "one_hot" in kind else actions[:, 0]]
        torch.testing.assert_close(w.sum(), torch.ones((), dtype=torch.float64))
        w = w.reshape(-1, 1, 1)
        mean = (w * g).sum(0)
        moments[name] = mean, (w * (g - mean).square()).sum((0, 2))  # for each agent
        if name == "ob":
            optimum, ob_signal = moments[name], signal
    tolerance = {"rtol": 1e-6, "atol": 1e-6} if kind in CONTINUOUS else {"rtol": 1e-8, "atol": 1e-8}
    for name in ("coma", "none"):
        torch.testing.assert_close(moments[name][0], optimum[0], **tolerance)
        assert (moments[name][1] >= optimum[1] * (1 - 1e-6)).all()
    # no function of the others' actions added to b* lowers the variance of any agent
    own = actions.reshape(len(actions), num_agents, -1).double()
    own = own @ torch.arange(1.0, 1 + own.shape[-1]).double()
    others = own.sum(-1, keepdim=True) - own  # [J, n]
    for shift in (0.3, -0.3):
        delta = shift * (1 + others.sin()).reshape(ob_signal.shape)
        g, _ = gradients(actor, td, ob_signal + delta)
        mean = (w * g).sum(0)
        torch.testing.assert_close(mean, optimum[0], **tolerance)
        assert ((w * (g - mean).square()).sum((0, 2)) > optimum[1]).all()
