"""What the chapters show and say: their code makes the library's step, and their numbers are those that come out."""

import copy
import importlib
import importlib.util
import math
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import bisam

BOOK = Path(__file__).resolve().parents[2] / "book"
PAGES = {name: (BOOK / f"{name}.md").read_text(encoding="utf-8") for name in ("notation", "sam", "bisam", "adaptive")}
SPREAD = torch.tensor([0.109] + [0.099] * 9, dtype=torch.float64)  # the two samples of the counterexample
TORN = torch.tensor([0.49, 0.50] + [0.00125] * 8, dtype=torch.float64)
FIRST = torch.tensor([0])


@pytest.fixture(scope="module")
def shown():
    spec = importlib.util.spec_from_file_location("algorithm1", BOOK / "code" / "algorithm1.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def says(page, sentence):
    """Whether a page holds a sentence, however its lines are broken."""
    return " ".join(sentence.split()) in " ".join(PAGES[page].split())


def row(page, start):
    """The cells of the one table row that begins with the given cells."""
    found = [line for line in PAGES[page].splitlines() if line.startswith(f"| {start} |")]
    assert len(found) == 1, f"{len(found)} rows of {page}.md begin with {start}"
    return [cell.strip() for cell in found[0].strip("|").split(" | ")]


# -- the code -----------------------------------------------------------------------------------------------------------


def setting(dtype=torch.float64):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 4)).to(dtype)
    return model, torch.randn(16, 6, dtype=dtype), torch.randint(4, (16,))


def sgd_of(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)


def same_weights(left, right):
    return all(torch.equal(a, b) for a, b in zip(left.parameters(), right.parameters(), strict=True))


@pytest.mark.parametrize("recipe", [bisam.SAM, bisam.BISAM_LOG, bisam.BISAM_TANH], ids=lambda recipe: recipe.name)
def test_algorithm_1_makes_the_steps_of_the_library_bit_for_bit(shown, recipe):
    model, x, y = setting()
    twin = copy.deepcopy(model)
    sgd, opt = sgd_of(model), bisam.SharpnessAware(sgd_of(twin), recipe)
    for _ in range(5):
        before = copy.deepcopy(model)
        shown.bisam_step(model, x, y, recipe.raised, recipe.descent, sgd, recipe.radius.rho)
        opt.step(bisam.Batch(twin, x, y))
        assert same_weights(model, twin)
        assert not same_weights(model, before)


def test_the_spelled_out_sam_makes_the_steps_of_the_library_bit_for_bit(shown):
    model, x, y = setting()
    twin = copy.deepcopy(model)
    spelled, opt = (bisam.SharpnessAware(sgd_of(net), bisam.SAM) for net in (model, twin))
    for _ in range(5):
        shown.sam_step(model, x, y, bisam.CrossEntropy(), spelled)
        opt.step(bisam.Batch(twin, x, y))
        assert same_weights(model, twin)


def test_the_two_lines_make_the_steps_of_algorithm_1(shown):
    model, x, y = setting()
    twin = copy.deepcopy(model)
    batches = [(x[:8], y[:8]), (x[8:], y[8:])]
    losses = shown.train_epoch(model, batches, sgd_of(model))
    assert losses[0] == bisam.CrossEntropy()(twin(x[:8]), y[:8])
    sgd = sgd_of(twin)
    for inputs, targets in batches:
        shown.bisam_step(twin, inputs, targets, bisam.BISAM_LOG.ascent, bisam.CrossEntropy(), sgd, 0.05)
    assert same_weights(model, twin)


def test_the_control_differs_from_the_published_sam_in_the_ascent_only(shown):
    control = shown.control_recipe()
    published = bisam.SAM.replace(name=control.name, descent=control.descent)
    assert published.raised.smoothing == 0.1 and control.raised.smoothing == 0
    assert control.replace(ascent=None) == published


def test_every_marker_that_a_chapter_includes_exists_once():
    code = (BOOK / "code" / "algorithm1.py").read_text(encoding="utf-8")
    markers = [m for page in PAGES.values() for m in re.findall(r':(?:start-after|end-before): "(# \[.+)"', page)]
    assert len(markers) == 8
    for marker in markers:
        assert code.count(marker + "\n") == 1, marker


