"""The advantage under torch.compile, and what must hold for it to run on any device."""

import pytest
import torch
from games import make_actor, random_batch
from tensordict import TensorDict
from torch.utils._python_dispatch import TorchDispatchMode

from torchrl_ob import ComaAdvantage, JointQCritic, ObAdvantage
from torchrl_ob._compile import CompiledOnMinibatches

N, OBS = 3, 4


def make(kind, module=ObAdvantage, **options):
    if kind != "categorical":
        psi = [torch.randn(N, 2), torch.rand(N, 2) + 0.2]
        critic = JointQCritic(N, 2, OBS, hidden_dim=16)
        td = random_batch([4, 6], torch.rand(4, 6, N, 2) - 0.5)
    else:
        psi = [torch.randn(N, 5)]
        critic = JointQCritic(N, 5, OBS, hidden_dim=16, action_encoding="categorical")
        td = random_batch([4, 6], torch.randint(5, (4, 6, N)))
    td["next", "terminated"] = torch.rand(4, 6, 1) < 0.2
    td["next", "done"] = td["next", "terminated"] | (torch.rand(4, 6, 1) < 0.2)
    advantage = module(
        actor_network=make_actor(kind, psi),
        value_network=critic,
        gamma=0.9,
        lmbda=0.8,
        signal="critic",
        **options,
    )
    advantage.set_keys(reward=("agents", "reward"))
    return advantage, td


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("kind", ["categorical", "tanh_normal", "independent_normal"])
def test_full_graph_gives_the_same_numbers(kind):
    torch.manual_seed(0)
    advantage, td = make(kind)
    eager = advantage(td.clone())
    torch._dynamo.reset()
    compiled = torch.compile(advantage, fullgraph=True, backend="aot_eager")(td.clone())
    for key in ("advantage", ("agents", "baseline")):  # the value target samples next actions
        torch.testing.assert_close(compiled[key], eager[key], rtol=1e-4, atol=1e-5)


def test_every_function_and_size_is_compiled_from_code_of_its_own(monkeypatch):
    # torch 2.11 looks for what it compiled by the code alone, and took one function for the other
    codes = []

    def compile(function, **_):
        codes.append(function.__code__)
        return function

    def scaled(factor):
        return CompiledOnMinibatches(lambda td: factor * td["x"], [torch.nn.Parameter()])

    monkeypatch.setattr(torch, "compile", compile)
    for factor in (2, 3):
        times = scaled(factor)
        for size in (4, 5, 4):
            td = TensorDict({"x": torch.ones(size)}, [size])
            assert torch.equal(times(td), factor * td["x"])
    assert len({id(code) for code in codes}) == len(codes) == 4


class NoHostSync(TorchDispatchMode):
    """Fails on operations that read a value of a tensor back to the host."""

    forbidden = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in self.forbidden, f"{name} waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("module", [ObAdvantage, ComaAdvantage])
@pytest.mark.parametrize("bootstrap", ["sampled", "expected", "control_variate"])
def test_no_value_is_read_back_to_the_host(module, bootstrap):
    # TorchRL's TanhNormal itself reads its bounds back when it is built outside torch.compile
    advantage, td = make("independent_normal", module, bootstrap=bootstrap)
    with NoHostSync():
        advantage(td)
