"""Every estimator against values worked by hand or by brute force."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from rlaif.training.ppo import estimators as e  # noqa: E402


def test_kl_estimators_by_hand() -> None:
    logps, ref = torch.tensor([[math.log(0.5)]]), torch.tensor([[math.log(0.25)]])
    assert e.kl_per_token(logps, ref, "k1").item() == pytest.approx(math.log(2))
    assert e.kl_per_token(logps, ref, "k2").item() == pytest.approx(math.log(2) ** 2 / 2)
    assert e.kl_per_token(logps, ref, "k3").item() == pytest.approx(0.5 - 1 + math.log(2))


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_unbiased_estimators_have_the_kl_as_their_mean(estimator: str) -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    exact = (p * (p / q).log()).sum()
    mean = (p * e.kl_per_token(p.log()[None], q.log()[None], estimator)[0]).sum()
    assert mean.item() == pytest.approx(exact.item(), abs=1e-12)


def test_the_score_falls_on_the_last_token_of_the_mask() -> None:
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    kl = torch.tensor([[0.1, 0.2, 9.0], [0.0, 0.0, 0.5], [1.0, 1.0, 1.0]])
    found = e.token_rewards(torch.tensor([2.0, -1.0, 5.0]), kl, mask, kl_coef=0.5)
    expected = [[-0.05, -0.1 + 2.0, 0.0], [0.0, 0.0, -0.25 - 1.0], [0.0, 0.0, 0.0]]
    assert torch.allclose(found, torch.tensor(expected))


def brute(rewards, values, gamma: float, lam: float) -> list[float]:
    """Σ_k (γλ)^k δ_{t+k}, term by term."""
    n, found = len(rewards), []
    after = [*values[1:], 0.0]
    deltas = [rewards[t] + gamma * after[t] - values[t] for t in range(n)]
    for t in range(n):
        found.append(sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, n)))
    return found


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.9, 0.8), (1.0, 0.0), (0.97, 0.95)])
def test_gae_is_the_sum_of_its_definition(gamma: float, lam: float) -> None:
    torch.manual_seed(0)
    lengths = [7, 3, 1, 5]
    mask = torch.tensor([[float(t < n) for t in range(7)] for n in lengths], dtype=torch.float64)
    rewards, values = (torch.randn(4, 7, dtype=torch.float64) * mask for _ in range(2))
    advantages, targets = e.gae(rewards, values, mask, gamma, lam)
    for row, n in enumerate(lengths):
        expected = brute(rewards[row, :n].tolist(), values[row, :n].tolist(), gamma, lam)
        assert advantages[row, :n].tolist() == pytest.approx(expected)
        assert targets[row, :n].tolist() == pytest.approx(
            [a + v for a, v in zip(expected, values[row].tolist(), strict=False)]
        )
    assert (advantages * (1 - mask)).abs().sum() == 0 == (targets * (1 - mask)).abs().sum()


def test_with_lambda_one_the_target_is_the_return() -> None:
    rewards, mask = torch.tensor([[1.0, 2.0, 4.0]]), torch.ones(1, 3)
    _, targets = e.gae(rewards, torch.tensor([[0.3, -2.0, 5.0]]), mask, gamma=0.5, lam=1.0)
    assert torch.allclose(targets, torch.tensor([[1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4, 4.0]]))


def test_holes_in_the_mask_are_passed_over() -> None:
    torch.manual_seed(1)
    mask = torch.tensor([[1.0, 1, 0, 0, 1, 1, 1, 0]])
    rewards, values, kept = torch.randn(1, 8) * mask, torch.randn(1, 8), mask[0].bool()
    holed = e.gae(rewards, values, mask, 0.97, 0.9)
    dense = e.gae(rewards[:, kept], values[:, kept], torch.ones(1, 5), 0.97, 0.9)
    for with_holes, without in zip(holed, dense, strict=True):
        assert torch.allclose(with_holes[:, kept], without, atol=1e-6)


def test_whitening_is_the_standard_score_over_the_mask() -> None:
    x, mask = torch.tensor([[1.0, 2.0, 100.0], [3.0, 6.0, 100.0]]), torch.tensor([[1.0, 1, 0], [1, 1, 0]])
    found = e.whiten(x, mask, e.masked_moments(x, mask))
    values = torch.tensor([1.0, 2.0, 3.0, 6.0])
    expected = (values - values.mean()) / values.std()
    assert torch.allclose(found[mask.bool()], expected, atol=1e-6)
    assert found[~mask.bool()].tolist() == [0, 0]
    kept = e.whiten(x, mask, e.masked_moments(x, mask), shift_mean=False)
    assert torch.allclose(kept[mask.bool()], expected + 3.0, atol=1e-6)


def test_the_value_loss_takes_the_worse_of_both() -> None:
    values, targets = torch.tensor([[1.0, 0.5]]), torch.tensor([[2.0, 0.0]])
    old, mask = torch.tensor([[0.0, 0.4]]), torch.ones(1, 2)
    loss, share = e.value_loss(values, targets, old, mask, cliprange=0.2)
    # token 0: (1−2)² = 1 against (0.2−2)² = 3.24; token 1: within the clip, 0.25 both
    assert loss.item() == pytest.approx(0.5 * (3.24 + 0.25) / 2)
    assert share.item() == pytest.approx(0.5)
    plain, none = e.value_loss(values, targets, old, mask, cliprange=None)
    assert plain.item() == pytest.approx(0.5 * (1 + 0.25) / 2) and none.item() == 0


def test_approximate_kl_by_hand() -> None:
    found = e.approximate_kl(torch.tensor([[0.3, 9.0]]), torch.tensor([[0.1, 0.0]]), torch.tensor([[1.0, 0.0]]))
    assert found.item() == pytest.approx(0.02)


def test_running_moments_are_those_of_everything_seen() -> None:
    torch.manual_seed(0)
    moments, parts = e.RunningMoments(), [torch.randn(n) * 3 + 5 for n in (4, 1, 30)]
    for part in parts:
        moments.update(part)
    moments.update(torch.empty(0))
    seen = torch.cat(parts)
    assert moments.mean == pytest.approx(seen.mean().item(), rel=1e-4)
    assert moments.variance == pytest.approx(seen.var(unbiased=False).item(), rel=1e-3)
    other = e.RunningMoments()
    other.restore(moments.state())
    assert torch.equal(other.normalised(seen), moments.normalised(seen))


def test_the_controller_follows_its_target() -> None:
    controller = e.KLController(0.1, target=6.0, horizon=1000)
    controller.update(6.6, 100)  # 10 % above: 1 + 0.1·100/1000
    assert controller.coefficient == pytest.approx(0.1 * 1.01)
    controller.update(60.0, 100)  # clipped at 20 %
    assert controller.coefficient == pytest.approx(0.1 * 1.01 * 1.02)
    controller.update(0.0, 100)
    assert controller.coefficient == pytest.approx(0.1 * 1.01 * 1.02 * 0.98)
    fixed = e.KLController(0.1)
    fixed.update(100.0, 100)
    assert fixed.coefficient == 0.1
