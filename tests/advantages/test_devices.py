"""Nothing is created on the wrong device: the path on tensors that only pretend to be on a GPU, and on one at hand."""

import copy
import warnings
from contextlib import contextmanager, nullcontext

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import distributions as D
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchrl.modules import IndependentNormal, NormalParamExtractor, ProbabilisticActor

from torchrl_ob import ComaAdvantage, JointQCritic, MapgAdvantage, ObAdvantage
from torchrl_ob._device_memory import memory_for_chunks

N, OBS, ACTION = 3, 4, 2
DEVICE = "lazy:0"  # of those that torch knows, one that needs no driver to be pretended
AT_HAND = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def pipeline(module, discrete, device, **options):
    """An advantage and a batch of two trajectories of five steps."""
    outputs = ACTION if discrete else 2 * ACTION
    net = torch.nn.Linear(OBS, outputs, device=device)
    names = ["logits"] if discrete else ["loc", "scale"]
    keys = [("agents", name) for name in names]
    actor = ProbabilisticActor(
        TensorDictModule(
            net if discrete else torch.nn.Sequential(net, NormalParamExtractor()),
            [("agents", "observation")],
            keys,
        ),
        in_keys=keys,
        out_keys=[("agents", "action")],
        distribution_class=D.Categorical if discrete else IndependentNormal,
    )
    with torch.device(device):
        critic = JointQCritic(
            N, ACTION, OBS, action_encoding="categorical" if discrete else "continuous"
        )
    advantage = module(actor_network=actor, value_network=critic, gamma=0.9, lmbda=0.8, **options)
    advantage.set_keys(reward=("agents", "reward"))
    advantage.known_pointwise = True  # which is asked once, before training, and read back
    action = (
        torch.zeros(2, 5, N, dtype=torch.long, device=device)
        if discrete
        else torch.zeros(2, 5, N, ACTION, device=device)
    )
    agents = {"observation": torch.zeros(2, 5, N, OBS, device=device), "action": action}
    following = {
        "agents": {
            "observation": torch.zeros(2, 5, N, OBS, device=device),
            "reward": torch.zeros(2, 5, N, 1, device=device),
        },
        "done": torch.zeros(2, 5, 1, dtype=torch.bool, device=device),
        "terminated": torch.zeros(2, 5, 1, dtype=torch.bool, device=device),
    }
    batch = TensorDict({"agents": agents, "next": following}, [2, 5], device=device)
    return advantage, batch


