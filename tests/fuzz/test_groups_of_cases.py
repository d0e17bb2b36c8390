"""The advantage of a group among others is the loop over its states, agents and choices."""

import math
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from torchrl.modules import ProbabilisticActor

from fuzz import reference
from fuzz.discrete_teams import ADVANTAGES
from fuzz.harness import fuzz
from fuzz.strategies import decays, rates, seeds


@dataclass(frozen=True)
class Groups:
    group: int = 0
    advantage: str = "ob"
    bootstrap: str = "sampled"
    agents: tuple[int, ...] = (2, 1)
    choices: tuple[int, ...] = (2, 3)
    trajectories: int = 2
    steps: int = 2
    gamma: float = 0.9
    lmbda: float = 0.8
    ends: float = 0.3
    spread: float = 1.0
    chunk_size: int | None = None
    seed: int = 0


@st.composite
def group_cases(draw):
    number = draw(st.integers(2, 3))

    def each(strategy):
        return tuple(draw(st.lists(strategy, min_size=number, max_size=number)))

    return Groups(
        group=draw(st.integers(0, number - 1)),
        advantage=draw(st.sampled_from(sorted(ADVANTAGES))),
        bootstrap=draw(st.sampled_from(["sampled", "expected", "control_variate"])),
        agents=each(st.integers(1, 2)),
        choices=each(st.integers(1, 3)),
        trajectories=draw(st.integers(1, 3)),
        steps=draw(st.integers(1, 4)),
        gamma=draw(decays),
        lmbda=draw(decays),
        ends=draw(rates),
        spread=draw(st.sampled_from([0.0, 1.0, 100.0])),
        chunk_size=draw(st.none() | st.integers(1, 10)),
        seed=draw(seeds),
    )


class GroupSpy(TensorDictModuleBase):
    """A critic of the joint action of all groups that keeps what it was asked, by the state's number."""

    def __init__(self, case):
        super().__init__()
        self.__dict__["case"] = case
        self.names = [f"g{k}" for k in range(len(case.agents))]
        self.action_keys = [(name, "action") for name in self.names]
        self.in_keys = ["number", *self.action_keys]
        self.out_keys = [(self.names[case.group], "value")]
        n = case.agents[case.group]
        self.tables = [
            torch.randn(n, agents, choices, dtype=torch.float64)
            for agents, choices in zip(case.agents, case.choices, strict=True)
        ]
        self.asked = {}

    def forward(self, td):
        return td.set(self.out_keys[0], self.q(self.read(td)).unsqueeze(-1))

    def candidate_values(self, td, actions):
        held, own = self.read(td), self.case.group
        values = []
        for agent in range(self.case.agents[own]):
            joint = [x.unsqueeze(-2).repeat(*[1] * td.ndim, actions.shape[-1], 1) for x in held]
            joint[own][..., agent] = actions[..., agent, :]
            values.append(self.q(joint)[..., agent])
        return torch.stack(values, -2)

    def read(self, td):
        joint = [td[key] for key in self.action_keys]
        lines = zip(*(x.flatten(0, -2).tolist() for x in joint), strict=True)
        for number, actions in zip(td["number"].flatten().tolist(), lines, strict=True):
            self.asked.setdefault(number, []).append(list(map(list, actions)))
        return joint

    def q(self, joint):
        score = 0.0
        for table, action in zip(self.tables, joint, strict=True):
            taken = torch.nn.functional.one_hot(action, table.shape[-1]).double()
            score = score + torch.einsum("ija,...ja->...i", table, taken)
        return 3 * torch.sin(score)

    def slow_q(self, joint, agent):
        score = 0.0
        for table, actions in zip(self.tables, joint, strict=True):
            score += sum(table[agent, j, a].item() for j, a in enumerate(actions))
        return 3 * math.sin(score)