# -- names --------------------------------------------------------------------------------------------------------------


def test_every_name_in_the_table_of_symbols_exists():
    names = sorted(set(re.findall(r"`(bisam(?:\.\w+)+)`", PAGES["notation"])))
    assert len(names) >= 20
    for name in names:
        value, place = bisam, "bisam"
        for part in name.split(".")[1:]:
            place = f"{place}.{part}"
            if isinstance(value, ModuleType) and not hasattr(value, part):
                importlib.import_module(place)
            assert hasattr(value, part) or part in getattr(value, "__dataclass_fields__", {}), name
            value = getattr(value, part, None)


# -- the numbers of the chapter on SAM -------------------------------------------------------------------------------------


def test_size_of_the_bound():
    d, n = 853_018, 45_000
    value = math.sqrt(d * math.log(2) / (4 * (n - 1)))
    assert says("sam", f"$d = 853{{,}}018$ weights on $n = 45{{,}}000$ images this is {value:.2f} even if")


def test_the_best_prior_gives_the_printed_divergence():
    w, sigma = torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64), 0.4
    d, length = len(w), (w @ w).item()

    def divergence(variance):
        return 0.5 * ((d * sigma**2 + length) / variance - d + d * math.log(variance / sigma**2))

    best = sigma**2 + length / d
    assert divergence(best) == pytest.approx(d / 2 * math.log(1 + length / (d * sigma**2)), rel=1e-12)
    assert divergence(best) < min(divergence(best * 0.99), divergence(best * 1.01))
    normal = torch.distributions.Normal
    exact = torch.distributions.kl_divergence(normal(w, sigma), normal(torch.zeros(3).double(), best**0.5)).sum()
    assert divergence(best) == pytest.approx(exact.item(), rel=1e-12)


@pytest.mark.parametrize("p", [1.1, 1.5, 2.0, 3.0, 10.0])
def test_dual_norm_formula_lies_on_the_edge_and_reaches_the_maximum(p):
    g, rho, q = torch.tensor([3.0, -4.0, 0.5, 0.0], dtype=torch.float64), 0.7, p / (p - 1)
    climb = rho * g.sign() * g.abs() ** (q - 1) / (g.norm(q) ** q) ** (1 / p)
    assert climb.norm(p).item() == pytest.approx(rho, rel=1e-12)
    assert (g @ climb).item() == pytest.approx(rho * g.norm(q).item(), rel=1e-12)
    others = torch.randn(2000, 4, dtype=torch.float64)
    others = rho * others / others.norm(p, dim=1, keepdim=True)
    assert (others @ g).max() <= g @ climb


def test_exercise_three_balls():
    g = torch.tensor([3.0, -4.0])
    for p, climb in (("2", g / g.norm()), (r"$\infty$", g.sign()), ("1", torch.tensor([0.0, -1.0]))):
        assert says("sam", f"| {p} | ({climb[0]:.1g}, {climb[1]:.1g}) | {g @ climb:.0f} |")


def test_exercise_two_cycle():
    c, eta, rho, w = 3.0, 0.2, 0.5, 1.7
    for _ in range(200):
        w = w - eta * c * (w + rho * math.copysign(1, w))
    assert abs(w) == pytest.approx(eta * c * rho / (2 - eta * c), rel=1e-12)


def quadratic():
    torch.manual_seed(1)
    h = torch.randn(4, 4, dtype=torch.float64)
    return h + h.T, torch.randn(4, dtype=torch.float64, requires_grad=True)


def test_exercise_dropped_term_on_a_quadratic():
    h, w = quadratic()
    rho = 0.3

    def unit(v):
        return h @ v / (h @ v).norm()

    climbed = w + rho * unit(w)
    whole = torch.autograd.grad(climbed @ h @ climbed / 2, w)[0]
    u, size = unit(w).detach(), (h @ w).norm().detach()
    kept = h @ climbed.detach()
    dropped = rho**2 / size * h @ (h @ u - u * (u @ h @ u))
    torch.testing.assert_close(whole, kept + dropped, rtol=1e-12, atol=1e-12)
    penalised = torch.autograd.grad(w @ h @ w / 2 + rho * (h @ w).norm(), w)[0]
    torch.testing.assert_close(kept, penalised, rtol=1e-12, atol=1e-12)
    assert dropped.norm() > 1e-3


