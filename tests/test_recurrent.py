"""Recurrences of a team: whole sequences are the steps one after the other, and start anew where told."""

import io
from itertools import pairwise

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import InitTracker, TransformedEnv, VmasEnv
from torchrl.modules import NormalParamExtractor, ProbabilisticActor, TanhNormal, set_recurrent_mode
from torchrl.modules.utils import get_primers_from_module

from torchrl_ob.recurrent import MultiAgentGRU, MultiAgentLSTM, equations

N, IN, H = 3, 4, 5
MODULES = [MultiAgentGRU, MultiAgentLSTM]
TORCH = {MultiAgentGRU: (nn.GRU, torch.gru_cell), MultiAgentLSTM: (nn.LSTM, torch.lstm_cell)}
FEATURES = ("agents", "features")
both = pytest.mark.parametrize("cls", MODULES)
sharing = pytest.mark.parametrize("share", [True, False])
recurrent = set_recurrent_mode("recurrent")


def make_batch(net, *lead, resets=0.3, dtype=None, agents_reset=False):
    starts = torch.rand(*lead, *((N, 1) if agents_reset else (1,))) < resets
    shape = (*lead, N, net.num_layers, net.hidden_size)
    agents = {key[-1]: torch.randn(shape, dtype=dtype) for key in net.state_keys}
    agents["observation"] = torch.randn(*lead, N, IN, dtype=dtype)
    return TensorDict({"agents": agents, "is_init": starts}, lead)


def step_by_step(net, batch):
    """The module, a step at a time: the state written after one step is read by the next."""
    steps, states = [], [batch[:, 0].get(key) for key in net.state_keys]
    for t in range(batch.shape[1]):
        step = batch[:, t].clone(recurse=False)
        for key, state in zip(net.state_keys, states, strict=True):
            step.set(key, state)
        with set_recurrent_mode("sequential"):
            steps.append(net(step).select(*net.out_keys))
        states = [steps[-1].get(key) for key in net.out_keys[1:]]
    return torch.stack(steps, 1)


def cells(net, batch):
    """PyTorch's cells for each agent, layer and step, in four loops."""
    features = torch.empty(*batch.shape, N, net.hidden_size, dtype=net.weight_hh_l0.dtype)
    for b in range(batch.shape[0]):
        for i in range(N):
            state = [batch.get(key)[b, 0, i] for key in net.state_keys]  # [layers, h] each
            for t in range(batch.shape[1]):
                start = batch["is_init"][b, t]
                if (start[i] if start.ndim == 2 else start).item():
                    state = [torch.zeros_like(s) for s in state]
                x, after = batch["agents", "observation"][b, t, i][None], []
                for layer in range(net.num_layers):
                    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                    weights = [getattr(net, f"{name}_l{layer}") for name in names]
                    weights = weights if net.share_params else [w[i] for w in weights]
                    before = tuple(s[layer][None] for s in state)
                    out = TORCH[type(net)][1](x, before if len(before) > 1 else before[0], *weights)
                    after.append(out if isinstance(out, tuple) else (out,))
                    x = after[-1][0]
                state = [torch.cat(layers) for layers in zip(*after, strict=True)]
                features[b, t, i] = x[0]
    return features


@both
@sharing
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("agents_reset", [False, True])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_sequences_are_steps_with_their_gradients(cls, share, layers, agents_reset, dtype, atol):
    net = cls(N, IN, H, layers, share_params=share, dtype=dtype)
    batch = make_batch(net, 4, 7, dtype=dtype, agents_reset=agents_reset)
    batch["is_init"][0, 0], batch["is_init"][1, 0], batch["is_init"][1, 3] = True, False, True
    inputs = [("agents", "observation"), *net.state_keys]
    leaves = [batch.get(key).requires_grad_() for key in inputs]
    with recurrent:
        whole = net(batch.clone(recurse=False)).select(*net.out_keys)
    steps = step_by_step(net, batch)
    for key in net.out_keys:  # features, and the state after every step
        torch.testing.assert_close(whole[key], steps[key], atol=atol, rtol=0)
    torch.testing.assert_close(whole[FEATURES], cells(net, batch), atol=atol, rtol=0)
    weights = [torch.randn_like(whole[key]) for key in net.out_keys]
    gradients = [
        torch.autograd.grad(
            sum((w * out[key]).sum() for w, key in zip(weights, net.out_keys, strict=True)),
            [*leaves, *net.parameters()],
        )
        for out in (whole, steps)
    ]
    for of_whole, of_steps in zip(*gradients, strict=True):
        torch.testing.assert_close(of_whole, of_steps, atol=100 * atol, rtol=0)