class NothingIsWaitedFor(TorchDispatchMode):
    """Fails on a copy between devices that one of them waits for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out, options = func(*args, **(kwargs or {})), kwargs or {}
        name, tensors = func.overloadpacket.__name__, [x for x in args if torch.is_tensor(x)]
        if name in ("_to_copy", "copy_", "_local_scalar_dense"):
            devices = {x.device for x in (*tensors, out) if torch.is_tensor(x)}
            waits = len(devices) > 1 and not options.get("non_blocking", False)
            assert not waits, f"{name} between {devices} waits"
            assert name != "_local_scalar_dense", "a number is read back"
        return out


@pytest.mark.parametrize("module", [ObAdvantage, ComaAdvantage, MapgAdvantage])
@pytest.mark.parametrize("bootstrap", ["sampled", "expected", "control_variate"])
@pytest.mark.parametrize("discrete", [True, False])
def test_advantages_stay_on_the_device_of_their_inputs(module, bootstrap, discrete):
    with FakeTensorMode():
        advantage, batch = pipeline(module, discrete, DEVICE, bootstrap=bootstrap)
        with NothingIsWaitedFor():
            advantage(batch)
        for key in ("advantage", "value_target", ("agents", "baseline")):
            assert batch[key].device == torch.device(DEVICE)


class Kernels(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in ("mm", "addmm", "bmm", "baddbmm")
        return func(*args, **(kwargs or {}))


def test_a_gpu_is_sent_a_quarter_of_the_kernels():
    counts = []
    for device in ("cpu", DEVICE):
        with FakeTensorMode():
            advantage, batch = pipeline(ObAdvantage, False, device)
            batch = batch.repeat(12_000, *[1] * (batch.ndim - 1))  # four chunks on a GPU
            with Kernels() as kernels:
                advantage(batch)
        counts.append(kernels.count)
    assert counts[0] > 3 * counts[1]


@pytest.mark.parametrize("rule", ["gauss", "monte_carlo"])
def test_rules_stay_on_the_device_of_the_policy(rule):
    with FakeTensorMode():
        advantage, batch = pipeline(ObAdvantage, False, DEVICE, rule=rule)
        assert advantage(batch)["advantage"].device == torch.device(DEVICE)


@contextmanager
def no_synchronisation(device):
    """Fails where a GPU is waited for."""
    try:
        if device == "cuda":
            with warnings.catch_warnings(action="ignore"):  # that this is a prototype
                torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def moved(advantage, *where):
    """A copy whose networks are elsewhere, or of another precision."""
    advantage = copy.deepcopy(advantage)
    for network in (advantage.team.actor, advantage.value_network):
        network.to(*where)
    return advantage


@pytest.mark.parametrize("device", AT_HAND)
@pytest.mark.parametrize("module", [ObAdvantage, ComaAdvantage, MapgAdvantage])
@pytest.mark.parametrize("bootstrap", ["sampled", "expected", "control_variate"])
@pytest.mark.parametrize("discrete", [True, False])
def test_float32_on_a_device_agrees_with_float64_on_the_cpu(module, bootstrap, discrete, device):
    # the value target is of actions drawn anew
    advantage, batch = pipeline(module, discrete, "cpu", bootstrap=bootstrap, signal="critic")
    batch = batch.apply(lambda x: x.normal_() if x.is_floating_point() else x.random_(2))
    double = batch.apply(lambda x: x.double() if x.is_floating_point() else x)
    exact = moved(advantage, torch.float64)(double)
    there, batch = moved(advantage, device), batch.to(device)
    # torch's normal distribution looks at its standard deviations where it draws
    draws = not discrete and bootstrap != "control_variate"
    there(batch.copy())  # makes what is made once
    with nullcontext() if draws else no_synchronisation(device):
        there(batch)
    assert batch["value_target"].device.type == device
    for key in ("advantage", ("agents", "baseline")):
        torch.testing.assert_close(batch[key].double().cpu(), exact[key], rtol=1e-4, atol=1e-5)


def test_a_tensor_on_another_device_is_noticed():
    with FakeTensorMode():
        advantage, batch = pipeline(ObAdvantage, False, DEVICE)
        advantage.value_network.backbone.own.bias = torch.nn.Parameter(torch.zeros(1, 1, 128))
        with pytest.raises(RuntimeError, match="cpu"):
            advantage(batch)


@pytest.mark.parametrize(
    ("free", "kept", "expected"),
    [(79, 0, 20), (41, 0, 20), (30, 0, 15), (10, 20, 15), (2, 0, 1)],  # of 80 GiB
)
def test_chunks_take_a_quarter_of_a_gpu_or_half_of_what_is_free(free, kept, expected, monkeypatch):
    for name, found in (
        ("mem_get_info", (free * 2**30, 80 * 2**30)),
        ("memory_reserved", (kept + 5) * 2**30),
        ("memory_allocated", 5 * 2**30),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda _, found=found: found)
    assert memory_for_chunks(torch.device("cuda:0")) == expected * 2**30


def test_chunks_of_a_gpu_are_of_its_memory(monkeypatch):
    sizes = []
    with FakeTensorMode(allow_non_fake_inputs=True):
        for memory in (2**32, 12 * 2**17):
            for module in ("advantages.base", "critics.joint"):
                name = f"torchrl_ob.{module}.memory_for_chunks"
                monkeypatch.setattr(name, lambda _, memory=memory: memory)
            advantage, batch = pipeline(ObAdvantage, False, DEVICE)
            sizes.append([len(x) for x in advantage._chunks(batch)])
    assert sizes == [[2], [1, 1]]