def test_one_update_on_a_quadratic_steps_further_where_the_curvature_is_larger():
    curvature, w, rho = torch.tensor([0.5, 4.0]), torch.tensor([1.0, 0.2]), 0.1
    g = curvature * w
    climbed = curvature * (w + rho * g / g.norm())
    torch.testing.assert_close(climbed, g * (1 + rho * curvature / g.norm()))


# -- the numbers of the chapter on BiSAM ----------------------------------------------------------------------------------


def value(probabilities, loss):
    return loss(probabilities.log().unsqueeze(0), FIRST).item()


LOG, TANH = bisam.BISAM_LOG.ascent, bisam.BISAM_TANH.ascent


@pytest.mark.parametrize("name, loss", [
    ("0-1 loss", bisam.losses.zero_one),
    ("cross-entropy", bisam.CrossEntropy()),
    (r"$q$, -log, $\mu = 1.5$", LOG),
    (r"$q$, tanh, $\mu = 10$, $\alpha = 0.1$", TANH),
    (r"$q$, -log, $\mu = 100$", bisam.Surrogate(bisam.NegLog(), 100.0)),
])  # fmt: skip
def test_counterexample(name, loss):
    spread, torn = value(SPREAD, loss), value(TORN, loss)
    worse = "torn" if torn > spread else "spread"
    digits = 0 if loss is bisam.losses.zero_one else 3
    assert says("bisam", f"| {name} | {spread:.{digits}f} | {torn:.{digits}f} | {worse} |")


def test_counterexample_is_made_of_the_printed_probabilities():
    assert SPREAD.sum().item() == pytest.approx(1) and TORN.sum().item() == pytest.approx(1)
    assert row("bisam", "probability of the true class")[1:3] == ["0.109", "0.49"]
    assert row("bisam", "probability of its strongest rival")[1:3] == ["0.099", "0.50"]
    assert row("bisam", "probability of each other class")[1:3] == ["0.099", "0.00125"]
    assert 3 < value(SPREAD, bisam.CrossEntropy()) / value(TORN, bisam.CrossEntropy()) < 3.2
    assert says("bisam", f"its cross-entropy is {value(TORN, bisam.CrossEntropy()):.3f}, less than 1")


@pytest.mark.parametrize("classes, mu_log, mu_tanh", [(10, 1.5, 10), (100, 1.5, 10), (1000, 5, 20)])
def test_what_the_certificate_is_worth(classes, mu_log, mu_tanh):
    threshold = math.log(classes - 1)
    lead = math.atanh(threshold / mu_tanh) / TANH.phi.alpha
    assert row("bisam", str(classes)) == [
        str(classes), f"{threshold:.2f}", f"{mu_log:g}", f"{bisam.losses.gap(mu_log, classes):.2f}",
        f"{mu_tanh:g}", f"{bisam.losses.gap(mu_tanh, classes):.2f}", f"{lead:.1f}",
    ]  # fmt: skip
    assert mu_log < threshold < mu_tanh
    logits = torch.full((2, classes), -1e6, dtype=torch.float64)  # the other classes are far behind
    logits[:, 0], logits[0, 1], logits[1, 1] = 0, lead + 0.01, lead - 0.01
    enough, too_little = bisam.Surrogate(bisam.Tanh(), float(mu_tanh)).per_sample(logits, torch.tensor([0, 0]))
    assert enough > 0 > too_little


def test_threshold_of_the_fine_tuning_tasks():
    flowers, pets = math.log(102 - 1), math.log(37 - 1)
    assert says("bisam", f"$\\mu = 4$ is below {flowers:.2f} too") and flowers > 4
    assert says("bisam", f"$\\mu = 6$ is above its threshold, which is {pets:.2f}.") and pets < 6


