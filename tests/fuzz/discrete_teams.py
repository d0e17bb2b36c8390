"""Teams with discrete actions: a case of numbers, its batch and networks, and what is expected of them."""

import itertools
import math
from dataclasses import dataclass

import torch
from games import DISCRETE
from hypothesis import assume
from hypothesis import strategies as st
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from torchrl.modules import ProbabilisticActor

from fuzz import reference
from fuzz.strategies import batches, decays, flags, rates, seeds
from torchrl_ob import ComaAdvantage, MapgAdvantage, ObAdvantage

ADVANTAGES = {"ob": ObAdvantage, "coma": ComaAdvantage, "mapg": MapgAdvantage}
MASKED = ("masked", "masked_one_hot")
FEATURES = 2  # of an observation; then the number of the state, and the logits


@dataclass(frozen=True)
class Discrete:
    kind: str = "categorical"
    advantage: str = "ob"
    signal: str = "lambda_return"
    bootstrap: str = "sampled"
    batch: tuple[int, ...] = (2,)
    time_at: int = 1
    steps: int = 3
    agents: int = 2
    choices: int = 3
    factors: int = 1
    gamma: float = 0.9
    lmbda: float = 0.8
    team_reward: bool = True
    team_flags: bool = True
    ends: float = 0.3
    terminations: float = 0.5
    spread: float = 1.0
    chunk_size: int | None = None
    double: bool = True
    acting: bool = False
    some_active: bool = False
    plain: bool = False
    neg_inf: float = -math.inf  # what a masked distribution has for an action that is not available
    seed: int = 0


@st.composite
def discrete_cases(draw):
    kind = draw(st.sampled_from(sorted(DISCRETE)))
    bootstrap = draw(st.sampled_from(["sampled", "expected", "control_variate"]))
    batch = draw(batches)
    # TorchRL's own distributions of a single choice drop the last dimension
    fewest = 1 if kind in ("categorical", "multi_categorical") else 2
    return Discrete(
        kind=kind,
        advantage=draw(st.sampled_from(sorted(ADVANTAGES))),
        signal=draw(st.sampled_from(["lambda_return", "critic"])),
        bootstrap=bootstrap,
        batch=batch,
        time_at=draw(st.integers(0, len(batch))),
        steps=draw(st.integers(1, 7)),
        agents=draw(st.integers(1, 3)),
        choices=draw(st.integers(fewest, 4)),
        factors=draw(st.integers(1, 3)) if kind == "multi_categorical" else 1,
        gamma=draw(decays),
        lmbda=draw(decays),
        team_reward=draw(flags),
        team_flags=draw(flags),
        ends=draw(rates),
        terminations=draw(rates),
        spread=draw(st.sampled_from([0.0, 1.0, 3.0, 30.0, 1e3])),
        chunk_size=draw(st.none() | st.integers(1, 30)),
        double=draw(flags),
        acting=draw(flags),
        some_active=draw(flags),
        plain=bootstrap != "expected" and draw(flags),
        neg_inf=draw(st.sampled_from([-math.inf, -1e9, -1e4])) if kind in MASKED else -math.inf,
        seed=draw(seeds),
    )


