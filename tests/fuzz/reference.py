"""Slow, obvious references in double precision and above, written from the formulas alone."""

from itertools import product

import mpmath
import numpy as np

LEAST = float(np.log(5e-324))

SMALLEST = mpmath.mpf(2) ** -1074  # the smallest positive double


def policy_and_optimal_weights(logits):
    """Probabilities and ``x = π w / E[w]`` of all joint choices of some softmax factors.

    ``w = Σ_d ‖e_a - π_d‖²``, with as many digits as no cancellation can take. Of logits ``-inf`` the
    action cannot be taken, nor of those that make it less likely than any double.
    """
    with mpmath.workdps(30):
        factors = []
        for line in logits:
            top = max(line)
            odds = [
                mpmath.exp(mpmath.mpf(x) - mpmath.mpf(top)) if x - top > LEAST else 0 for x in line
            ]
            total = mpmath.fsum(odds)
            pi = [x / total if x / total >= SMALLEST else mpmath.mpf(0) for x in odds]
            others = [mpmath.fsum(pi[:a] + pi[a + 1 :]) for a in range(len(pi))]
            squares = [mpmath.fsum(p * p for p in pi[:a] + pi[a + 1 :]) for a in range(len(pi))]
            factors.append((pi, [o * o + s for o, s in zip(others, squares, strict=True)]))
        probabilities, weighted = [], []
        for choice in product(*(range(len(pi)) for pi, _ in factors)):
            p, w = mpmath.mpf(1), mpmath.mpf(0)
            for (pi, score), a in zip(factors, choice, strict=True):
                p, w = p * pi[a], w + score[a]
            probabilities.append(p)
            weighted.append(p * w)
        total = mpmath.fsum(weighted)
        x = [v / total for v in weighted] if total else probabilities
        return [float(p) for p in probabilities], [float(v) for v in x]


def lambda_return(reward, next_value, done, terminated, gamma, lmbda):
    """``G_t = r_t + γ (1 - d_t) [(1 - λ_t) V_{t+1} + λ_t G_{t+1}]`` of one trajectory, backwards."""
    returns, following = [0.0] * len(reward), 0.0
    for t in reversed(range(len(reward))):
        ends = done[t] or terminated[t] or t == len(reward) - 1
        trace = 0.0 if ends else lmbda
        goes_on = 0.0 if terminated[t] else 1.0
        bootstrap = (1 - trace) * next_value[t] + (trace * following if trace else 0.0)
        following = returns[t] = reward[t] + (gamma * bootstrap if goes_on else 0.0)
    return returns


def return_with_control_variate(reward, next_value, value, done, terminated, gamma, lmbda):
    """``G_t = r_t + γ (1 - d_t) [V(s_{t+1}) + λ_t (G_{t+1} - Q(s_{t+1}, a_{t+1}))]``."""
    returns, following = [0.0] * len(reward), 0.0
    for t in reversed(range(len(reward))):
        bootstrap = next_value[t]
        if not (done[t] or terminated[t] or t == len(reward) - 1):
            bootstrap += lmbda * (following - value[t + 1])
        following = returns[t] = reward[t] + (0.0 if terminated[t] else gamma * bootstrap)
    return returns


def normal_quadrature():
    """Nodes and probabilities of a standard normal, to the last digits of a smooth function's mean."""
    z = np.linspace(-12, 12, 6001)
    p = np.exp(-(z**2) / 2)
    return z, p / p.sum()


def truncated_quadrature(lower, upper):
    """Nodes and probabilities of a standard normal between two bounds, far in a tail as well."""
    mode = min(max(0.0, lower), upper)
    reach = 40 / max(1.0, abs(mode))
    low, high = max(lower, mode - min(reach, 14)), min(upper, mode + min(reach, 14))
    nodes, weights = np.polynomial.legendre.leggauss(400)
    # from the mode, so that nothing is lost far from zero
    t = (low - mode) + (high - low) * (nodes + 1) / 2
    p = weights * np.exp(-t * mode - t**2 / 2)
    return mode, t, p / p.sum()


def squared_scores(z, p, scale, psi):
    """``w`` of one component whose density is ``∝ exp(-z²/2)``: the scores are centered moments of z."""
    first = z - (p * z).sum()
    second = z**2 - (p * z**2).sum()
    return {
        "loc_scale": (first**2 + second**2) / scale**2,
        "loc_log_scale": first**2 / scale**2 + second**2,
        "loc": first**2 / scale**2,
    }[psi]


def require_drawn(draws):
    """That draws ``(probabilities, index)`` are none of a mode, nor of the first choice, alone."""
    for alone in (lambda pi: max(range(len(pi)), key=pi.__getitem__), lambda _: 0):
        if all(index == alone(pi) for pi, index in draws):
            assert np.prod([pi[alone(pi)] for pi, _ in draws]) > 1e-9, "always the same choice"