@both
def test_derivatives_are_those_of_finite_differences(cls):
    gates, states = cls.gates, len(cls.states)
    function = equations.gru if cls is MultiAgentGRU else equations.lstm
    starts = torch.rand(2, 4, 3, 1) < 0.3
    starts[0, 0], starts[1, 2] = True, True

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    initial = [draw(2, 3, H) for _ in range(states)]
    shapes = [(2, gates * H, IN), (2, gates * H, H), (2, gates * H), (2, gates * H)]
    inputs = [draw(2, 4, 3, IN), *initial, *[draw(*shape) for shape in shapes]]
    assert torch.autograd.gradcheck(
        lambda x, *rest: function(x, *rest[:states], starts, *rest[states:]), inputs
    )


@both
# torch 2.14 warns of its own check
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_operators_are_what_they_declare(cls):
    net = cls(N, IN, H)
    function = equations._gru if cls is MultiAgentGRU else equations._lstm
    parameters = list(net.parameters()) if cls is MultiAgentGRU else list(net.parameters())[:3]
    parameters = [p.detach().unsqueeze(0).requires_grad_() for p in parameters]
    starts, initial = torch.rand(1, 4, 2, 1) < 0.5, [torch.randn(1, 2, H) for _ in cls.states]
    torch.library.opcheck(function, (torch.randn(1, 4, 2, IN), *initial, starts, *parameters))


@both
@pytest.mark.parametrize("layers", [1, 2])
def test_shared_parameters_are_those_of_torch(cls, layers):
    net, reference = cls(N, IN, H, layers), TORCH[cls][0](IN, H, layers, batch_first=True)
    file = io.BytesIO()
    torch.save(reference.state_dict(), file)
    file.seek(0)
    net.load_state_dict(torch.load(file, weights_only=True))
    batch = make_batch(net, 4, 7, resets=0)
    with recurrent:
        features = net(batch)[FEATURES]
    for i in range(N):
        state = [batch.get(key)[:, 0, i].transpose(0, 1).contiguous() for key in net.state_keys]
        expected = reference(
            batch["agents", "observation"][:, :, i], state[0] if cls is MultiAgentGRU else state
        )
        torch.testing.assert_close(features[:, :, i], expected[0], atol=1e-6, rtol=0)


@both
def test_separate_parameters_are_independent_networks(cls):
    net, references = (
        cls(N, IN, H, share_params=False),
        [TORCH[cls][0](IN, H, batch_first=True) for _ in range(N)],
    )
    parts = [reference.state_dict() for reference in references]
    net.load_state_dict({name: torch.stack([part[name] for part in parts]) for name in parts[0]})
    batch = make_batch(net, 4, 7, resets=0)
    with recurrent:
        features = net(batch)[FEATURES]
    for i, reference in enumerate(references):
        state = [batch.get(key)[:, 0, i].transpose(0, 1).contiguous() for key in net.state_keys]
        expected = reference(
            batch["agents", "observation"][:, :, i], state[0] if cls is MultiAgentGRU else state
        )
        torch.testing.assert_close(features[:, :, i], expected[0], atol=1e-6, rtol=0)


@both
@sharing
def test_a_state_dict_restores_the_network(cls, share):
    net, other = cls(N, IN, H, share_params=share), cls(N, IN, H, share_params=share)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    batch = make_batch(net, 4)
    assert torch.equal(net(batch.clone())[FEATURES], other(batch.clone())[FEATURES])


@both
@sharing
@pytest.mark.parametrize("lead", [(), (4,), (1,), (2, 3), (2, 1, 3)])
def test_batches_have_any_number_of_dimensions(cls, share, lead):
    net = cls(N, IN, H, 2, share_params=share)
    batch = make_batch(net, *lead)
    out = net(batch.clone())
    each = [net(step.clone()) for step in batch.reshape(-1)] if lead else [out]
    for key, size in zip(net.out_keys, [(H,), (2, H), (2, H)], strict=False):
        assert out[key].shape == (*lead, N, *size)
        for ours, step in zip(out[key].reshape(-1, N, *size), each, strict=True):
            torch.testing.assert_close(ours, step[key], atol=1e-6, rtol=0)
    if not lead:
        return
    with recurrent:  # the last dimension is time, whatever precedes it
        whole = net(batch.clone())
        rows = [net(row.clone()) for row in batch.reshape(-1, lead[-1])]
    for key in net.out_keys:
        flat = whole[key].reshape(-1, *whole[key].shape[len(lead) - 1 :])
        for ours, row in zip(flat, rows, strict=True):
            torch.testing.assert_close(ours, row[key], atol=1e-6, rtol=0)