class Team:
    """The batch and the networks of a case."""

    def __init__(self, case):
        torch.manual_seed(case.seed)
        self.case, n = case, case.agents
        self.dtype = torch.float64 if case.double else torch.float32
        self.shape = list(case.batch)
        self.shape.insert(case.time_at, case.steps)
        event = (
            (case.factors, case.choices) if case.kind == "multi_categorical" else (case.choices,)
        )
        self.psi_shape = event
        # what a joint action is worth: 3 sin of a sum over agents, with tables of each agent's own
        self.table = torch.randn(n, n, case.factors, case.choices, dtype=torch.float64)
        self.states = torch.Size(self.shape).numel()
        self.td = self.make_batch()
        self.actor = self.make_actor()
        self.critic = (Spy if case.plain else FastSpy)(self)

    def make_batch(self):
        case, shape, n = self.case, self.shape, self.case.agents
        now, following = self.agents(0), self.agents(self.states)
        if case.acting:
            now["logits"] = case.spread * torch.randn(*shape, n, *self.psi_shape, dtype=self.dtype)
        index = torch.randint(case.choices, (*shape, n, case.factors))
        if case.kind in MASKED:  # what was taken was available
            now["action_mask"].scatter_(-1, index, True)
        now["action"] = self.as_action(index)
        who = (1,) if case.team_flags else (n, 1)
        done = torch.rand(*shape, *who) < case.ends
        terminated = done & (torch.rand(*shape, *who) < case.terminations)
        flags = TensorDict({"done": done, "terminated": terminated}, shape)
        reward = torch.randn(*shape, *((1,) if case.team_reward else (n, 1)), dtype=self.dtype) * 3
        if case.some_active:
            now["mask"] = torch.rand(*shape, n) < 0.7
        root = {"agents": following}
        if case.team_flags:
            root |= flags
        else:
            following.update(flags)
        td = TensorDict({"agents": now, "next": TensorDict(root, shape)}, shape)
        td["next", *(() if case.team_reward else ("agents",)), "reward"] = reward
        return td

    def agents(self, first):
        case, shape, n = self.case, self.shape, self.case.agents
        number = torch.arange(first, first + self.states).reshape(*shape, 1, 1).expand(*shape, n, 1)
        logits = case.spread * torch.randn(*shape, n, math.prod(self.psi_shape))
        features = torch.randn(*shape, n, FEATURES)
        observation = torch.cat([features, number, logits], -1).to(self.dtype)
        entries = TensorDict({"observation": observation}, shape)
        if case.kind in MASKED:
            available = torch.rand(*shape, n, case.choices) < 0.6
            available.scatter_(-1, torch.randint(case.choices, (*shape, n, 1)), True)
            entries["action_mask"] = available
        return entries

    def make_actor(self):
        in_keys = {"logits": ("agents", "logits")}
        if self.case.kind in MASKED:
            in_keys["mask"] = ("agents", "action_mask")
        net = TensorDictModule(self.logits, [("agents", "observation")], [("agents", "logits")])
        return ProbabilisticActor(
            net,
            in_keys=in_keys,
            out_keys=[("agents", "action")],
            distribution_class=DISCRETE[self.case.kind],
            distribution_kwargs={"neg_inf": self.case.neg_inf} if self.case.kind in MASKED else {},
            return_log_prob=True,
        )

    def logits(self, observation):
        return observation[..., FEATURES + 1 :].unflatten(-1, self.psi_shape)

    def as_action(self, index):
        """Choices ``[..., factors]`` as the kind of policy writes them."""
        if "one_hot" in self.case.kind:
            return torch.nn.functional.one_hot(index[..., 0], self.case.choices)
        return index if self.case.kind == "multi_categorical" else index[..., 0]

    def as_index(self, action):
        if "one_hot" in self.case.kind:
            return action.long().argmax(-1, keepdim=True)
        return action if self.case.kind == "multi_categorical" else action.unsqueeze(-1)

    def advantage(self, **options):
        case = self.case
        last = case.time_at == len(case.batch)
        advantage = ADVANTAGES[case.advantage](
            actor_network=self.actor,
            value_network=self.critic,
            gamma=case.gamma,
            lmbda=case.lmbda,
            signal=case.signal,
            bootstrap=case.bootstrap,
            chunk_size=case.chunk_size,
            **{"time_dim": None if last and case.batch else case.time_at, **options},
        )
        keys = {} if case.team_reward else {"reward": ("agents", "reward")}
        if not case.team_flags:
            keys |= {name: ("agents", name) for name in ("done", "terminated")}
        advantage.set_keys(**keys)
        return advantage

    def q(self, features, index):
        """Of every agent, ``[*, n]``, from features ``[*, n, 2]`` and choices ``[*, n, factors]``."""
        taken = torch.nn.functional.one_hot(index.long(), self.case.choices).to(features.dtype)
        score = torch.einsum("ijfa,...jfa->...i", self.table.to(features), taken)
        return 3 * torch.sin(features.sum((-1, -2)).unsqueeze(-1) + features[..., 0] + score)

    def slow_q(self, features, index, agent):
        """The same of one agent in one state, ``features`` and ``index`` being lists."""
        score = sum(
            self.table[agent, j, f, a].item()
            for j, factors in enumerate(index)
            for f, a in enumerate(factors)
        )
        return 3 * math.sin(sum(map(sum, features)) + features[agent][0] + score)


class Spy(TensorDictModuleBase):
    """A critic that keeps, for every state by its number, the joint actions that it was asked for."""

    def __init__(self, team):
        super().__init__()
        self.__dict__["team"] = team
        self.in_keys = [("agents", "observation"), ("agents", "action")]
        self.out_keys = [("agents", "state_action_value")]
        self.asked = {}

    def forward(self, td):
        features, index = self.read(td)
        return td.set(self.out_keys[0], self.team.q(features, index).unsqueeze(-1))

    def read(self, td):
        observation, index = td["agents", "observation"], self.team.as_index(td["agents", "action"])
        if self.asked is not None:
            numbers = observation[..., 0, FEATURES].flatten().tolist()
            for number, joint in zip(numbers, index.flatten(0, -3).tolist(), strict=True):
                self.asked.setdefault(int(number), []).append(joint)
        return observation[..., :FEATURES], index


class FastSpy(Spy):
    """One with a way of its own to value candidates."""

    def candidate_values(self, td, actions):
        features, held = self.read(td)
        candidates = self.team.as_index(actions)  # [*, n, K, factors]
        values = []
        for agent in range(held.shape[-2]):
            joint = held.unsqueeze(-3).repeat(*[1] * (held.ndim - 2), candidates.shape[-2], 1, 1)
            joint[..., agent, :] = candidates[..., agent, :, :]
            values.append(self.team.q(features.unsqueeze(-3), joint)[..., agent])
        return torch.stack(values, -2)


