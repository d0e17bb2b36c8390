"""Mistakes in the library, one at a time in a copy of it: the short profile must find every one.

``make mutants``, or ``python tests/fuzz/mutants.py NAME ...`` for some of them.
"""

import io
import multiprocessing
import os
import shutil
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torchrl.envs
import torchrl.objectives  # noqa: F401  once, for every process that is forked from this one

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("torchrl_ob", "tests", "configs", "conftest.py", "pyproject.toml")

RETURNS, WEIGHTS, GAUSSIAN = "returns", "weights or discrete", "gaussian"
TEAM, CRITICS, BATCHES = "discrete or theorem or groups", "critics", "batches"

# a mistake: what stands once in the package, what stands there instead, and the tests to find it
MUTANTS = {
    # advantages
    "x is pi": ("(own.optimal_weights * q)", "(own.probabilities * q)", TEAM),
    "pi is x": (
        "(tensordict, own.actions)\n        return (own.probabilities * q)",
        "(tensordict, own.actions)\n        return (own.optimal_weights * q)",
        TEAM,
    ),
    "no baseline has one": (
        "return torch.zeros((*self.team.agents",
        "return torch.ones((*self.team.agents",
        TEAM,
    ),
    "baselines of the next agent": (
        "return (own.optimal_weights * q).sum(-1, keepdim=True)",
        "return (own.optimal_weights * q).sum(-1, keepdim=True).roll(1, -2)",
        TEAM,
    ),
    "target of another agent": (
        "tensordict.set(keys.value_target, value_target)",
        "tensordict.set(keys.value_target, value_target.flip(-2))",
        TEAM,
    ),
    "baseline added": ("= signal - baseline", "= signal + baseline", TEAM),
    "who takes no part has an advantage": (
        "advantage = torch.where(active.unsqueeze(-1), advantage, 0)",
        "pass",
        TEAM,
    ),
    "baselines in another order": (
        "torch.cat([self.baseline(chunk) for chunk in chunks])",
        "torch.cat([self.baseline(chunk) for chunk in chunks][::-1])",
        TEAM,
    ),
    "signal is the return": (
        "signal = torch.cat([team.q(chunk) for chunk in chunks])",
        "pass",
        TEAM,
    ),
    "psi of the current actor": (
        "if acting and all(tensordict.get(key, None) is not None for key in keys):",
        "if False:",
        TEAM,
    ),
    "next action of the mode": (
        "own = self.policy(tensordict).sample()",
        "own = self.policy(tensordict).mode",
        TEAM,
    ),
    "next states are the present ones": (
        "self._next_value(self.following(chunk)) for chunk in chunks",
        "self._next_value(chunk) for chunk in chunks",
        TEAM,
    ),
    "next actions of other groups not theirs": (
        "drawn.set(key, current_policy(actor, tensordict).sample())",
        "drawn.set(key, current_policy(actor, tensordict).sample() * 0)",
        TEAM,
    ),
    "one draw twice": (
        "return dist.sample(torch.Size([2]))",
        "return dist.sample(torch.Size([1])).repeat(2, *[1] * len(dist.batch_shape + dist.event_shape)) * 0",
        TEAM,
    ),
    "next value of a termination kept": (
        "next_value = torch.where(terminated, 0, next_value)",
        "next_value = next_value * 1",
        BATCHES,
    ),
    "what follows a termination is read": (
        "over = terminated.flatten(tensordict.ndim).all(-1)",
        "over = terminated.flatten(tensordict.ndim).all(-1) & False",
        BATCHES,
    ),
    "padding is no end": ("done = done | ~goes_on[..., None, None]", "pass", BATCHES),
    # returns
    "gamma off by a thousandth": (
        "decay, reach = gamma * trace, 1",
        "decay, reach = 0.999 * gamma * trace, 1",
        RETURNS,
    ),
    "gamma of the bootstrap off": ("reward + gamma * (", "reward + 0.999 * gamma * (", RETURNS),
    "lambda off by a thousandth": (
        "trace = lmbda * goes_on",
        "trace = 0.999 * lmbda * goes_on",
        RETURNS,
    ),
    "lambda rounded to single precision": (
        "trace = lmbda * goes_on",
        "trace = (lmbda * goes_on).float().to(goes_on)",
        RETURNS,
    ),
    "done ignored": (
        "goes_on = (~(done | terminated)).to(dtype)",
        "goes_on = (~terminated).to(dtype)",
        RETURNS,
    ),
    "termination ignored by the trace": (
        "goes_on = (~(done | terminated)).to(dtype)",
        "goes_on = (~done).to(dtype)",
        RETURNS,
    ),
    "termination ignored by the bootstrap": (
        "gamma * (~terminated).to(dtype) *",
        "gamma *",
        RETURNS,
    ),
    "done stops the bootstrap": (
        "gamma * (~terminated).to(dtype) *",
        "gamma * (~done).to(dtype) *",
        RETURNS,
    ),
    "the last step has a trace": (
        "trace = torch.cat([trace[:-1], torch.zeros_like(trace[-1:])])",
        "trace = trace.clone()",
        RETURNS,
    ),
    "one doubling too few": ("while reach < steps:", "while 2 * reach < steps:", RETURNS),
    "doubling by three": ("reach *= 2", "reach *= 3", RETURNS),
    "time along another dimension": (
        "return value.movedim(0, time_dim)",
        "return value.movedim(0, time_dim).roll(1, time_dim)",
        RETURNS,
    ),
    "control variate of the other sign": (
        "(next_value[:-1] - value[1:])",
        "(value[1:] - next_value[:-1])",
        RETURNS,
    ),
    "control variate of the same step": (
        "(next_value[:-1] - value[1:])",
        "(next_value[:-1] - value[:-1])",
        RETURNS,
    ),
    "control variate across ends": (
        "goes_on = (~(done | terminated))[:-1].to(value.dtype)",
        "goes_on = (~terminated)[:-1].to(value.dtype)",
        RETURNS,
    ),
    "control variate without lambda": ("gamma * lmbda * goes_on *", "gamma * goes_on *", RETURNS),
    # discrete weights
    "score without a term": (
        "(rest.square() + rest_squared).log()",
        "rest.square().log()",
        WEIGHTS,
    ),
    "score with a factor": (
        "(rest.square() + rest_squared).log()",
        "(2 * rest.square() + rest_squared).log()",
        WEIGHTS,
    ),
    "weights not normalized": (
        "x = torch.where(total == 0, p, weighted / torch.where(total == 0, 1, total))",
        "x = torch.where(total == 0, p, weighted)",
        WEIGHTS,
    ),
    "mask ignored": (
        "logits = logits.masked_fill(~dist.mask, -math.inf)",
        "logits = dist._original_logits",
        WEIGHTS,
    ),
    "nothing is ruled out": (
        "return log_probs.masked_fill(log_probs < _SMALLEST, -math.inf)",
        "return log_probs",
        WEIGHTS,
    ),
    # Gaussian weights
    "score not centered": (
        "scores=lambda z: (z, z.square().sub_(1)),",
        "scores=lambda z: (z, z.square()),",
        GAUSSIAN,
    ),
    "score of the location alone": (
        "return (a * first).square_() + (b * second).square_()",
        "return (a * first).square_()",
        GAUSSIAN,
    ),
    "location's score in other units": (
        "return 1 / scale, 1 / scale",
        "return torch.ones_like(scale), 1 / scale",
        GAUSSIAN,
    ),
    "log scale for scale": (
        "return 1 / scale, 1 / scale",
        "return 1 / scale, torch.ones_like(scale)",
        GAUSSIAN,
    ),
    "scale among location alone": (
        "return 1 / scale, torch.zeros_like(scale)",
        "return 1 / scale, torch.ones_like(scale)",
        GAUSSIAN,
    ),
    "share of a component": (
        "share = torch.where(total > 0, expected / torch.where(total > 0, total, 1), 1 / dim)",
        "share = torch.full_like(expected, 1 / dim)",
        GAUSSIAN,
    ),
    "weights without the score": (
        "tilted = interpolatory_weights(nodes, standard, tilt)",
        "tilted = interpolatory_weights(nodes, standard, p)",
        GAUSSIAN,
    ),
    "truncated score's cross term": (
        "2 * (self.height + mean) * offset",
        "2 * self.height * offset",
        GAUSSIAN,
    ),
    "line without its Jacobian": (
        "mul_(-0.5).exp_().mul_(growth.add_(decay))",
        "mul_(-0.5).exp_()",
        GAUSSIAN,
    ),
    # critics
    "own message kept in the mean": ("mean - messages / num_agents", "mean", CRITICS),
    "candidates move the mean by too much": ("alpha=1 / num_agents", "alpha=1", CRITICS),
    "own action kept among the others'": (
        "others_action = (action.unsqueeze(1) * others)",
        "others_action = (action.unsqueeze(1) * torch.ones_like(others))",
        CRITICS,
    ),
    "other groups not counted": ("num_agents += others.num_agents", "pass", CRITICS),
    "messages of a group averaged": (
        "embed(observed, action.unsqueeze(-2))).sum((1, 2))",
        "embed(observed, action.unsqueeze(-2))).mean((1, 2))",
        CRITICS,
    ),
    "chunks in another order": (
        "return torch.cat([function(chunk) for chunk in inputs.split(size)])",
        "return torch.cat([function(chunk) for chunk in inputs.split(size)][::-1])",
        CRITICS,
    ),
    "substitution into everybody": (
        "return torch.where(mine, own.unsqueeze(3),",
        "return torch.where(mine | True, own.unsqueeze(3),",
        CRITICS,
    ),
    "substitution into the next agent": (
        "return torch.where(mine, own.unsqueeze(3),",
        "return torch.where(mine.roll(1, 1), own.unsqueeze(3),",
        CRITICS,
    ),
    "substituted chunks in another order": (
        "return torch.cat(values).reshape(*batch, n, num_candidates)",
        "return torch.cat(values[::-1]).reshape(*batch, n, num_candidates)",
        CRITICS,
    ),
}


