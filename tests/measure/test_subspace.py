"""The plane through three networks."""

import pytest
import torch
from digit_nets import METRICS, X, Y, network

from bisam import CrossEntropy
from bisam.measure import Subspace, gaussian, landscape, plane_through, weights_of


def test_the_plane_goes_through_its_three_models_and_keeps_distances():
    models_ = [network(seed=seed) for seed in (0, 1, 2)]
    w = [weights_of(m) for m in models_]
    found, corners = plane_through(*w)
    for (a, b), weights in zip(corners, w, strict=True):
        for name, part in found.at(a, b).items():
            torch.testing.assert_close(part, weights[name], rtol=1e-12, atol=1e-12)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        far = torch.cat([(w[i][name] - w[j][name]).flatten() for name in w[0]]).norm()
        torch.testing.assert_close((corners[i] - corners[j]).norm(), far)
    values = landscape(models_[0], found, [corners[:, 0], corners[:, 1]], X, Y, METRICS, batch_norm="batch")
    for k, model in enumerate(models_):
        wanted = CrossEntropy()(model.train()(X), Y).detach()
        torch.testing.assert_close(values["ce"][k, k], wanted, rtol=1e-11, atol=0)


def test_errors_of_subspaces_name_the_argument():
    model = network("mlp")
    w, u = weights_of(model), gaussian(model, 0)
    with pytest.raises(ValueError, match=r"along\['1.weight'\] must have shape \(128, 64\), as in origin"):
        Subspace(w, {**u, "1.weight": torch.ones(2, 2)})
    with pytest.raises(ValueError, match="coordinates must be 2"):
        Subspace(w, u, u).at(1.0)
    far = {name: part + 1 for name, part in w.items()}
    for third in (w, far, {name: part + 2 for name, part in w.items()}):
        with pytest.raises(ValueError, match="third must not lie on the line"):
            plane_through(w, far, third)
    with pytest.raises(ValueError, match="third must not lie on the line"):
        plane_through(w, w, far)