class Expected:
    """What the advantage of a team must write, by loops over its states, agents and choices."""

    def __init__(self, team, td):
        """``team.critic`` has been asked by the advantage already: next actions are those it drew."""
        self.team, self.case, self.td = team, team.case, td
        self.draws = []
        self.choices = list(itertools.product(range(self.case.choices), repeat=self.case.factors))
        n, axis = self.case.agents, self.case.time_at
        shape = (*team.shape, n, 1)
        self.value_target, self.advantage, self.baseline = (
            torch.zeros(shape, dtype=torch.float64) for _ in range(3)
        )
        others = [range(size) for k, size in enumerate(team.shape) if k != axis]
        for place in itertools.product(*others):
            steps = [(*place[:axis], t, *place[axis:]) for t in range(self.case.steps)]
            for agent in range(n):
                self.fill(steps, agent)

    def fill(self, steps, agent):
        case = self.case
        reward, done, terminated = (
            [self.signal(name, s, agent) for s in steps]
            for name in ("reward", "done", "terminated")
        )
        following = [self.next_value(s, agent, t) for s, t in zip(steps, terminated, strict=True)]
        taken = [self.q(s, agent) for s in steps]
        decay = (done, terminated, case.gamma, case.lmbda)
        if case.bootstrap == "control_variate":
            returns = reference.return_with_control_variate(reward, following, taken, *decay)
        else:
            returns = reference.lambda_return(reward, following, *decay)
        for s, target, value in zip(steps, returns, taken, strict=True):
            baseline = self.compute_baseline(s, agent)
            signal = value if case.signal == "critic" else target
            active = not case.some_active or self.td["agents", "mask"][(*s, agent)]
            self.value_target[(*s, agent)], self.baseline[(*s, agent)] = target, baseline
            self.advantage[(*s, agent)] = signal - baseline if active else 0.0

    def signal(self, name, state, agent):
        of_team = self.case.team_reward if name == "reward" else self.case.team_flags
        if of_team:
            return self.td["next", name][state].item()
        return self.td["next", "agents", name][(*state, agent)].item()

    def features(self, agents, state):
        return agents["observation"][(*state, slice(None), slice(FEATURES))].tolist()

    def q(self, state, agent):
        agents = self.td["agents"]
        taken = self.team.as_index(agents["action"])[state].tolist()
        return self.team.slow_q(self.features(agents, state), taken, agent)

    def weights(self, agents, state, agent, acting=False):
        """Probabilities of all choices, and those of the optimal baseline."""
        if acting:
            logits = agents["logits"][(*state, agent)]
        else:
            logits = self.team.logits(agents["observation"])[(*state, agent)]
        if self.case.kind in MASKED:
            available = agents["action_mask"][(*state, agent)]
            logits = logits.masked_fill(~available, -math.inf)
        return reference.policy_and_optimal_weights(logits.reshape(self.case.factors, -1).tolist())

    def next_value(self, state, agent, terminated):
        if terminated:
            return math.nan  # enters nothing
        agents = self.td["next", "agents"]
        asked = self.team.critic.asked[int(agents["observation"][(*state, agent, FEATURES)])]
        pi, _ = self.weights(agents, state, agent)
        features = self.features(agents, state)
        for joint in asked:  # what was drawn is likely enough
            index = self.choices.index(tuple(joint[agent]))
            assert pi[index] > 1e-9
            self.draws.append((pi, index))
        if self.case.bootstrap == "expected":
            assume(all(joint == asked[0] for joint in asked))
            return self.mean(pi, features, asked[0], agent)
        draws = 2 if self.case.bootstrap == "control_variate" else 1
        if len(asked) > draws:  # in a state that padding repeats
            assume(all(joint == asked[0] for joint in asked))
            asked = asked[:draws]
        values = [self.team.slow_q(features, joint, agent) for joint in asked]
        assert len(values) == draws
        return sum(values) / len(values)

    def compute_baseline(self, state, agent):
        if self.case.advantage == "mapg":
            return 0.0
        agents = self.td["agents"]
        pi, x = self.weights(agents, state, agent, acting=self.case.acting)
        held = self.team.as_index(agents["action"])[state].tolist()
        weights = x if self.case.advantage == "ob" else pi
        return self.mean(weights, self.features(agents, state), held, agent)

    def mean(self, weights, features, held, agent):
        total = 0.0
        for weight, choice in zip(weights, self.choices, strict=True):
            joint = [*held[:agent], list(choice), *held[agent + 1 :]]
            total += weight * self.team.slow_q(features, joint, agent)
        return total


def require_expected(team, td, found, where=True):
    """That ``found`` has what the loops give for ``td``, at the states and agents ``where`` it matters."""
    expected, case = Expected(team, td), team.case
    digits = 1e-9 if case.double else 1e-4 + 1e-6 * case.spread
    for key, value in (
        ("advantage", expected.advantage),
        ("value_target", expected.value_target),
        (("agents", "baseline"), expected.baseline),
    ):
        assert found[key].dtype == team.dtype
        got = torch.where(torch.as_tensor(where), found[key].double(), value)
        torch.testing.assert_close(got, value, rtol=digits, atol=3 * digits)
    return expected