def mutated(name, folder):
    """Copy the package and its tests to a folder, with a mistake; what is wrong with the mistake, if so."""
    old, new, _ = MUTANTS[name]
    files = [x for x in (ROOT / "torchrl_ob").rglob("*.py") if old in x.read_text()]
    if sum(x.read_text().count(old) for x in files) != 1:
        return f"stands in {[x.name for x in files]}, not once: mend the mutant"
    for part in COPIED:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, folder / part)
    path = folder / files[0].relative_to(ROOT)
    path.write_text(path.read_text().replace(old, new))
    return ""


def try_mutant(name):
    """Whether the short profile passes: run in a process of its own, which has torch, and not the package."""
    assert "torchrl_ob" not in sys.modules
    with tempfile.TemporaryDirectory() as folder:
        if wrong := mutated(name, Path(folder)):
            return name, wrong
        os.chdir(folder)
        sys.path.insert(0, folder)
        options = ["-x", "-k", MUTANTS[name][2], "--hypothesis-profile", "mutants"]
        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(out):
            code = pytest.main(["tests/fuzz", *options, "-p", "no:cacheprovider", "--assert=plain"])
        os.chdir(ROOT)
    if code == pytest.ExitCode.TESTS_FAILED:
        return name, ""
    return name, "survives" if code == pytest.ExitCode.OK else out.getvalue()[-2000:]


def main():
    """Try all mutants, or those named."""
    names = sys.argv[1:] or list(MUTANTS)
    workers = int(os.environ.get("WORKERS", "2"))
    survivors = 0
    with multiprocessing.get_context("fork").Pool(workers, maxtasksperchild=1) as pool:
        for name, result in pool.imap(try_mutant, names):
            print(f"{name}: {result or 'found'}", flush=True)
            survivors += bool(result)
    print(f"{len(names) - survivors} of {len(names)} mutants are found")
    sys.exit(survivors > 0)


if __name__ == "__main__":
    main()
