"""Baselines of continuous actions against dense quadrature."""

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from torch import distributions as D
from torchrl.modules import IndependentNormal, ProbabilisticActor, TanhNormal, TruncatedNormal

from fuzz import reference
from fuzz.harness import fuzz
from fuzz.strategies import flags, seeds
from torchrl_ob import ComaAdvantage, ObAdvantage

FAMILIES = {
    "normal": D.Normal,
    "independent_normal": IndependentNormal,
    "tanh_normal": TanhNormal,
    "truncated_normal": TruncatedNormal,
}
BOUNDED = ("tanh_normal", "truncated_normal")


@dataclass(frozen=True)
class Gaussian:
    family: str = "independent_normal"
    advantage: str = "ob"
    psi: str = "loc_scale"
    agents: int = 2
    dim: int = 1
    num_points: int | None = None
    loc: float = 0.0
    scale: float = 1.0
    low: float = -1.0
    width: float = 2.0
    degree: int = 2
    products: bool = False
    double: bool = True
    seed: int = 0


@st.composite
def gaussian_cases(draw, families):
    family = draw(st.sampled_from(families))
    dim = draw(st.integers(1, 6))
    given = draw(st.none() | st.sampled_from([2, 3])) if dim < 5 else None
    nodes = given or (3 if dim < 3 else 2)
    products = (dim < 5 or given is not None) and draw(flags)
    highest = nodes - 1 if products else 2 * nodes - 1  # what the rule integrates exactly
    return Gaussian(
        family=family,
        advantage=draw(st.sampled_from(["ob", "coma"])),
        psi=draw(st.sampled_from(["loc_scale", "loc_log_scale", "loc"])),
        agents=draw(st.integers(1, 3)),
        dim=dim,
        num_points=given,
        loc=draw(st.sampled_from([0.0, 0.3, 1.0, 3.0, 10.0])),
        scale=draw(st.sampled_from([0.01, 0.3, 1.0, 3.0, 10.0])),
        low=draw(st.sampled_from([-1.0, 0.0, -0.3, 5.0])),
        width=draw(st.sampled_from([2.0, 0.1, 1.0, 10.0])),
        degree=draw(st.integers(1, highest)),
        products=products,
        double=draw(flags),
        seed=draw(seeds),
    )


class Polynomial(TensorDictModuleBase):
    """A critic of each agent's own action, in units of the action's spread; others shift it."""

    def __init__(self, case, center, unit):
        super().__init__()
        self.__dict__["case"] = case
        self.center, self.unit = center, unit
        self.in_keys = [("agents", "action")]
        self.out_keys = [("agents", "value")]
        n, d = case.agents, case.dim
        self.coefficients = torch.randn(n, d, case.degree + 1, dtype=torch.float64)
        self.seen = []

    def of_components(self, x):
        """The polynomial of each component, ``[*, n, d]``, of standardized actions."""
        powers = torch.stack([x**k for k in range(self.case.degree + 1)], -1)
        return (powers * self.coefficients.to(x)).sum(-1)

    def forward(self, td):
        action = td["agents", "action"]
        self.seen.append(action)
        own = self.of_components((action.double() - self.center) / self.unit)
        own = own.prod(-1) if self.case.products else own.sum(-1)
        others = action.double().tanh().sum((-1, -2)).unsqueeze(-1) - action.double().tanh().sum(-1)
        return td.set(self.out_keys[0], (own + others).to(action.dtype).unsqueeze(-1))


def make_team(case):
    torch.manual_seed(case.seed)
    n, d = case.agents, case.dim
    dtype = torch.float64 if case.double else torch.float32
    loc = (case.loc * torch.randn(n, d, dtype=torch.float64)).to(dtype)
    scale = (case.scale * (0.5 + torch.rand(n, d, dtype=torch.float64))).to(dtype)
    bounds = {}
    if case.family in BOUNDED:
        bounds = {"low": case.low, "high": case.low + case.width}
        loc = loc + case.low + case.width / 2 if case.family == "truncated_normal" else loc
    return loc, scale, bounds


def quadrature(case, loc, scale, bounds):
    """Of one component: actions, probabilities, and squared scores."""
    if case.family == "truncated_normal":
        lower, upper = ((bounds[k] - loc) / scale for k in ("low", "high"))
        mode, t, p = reference.truncated_quadrature(lower, upper)
        w = reference.squared_scores(t, p, scale, "loc")
        if case.psi != "loc":
            second = t**2 + 2 * mode * t  # z² less a constant
            second = second - (p * second).sum()
            w = w + second**2 / (scale**2 if case.psi == "loc_scale" else 1.0)
        return loc + scale * (mode + t), p, w
    z, p = reference.normal_quadrature()
    w = reference.squared_scores(z, p, scale, case.psi)
    action = loc + scale * z
    if case.family == "tanh_normal":
        half = (bounds["high"] - bounds["low"]) / 2
        action = np.tanh(action) * half + bounds["low"] + half
    return action, p, w