def test_minus_log_certifies_nothing_with_one_rival():
    ceiling = (math.log(1 + math.exp(1.5)) - math.log(10)) / 1.5
    assert says("bisam", f"at most {ceiling:.2f} for $K = 10$")
    logits = torch.full((1, 10), -1e4, dtype=torch.float64)
    logits[0, :2] = torch.tensor([0.0, 1e4])
    assert LOG(logits, FIRST).item() == pytest.approx(ceiling, rel=1e-9)


@pytest.mark.parametrize("classes, mu", [(10, 1.5), (100, 1.5), (1000, 5.0)])
def test_number_of_rivals_that_a_certificate_needs(classes, mu):
    needed = math.floor((classes - 1) / math.exp(mu)) + 1
    assert says("bisam", f"at least {needed} classes with $K = {classes}$" if classes == 10 else f"{needed} with $K = {classes}$")
    logits = torch.full((2, classes), -1e4, dtype=torch.float64)
    logits[:, 0] = 0
    logits[0, 1 : needed + 1] = 1e4
    logits[1, 1:needed] = 1e4
    enough, too_few = bisam.Surrogate(bisam.NegLog(), mu).per_sample(logits, torch.tensor([0, 0]))
    assert enough > 0 > too_few


def pull(loss, margins):
    logits = torch.stack([torch.zeros_like(margins), margins], 1).requires_grad_()
    loss.per_sample(logits, torch.zeros(len(margins), dtype=torch.int64)).sum().backward()
    return logits.grad[:, 1]


@pytest.mark.parametrize("name, loss", [
    ("cross-entropy", bisam.CrossEntropy()),
    (r"$q$, -log, $\mu = 1.5$", LOG),
    (r"$q$, tanh, $\mu = 10$, $\alpha = 0.1$", TANH),
])  # fmt: skip
def test_pull_by_margin(name, loss):
    margins = torch.tensor([-5.0, -2.0, 0.0, 2.0, 5.0], dtype=torch.float64)
    assert row("bisam", "margin $F$ of the rival")[1:] == [f"{margin:g}" for margin in margins.tolist()]
    strength = (pull(loss, margins) / pull(loss, margins)[2]).tolist()
    printed = " | ".join(f"{x:.{k}f}" for x, k in zip(strength, (3, 2, 0, 2, 2), strict=True))
    assert says("bisam", f"| {name} | {printed} |")


def test_where_tanh_pulls_less_than_at_a_tie():
    margins = torch.linspace(0, 12, 1201, dtype=torch.float64)
    stronger = pull(TANH, margins) > pull(TANH, margins)[0]
    assert says("bisam", f"only beyond a margin of {margins[stronger].max():.1f}")


def test_slope_and_shift_of_minus_log():
    assert says("bisam", f"slope $1 - 1/e = {bisam.NegLog().derivative(torch.tensor(0.0)):.3f}$")
    assert says("bisam", rf"$\gamma = \log(e - 1) = {bisam.losses.bounds.GAMMA:.3f}$ is the smallest")


@pytest.mark.parametrize("setting, value", [
    (r"$\rho$", bisam.BISAM_LOG.radius.rho),
    (r"$\mu$ with -log", bisam.BISAM_LOG.ascent.mu),
    (r"$\mu$ with tanh", bisam.BISAM_TANH.ascent.mu),
    (r"$\alpha$ of tanh", bisam.BISAM_TANH.ascent.phi.alpha),
    ("label smoothing", bisam.BISAM_LOG.descent.smoothing),
])  # fmt: skip
def test_table_of_settings_is_that_of_the_library(setting, value):
    assert row("bisam", setting)[1] == f"{value:g}"
    assert bisam.BISAM_TANH.radius == bisam.BISAM_LOG.radius


def test_exercise_threshold():
    assert says("bisam", rf"$\log 10 / \log 9 = {math.log(10) / math.log(9):.2f}$")
    assert says("bisam", rf"$\mu \ge \log 10 / 0.1 = {math.log(10) / 0.1:.1f}$")


