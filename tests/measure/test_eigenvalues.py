"""The ends of the spectrum against dense matrices and known spectra."""

import pytest
import torch
from small_nets import CE, F64, dense_ggn, dense_hessian, net, output, quadratic, samples

import bisam
from bisam.measure import top_eigenvalues, trace
from bisam.measure.eigenvalues import DENSE


@pytest.mark.parametrize("hidden, samples_at_a_time", [(5, 100), (5, 5), (9, 6)], ids=["dense", "dense in parts", "lanczos"])
def test_eigenvalues_are_those_of_the_dense_hessian(hidden, samples_at_a_time):
    model, (x, y) = net(hidden=hidden), samples()
    values = torch.linalg.eigvalsh(dense_hessian(model, x, y)).flip(0)
    assert (sum(p.numel() for p in model.parameters()) > DENSE) == (hidden == 9)
    how = {"tolerance": 1e-10, "samples_at_a_time": samples_at_a_time}
    assert torch.allclose(top_eigenvalues(model, CE, x, y, 4, **how), values[:4], atol=1e-9)
    lowest = top_eigenvalues(model, CE, x, y, 3, which="smallest", **how)
    assert torch.allclose(lowest, values.flip(0)[:3], atol=1e-9) and lowest[0] < 0
    both = values[values.abs().argsort(descending=True)][:5]
    assert torch.allclose(top_eigenvalues(model, CE, x, y, 5, which="magnitude", **how), both, atol=1e-9)


@pytest.mark.parametrize("hidden", [5, 9], ids=["dense", "lanczos"])
def test_ggn_is_the_written_out_one_and_not_the_hessian(hidden):
    model, (x, y) = net(hidden=hidden), samples()
    ggn, hessian = dense_ggn(model, x), dense_hessian(model, x, y)
    assert (ggn - hessian).abs().max() > 1e-3
    found = top_eigenvalues(model, CE, x, y, 4, ggn=True, tolerance=1e-10, samples_at_a_time=6)
    assert torch.allclose(found, torch.linalg.eigvalsh(ggn).flip(0)[:4], atol=1e-9)
    exact = trace(model, CE, x, y, products=10_000, ggn=True, samples_at_a_time=6)
    assert exact == pytest.approx(float(ggn.trace()), rel=1e-10)
    assert float(top_eigenvalues(model, CE, x, y, which="smallest", ggn=True)) > -1e-6


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_other_losses_have_their_own_hessian(smoothing):
    model, (x, y) = net(), samples()
    for loss in (bisam.CrossEntropy(smoothing), bisam.BISAM_LOG.ascent, bisam.BISAM_TANH.ascent):
        values = torch.linalg.eigvalsh(dense_hessian(model, x, y, loss)).flip(0)
        assert torch.allclose(top_eigenvalues(model, loss, x, y, 3, samples_at_a_time=6), values[:3], atol=1e-9)


def test_quadratic_has_the_spectrum_it_was_given():
    given = torch.cat([torch.tensor([30.0, 9.0, -4.0], dtype=F64), torch.linspace(0, 1, 97, dtype=F64)])
    model, x, y = quadratic(given)
    assert torch.allclose(top_eigenvalues(model, output, x, y, 2), given[:2], atol=1e-2)
    assert float(top_eigenvalues(model, output, x, y, which="smallest")) == pytest.approx(-4, abs=1e-2)
    assert top_eigenvalues(model, output, x, y, 3, which="magnitude").tolist() == pytest.approx([30, 9, -4], abs=1e-2)
    assert trace(model, output, x, y, products=100) == pytest.approx(float(given.sum()), rel=1e-10)


def test_matrices_of_low_rank_have_zeros_and_end_in_time():
    given = torch.tensor([5.0, 2.0] + [0.0] * 98)
    model, x, y = quadratic(given)
    assert top_eigenvalues(model, output, x, y, 4).tolist() == pytest.approx([5, 2, 0, 0], abs=1e-3)
    assert float(top_eigenvalues(model, output, x, y, which="smallest")) == pytest.approx(0, abs=1e-3)
    flat, x, y = quadratic(torch.zeros(100))
    assert top_eigenvalues(flat, output, x, y, 2).tolist() == [0, 0]