@both
def test_the_mode_is_that_of_torchrl(cls):
    net, default = cls(N, IN, H), cls(N, IN, H, default_recurrent_mode=True)
    default.load_state_dict(net.state_dict())
    batch = make_batch(net, 2, 4, resets=0)
    steps, (again, inner) = net(batch.clone()), (default(batch.clone()), None)
    with set_recurrent_mode("recurrent"):
        whole = net(batch.clone())
        with set_recurrent_mode("sequential"):
            inner = default(batch.clone())
    assert torch.equal(whole[FEATURES], again[FEATURES])
    assert torch.equal(steps[FEATURES], inner[FEATURES])
    assert not torch.allclose(whole[FEATURES][:, 1:], steps[FEATURES][:, 1:], atol=1e-3)
    with pytest.raises(ValueError, match=r"has none. Pass \[\*B, T, n, 4\]"), recurrent:
        net(make_batch(net))


@both
@sharing
def test_nothing_leaks_over_a_reset(cls, share):
    net = cls(N, IN, H, 2, share_params=share)
    batch = make_batch(net, 2, 6, resets=0)
    batch["is_init"][:, 3] = True
    changed = batch.clone()
    changed["agents", "observation"][:, :3] = torch.nan
    for key in net.state_keys:
        changed.get(key)[:] = torch.nan
    with recurrent:
        before, after = net(batch.clone()), net(changed)
    for key in net.out_keys:
        assert torch.equal(before[key][:, 3:], after[key][:, 3:])
        assert after[key][:, :3].isnan().any()


@both
def test_agents_are_apart(cls):
    net = cls(N, IN, H)
    batch = make_batch(net, 2, 6)
    changed = batch.clone()
    changed["agents", "observation"][:, :, 1] += 1
    with recurrent:
        same = (net(batch)[FEATURES] == net(changed)[FEATURES]).flatten(0, 1).all(-1).all(0)
    assert same.tolist() == [True, False, True]


@both
@sharing
def test_compiled_as_one_graph(cls, share):
    net = cls(N, IN, H, 2, share_params=share)
    batch = make_batch(net, 4, 6)

    def gradient(function):
        net.zero_grad()
        with recurrent:
            out = function(batch.clone())
        out[FEATURES].square().mean().backward()
        return out, [p.grad for p in net.parameters()]

    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    (out, grads), (again, same) = gradient(net), gradient(compiled)
    for key in net.out_keys:
        torch.testing.assert_close(out[key], again[key], atol=1e-6, rtol=0)
    torch.testing.assert_close(grads, same, atol=1e-6, rtol=1e-5)
    step = compiled(batch[:, 0].clone())  # in the other mode the graph is another
    assert torch.allclose(step[FEATURES], net(batch[:, 0].clone())[FEATURES], atol=1e-6)


@both
def test_reduced_precision_stays_outside_the_recurrence(cls):
    net = cls(N, IN, H)
    batch = make_batch(net, 2, 6)
    with recurrent, torch.autocast("cpu", torch.bfloat16):
        reduced = net(batch.clone())[FEATURES]
    with recurrent:
        assert torch.equal(reduced, net(batch.clone())[FEATURES])


@both
def test_second_derivatives_are_refused(cls):
    net = cls(N, IN, H)
    out = net(make_batch(net, 2))[FEATURES].square().sum()
    (grad,) = torch.autograd.grad(out, net.weight_hh_l0, create_graph=True)
    with pytest.raises(RuntimeError):
        grad.sum().backward()


def make_env(net):
    env = TransformedEnv(VmasEnv("navigation", num_envs=4, max_steps=7, n_agents=N, seed=0))
    env.append_transform(InitTracker())
    env.append_transform(net.make_tensordict_primer())
    return env


def make_policy(net):
    head = nn.Sequential(nn.Linear(net.hidden_size, 4), NormalParamExtractor())
    params = [("agents", "loc"), ("agents", "scale")]
    return ProbabilisticActor(
        TensorDictSequential(net, TensorDictModule(head, [FEATURES], params)),
        in_keys=params,
        out_keys=[("agents", "action")],
        distribution_class=TanhNormal,
    )