def test_exercise_ceiling():
    x = torch.linspace(-20, 20, 81, dtype=torch.float64)
    printed = math.e * x.exp() / (x.exp() + math.e - 1)
    torch.testing.assert_close(bisam.NegLog()(x).exp(), printed, rtol=1e-12, atol=1e-15)
    assert says("bisam", f"$e / (e - 1) = {math.e / (math.e - 1):.2f}$")
    far = torch.tensor([-30.0], dtype=torch.float64)
    ratio = pull(bisam.Surrogate(bisam.NegLog(), 1.0), far) / pull(bisam.CrossEntropy(), far)
    assert ratio.item() == pytest.approx(math.e / (math.e - 1), rel=1e-9)


@pytest.mark.parametrize("convention", ["all", "others"])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_exercise_smoothing(convention, classes):
    logits = 6 * torch.randn(20_000, classes, dtype=torch.float64)
    targets = torch.zeros(20_000, dtype=torch.int64)
    wrong = bisam.losses.zero_one(logits, targets, ties="wrong") == 1
    for smoothing in (0.1, 0.5):
        loss = bisam.CrossEntropy(smoothing, convention).per_sample(logits, targets)[wrong]
        assert wrong.sum() > 1000 and loss.min() >= math.log(2)
    tied = torch.tensor([[0.0, 0.0] + [-800.0] * (classes - 2)], dtype=torch.float64)
    assert bisam.CrossEntropy()(tied, FIRST).item() == pytest.approx(math.log(2), rel=1e-12)


def test_smoothed_ascent_pulls_confident_samples_towards_more_confidence():
    logits = torch.tensor([[5.0, 0.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    confident = logits.softmax(1)[:, 0] > 0.9
    bisam.CrossEntropy(0.1, "others").per_sample(logits, torch.tensor([0, 0])).sum().backward()
    assert confident.tolist() == [True, False]
    assert (logits.grad[:, 0] > 0).tolist() == [True, False]


def test_the_numbers_of_the_exercises_on_the_ellipsoid():
    chapter = PAGES["adaptive"]
    w, g = {"weight": torch.tensor([0.0, 2.0])}, {"weight": torch.ones(2)}
    assert bisam.Adaptive(0.0).perturbation(g, w, 1.0)["weight"].tolist() == [0, 2] and "= (0, 2)$" in chapter
    moved = bisam.Adaptive(1.0).perturbation(g, w, 1.0)["weight"]
    assert f"= ({moved[0]:.2f}, {moved[1]:.2f})$" in chapter
    assert f"{0.05 / 853_018**0.5 * 1e5:.1f} \\cdot 10^{{-5}}" in chapter


# -- the table of methods -------------------------------------------------------------------------------------------------


def test_the_table_of_methods_has_every_row_with_its_numbers():
    page = (BOOK / "methods.md").read_text(encoding="utf-8")
    shown = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `"):
            assert len(cells) == 6, line
            shown.update({name: (float(cells[2]), float(cells[3])) for name in re.findall(r"`([^`]+)`", cells[0])})
    expected = {row.name: (row.radius.rho, round(row.passes, 2)) for row in bisam.RECIPES.values()}
    assert shown == expected


def test_the_numbers_in_the_table_of_methods_are_those_of_the_rows():
    page = " ".join((BOOK / "methods.md").read_text(encoding="utf-8").split())
    rows = bisam.RECIPES
    for phrase in (
        rf"= {rows['fsam'].direction.decay:g}\, m_{{t-1}} + 0.1\, g_t",
        rf"= {rows['vasso'].direction.decay:g}\, m_{{t-1}} + 0.4\, g_t",
        rf"\lVert\xi_l\rVert = {rows['rsam'].start.scale:g}\,",
        f"with a budget of {rows['le-sam'].radius.budget:g} for",
        f"none before step {rows['late-sam'].radius.start}",
        rf"$\alpha = {rows['gsam'].combination.alpha:g}$",
        f"learning rate to {rows['gsam'].radius.least:g}",
        rf"$r + {rows['looksam'].combination.alpha:g}\,",
        f"a climb for every {rows['msam'].micro_batch} samples",
    ):
        assert phrase in page, phrase
    assert rows["looksam"].combination.every == rows["sam-every-k"].radius.every == 5
    assert rows["esam"].geometry.keep == rows["esam"].selection.fraction == rows["ksam"].selection.fraction == 0.5