def make_actor(name):
    net = TensorDictModule(torch.nn.Identity(), [(name, "observation")], [(name, "logits")])
    return ProbabilisticActor(
        net,
        in_keys=[(name, "logits")],
        out_keys=[(name, "action")],
        distribution_class=torch.distributions.Categorical,
    )


def check_groups(case):
    torch.manual_seed(case.seed)
    shape = [case.trajectories, case.steps]
    critic, own = GroupSpy(case), case.group
    actors = [make_actor(name) for name in critic.names]
    td = TensorDict({"next": TensorDict({}, shape)}, shape)
    number = torch.arange(2 * case.trajectories * case.steps).reshape(2, *shape, 1)
    td["number"], td["next", "number"] = number
    sizes = zip(critic.names, case.agents, case.choices, strict=True)
    for name, agents, choices in sizes:
        for where in (td, td["next"]):
            psi = case.spread * torch.randn(*shape, agents, choices, dtype=torch.float64)
            where[name, "observation"] = psi
        td[name, "action"] = torch.randint(choices, (*shape, agents))
    name, n = critic.names[own], case.agents[own]
    td["next", "reward"] = torch.randn(*shape, 1, dtype=torch.float64)
    done = td["next", "done"] = torch.rand(*shape, 1) < case.ends
    terminated = td["next", "terminated"] = done & (torch.rand(*shape, 1) < 0.5)
    advantage = ADVANTAGES[case.advantage](
        actor_network=actors[own],
        value_network=critic,
        other_actors=[actor for k, actor in enumerate(actors) if k != own],
        gamma=case.gamma,
        lmbda=case.lmbda,
        bootstrap=case.bootstrap,
        chunk_size=case.chunk_size,
    )
    advantage(td)

    draws = [[] for _ in case.agents]

    def policy(where, group, row, t, agent):
        psi = where[critic.names[group], "observation"][row, t, agent]
        return reference.policy_and_optimal_weights([psi.tolist()])

    def mean(weights, joint, agent):
        total = 0.0
        for choice, weight in enumerate(weights):
            actions = [list(x) for x in joint]
            actions[own][agent] = choice
            total += weight * critic.slow_q(actions, agent)
        return total

    def following(row, t, agent):
        if terminated[row, t]:
            return math.nan  # enters nothing
        asked = critic.asked[int(td["next", "number"][row, t])]
        for joint in asked:
            for group, actions in enumerate(joint):
                for j, a in enumerate(actions):  # the next action of every group, as it would act
                    pi, _ = policy(td["next"], group, row, t, j)
                    assert pi[a] > 1e-9
                    draws[group].append((pi, a))
        if case.bootstrap == "expected":
            return mean(policy(td["next"], own, row, t, agent)[0], asked[0], agent)
        return sum(critic.slow_q(joint, agent) for joint in asked) / len(asked)

    for row in range(case.trajectories):
        rows = [x[row, :, 0].tolist() for x in (td["next", "reward"], done, terminated)]
        taken = [
            [td[key][row, t].tolist() for key in critic.action_keys] for t in range(case.steps)
        ]
        for agent in range(n):
            values = [following(row, t, agent) for t in range(case.steps)]
            if case.bootstrap == "control_variate":
                now = [critic.slow_q(joint, agent) for joint in taken]
                target = reference.return_with_control_variate(
                    rows[0], values, now, *rows[1:], case.gamma, case.lmbda
                )
            else:
                target = reference.lambda_return(rows[0], values, *rows[1:], case.gamma, case.lmbda)
            for t, joint in enumerate(taken):
                pi, x = policy(td, own, row, t, agent)
                weights = {"ob": x, "coma": pi, "mapg": [0.0] * len(pi)}[case.advantage]
                expected = target[t] - mean(weights, joint, agent)
                assert abs(td["advantage"][row, t, agent, 0].item() - expected) < 1e-9
                assert abs(td["value_target"][row, t, agent, 0].item() - target[t]) < 1e-9
    for of_group in draws:
        reference.require_drawn(of_group)


test_groups = fuzz(group_cases(), check_groups, short=40)