def expected_baseline(case, critic, loc, scale, bounds):
    """``Σ_d E[q_d w] / E[w]``, or of the product, each agent's; and the spread of Q."""
    baselines, spreads = [], []
    for agent in range(case.agents):
        mean, tilted, total, deviations, squares = [], [], [], [], []
        for k in range(case.dim):
            a, p, w = quadrature(case, loc[agent, k].item(), scale[agent, k].item(), bounds)
            x = (torch.as_tensor(a) - critic.center[agent, k]) / critic.unit[agent, k]
            x = torch.zeros(len(a), case.agents, case.dim, dtype=torch.float64) + x[:, None, None]
            q = critic.of_components(x)[:, agent, k].numpy()
            mean.append((p * q).sum())
            tilted.append((p * q * w).sum())
            total.append((p * w).sum())
            deviations.append((p * (q - mean[-1]) ** 2).sum())
            squares.append((p * q**2).sum())
        mean, tilted, total = map(np.array, (mean, tilted, total))
        if case.advantage == "coma":
            baseline = mean.prod() if case.products else mean.sum()
        elif case.products:
            rest = [np.delete(mean, k).prod() for k in range(case.dim)]
            baseline = (tilted * rest).sum() / total.sum()
        else:
            cross = mean * (total.sum() - total)
            baseline = (tilted + cross).sum() / total.sum()
        variance = np.prod(squares) - mean.prod() ** 2 if case.products else np.sum(deviations)
        baselines.append(baseline)
        spreads.append(max(variance, 0.0) ** 0.5)
    return torch.tensor(baselines, dtype=torch.float64), torch.tensor(spreads, dtype=torch.float64)


def check_gaussian(case):
    loc, scale, bounds = make_team(case)
    psi = torch.cat([loc, scale], -1)
    net = TensorDictModule(
        lambda observation: observation.chunk(2, -1),
        [("agents", "observation")],
        [("agents", "loc"), ("agents", "scale")],
    )
    actor = ProbabilisticActor(
        net,
        in_keys={"loc": ("agents", "loc"), "scale": ("agents", "scale")},
        out_keys=[("agents", "action")],
        distribution_class=FAMILIES[case.family],
        distribution_kwargs=bounds,
    )
    center, unit = loc.double(), scale.double()
    if bounds:
        center = torch.full_like(unit, case.low + case.width / 2)
        unit = torch.full_like(unit, case.width / 2)
    critic = Polynomial(case, center, unit)
    module = {"ob": ObAdvantage, "coma": ComaAdvantage}[case.advantage]
    advantage = module(
        actor_network=actor,
        value_network=critic,
        gamma=0.0,
        lmbda=0.0,
        signal="critic",
        num_points=case.num_points,
        psi=case.psi,
    )
    agents = TensorDict({"observation": psi.expand(1, 1, *psi.shape)}, [1, 1])
    flags_ = torch.ones(1, 1, 1, dtype=torch.bool)
    following = TensorDict(
        {"agents": agents, "done": flags_, "terminated": flags_, "reward": flags_.to(psi)}, [1, 1]
    )
    td = TensorDict({"agents": agents.clone(), "next": following}, [1, 1])
    td["agents", "action"] = actor.get_dist(td).sample()
    advantage(td)
    taken = td["agents", "action"][0, 0].double()
    shift = taken.tanh().sum() - taken.tanh().sum(-1)
    expected, spread = expected_baseline(case, critic, loc, scale, bounds)
    found = td["agents", "baseline"][0, 0, :, 0].double() - shift
    size = critic.coefficients.abs().sum() ** (case.dim if case.products else 1)
    far = (critic.center / critic.unit).abs().max().item()  # what rounding does to an action
    digits = (1e-9 if case.double else 1e-4 + 1e-5 * far) * size
    share = {"tanh_normal": 0.01, "truncated_normal": 0.01}.get(case.family, 0.0)
    error = (found - expected).abs()
    assert (error <= digits + share * spread).all(), (found, expected, spread)
    if bounds:  # up to rounding, which takes TorchRL's own samples out as well
        low, high = bounds["low"], bounds["high"]
        ulps = 8 * torch.finfo(torch.float32).eps * max(abs(low), abs(high))
        for action in critic.seen:
            assert (action >= low - ulps).all(), action.min()
            assert (action <= high + ulps).all(), action.max()


test_normal = fuzz(gaussian_cases(("normal", "independent_normal")), check_gaussian, short=60)
test_tanh_normal = fuzz(gaussian_cases(("tanh_normal",)), check_gaussian, short=60)
test_truncated_normal = fuzz(gaussian_cases(("truncated_normal",)), check_gaussian, short=60)