@both
@sharing
def test_a_batch_of_a_collector_gives_the_features_again(cls, share):
    net = cls(N, 18, H, 2, share_params=share)
    collector = Collector(make_env(net), make_policy(net), frames_per_batch=40, total_frames=120)
    batches = [batch.clone() for batch in collector]
    collector.shutdown()
    assert any(batch["is_init"][:, 1:].any() for batch in batches)
    assert not all(batch["is_init"][:, 0].all() for batch in batches)
    for batch in batches:
        with recurrent, torch.no_grad():
            again = net(batch.clone())
        for key in net.out_keys:
            torch.testing.assert_close(again[key], batch[key], atol=1e-6, rtol=0)
    for one, two in pairwise(batches):  # a batch starts from where the one before ended
        ended = one["next", "done"][:, -1].reshape(-1, 1, 1, 1)
        for key in net.state_keys:
            last = one["next"].get(key)[:, -1].masked_fill(ended, 0)
            torch.testing.assert_close(two.get(key)[:, 0], last)


@both
def test_a_rollout_carries_the_state(cls):
    net = cls(N, 18, H)
    rollout = make_env(net).rollout(10, make_policy(net), break_when_any_done=False)
    with recurrent, torch.no_grad():
        again = net(rollout.clone())
    torch.testing.assert_close(again[FEATURES], rollout[FEATURES], atol=1e-6, rtol=0)


@both
def test_the_primer_has_the_shape_of_the_environment(cls):
    net = cls(N, 18, H, 2, dtype=torch.float64)
    env = make_env(net)
    for key in net.state_keys:
        for spec in (env.observation_spec[key], env.reset()[key]):
            assert spec.shape == (4, N, 2, H)
            assert spec.dtype == torch.float64
        assert not env.reset()[key].any()
    primer = get_primers_from_module(TensorDictSequential(net))
    assert set(primer.primers.keys(True, True)) == set(net.state_keys)


def test_keys_follow_the_group_and_can_be_named():
    net = MultiAgentGRU(N, IN, H, in_key=("team", "blue", "observation"))
    assert net.in_keys[1:] == [("team", "blue", "hidden"), "is_init"]
    assert net.out_keys == [("team", "blue", "features"), ("next", "team", "blue", "hidden")]
    net = MultiAgentLSTM(
        N,
        IN,
        H,
        in_key="o",
        out_key="f",
        state_keys=["h", ("a", "c")],
        is_init_key=("a", "is_init"),
    )
    assert net.in_keys == ["o", "h", ("a", "c"), ("a", "is_init")]
    assert net.out_keys == ["f", ("next", "h"), ("next", "a", "c")]
    state, starts = torch.randn(2, N, 1, H), torch.rand(2, N, 1) < 0.5
    out = net(o=torch.randn(2, N, IN), h=state, a_c=state, a_is_init=starts)
    assert [x.shape for x in out] == [(2, N, H), (2, N, 1, H), (2, N, 1, H)]
    with pytest.raises(ValueError, match=r"keeps 2 state\(s\).*Name one key for each"):
        MultiAgentLSTM(N, IN, H, state_keys=["h"])


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("is_init", r"append InitTracker\(\)"),
        (("agents", "hidden"), r"append its make_tensordict_primer\(\)"),
        (("agents", "observation"), "name the observation of the group with in_key"),
    ],
)
def test_what_is_missing_or_misshapen_is_told_with_its_remedy(key, remedy):
    net = MultiAgentGRU(N, IN, H)
    with pytest.raises(KeyError, match=rf"is_init|hidden|observation.*lacks.*{remedy}"):
        net(make_batch(net, 2).exclude(key))
    wrong = make_batch(net, 2)
    wrong.set(key, torch.cat([wrong[key], wrong[key]], -1))
    with pytest.raises(ValueError, match=rf"of shape \[2, .*and it has \[2, .*{remedy}"):
        net(wrong)


def test_a_start_must_be_boolean_and_batches_agree():
    net = MultiAgentGRU(N, IN, H)
    batch = make_batch(net, 2)
    with pytest.raises(TypeError, match=r"must be boolean, and is torch.float32"):
        net(batch.clone().set("is_init", batch["is_init"].float()))
    batch = TensorDict(batch.to_dict())
    batch["agents", "hidden"] = torch.zeros(3, N, 1, H)
    with pytest.raises(ValueError, match=r"'hidden'\) of shape \[2, 3, 1, 5\], and it has \[3, 3"):
        net(batch)
