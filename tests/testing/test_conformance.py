"""The conformance test: ours passes it in every style, and an optimiser with one fault fails the checks of that fault and no others."""

import json

import pytest
import torch
from torch import nn

import bisam
from bisam import testing
from bisam.testing.invariants import INVARIANTS


def ours(recipe=bisam.SAM):
    def made(params, base_cls, rho, **kwargs):
        return bisam.SharpnessAware(base_cls(params, **kwargs), recipe.with_rho(rho))

    return made


@pytest.mark.parametrize("style, left_out", [
    (testing.batch, set()), (testing.block, set()), (testing.closure, {"float16", "overflow"}), (testing.function, {"accumulation"}),
])  # fmt: skip
def test_ours_passes_every_check_in_every_style(style, left_out):
    report = testing.check(ours(), style)
    report.raise_if_failed()
    assert {outcome.name for outcome in report if outcome.verdict != "passed"} == left_out


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in bisam.RECIPES if not name.startswith(("lets", "bsam", "sgd", "sam-on", "late-sam"))])
def test_every_method_of_ours_passes_what_applies_to_it(name):
    """Those that are left out need a validation batch, a base of their own or layers that the networks lack, or climb in no step of a check."""
    row = bisam.recipe(name)
    names = sorted(set(INVARIANTS) - {"accumulation"}) if row.selection or row.micro_batch else None  # which see each part by itself
    testing.check(ours(row), testing.batch, is_sam=name == "sam", only=names).raise_if_failed()


class Plain(torch.optim.Optimizer):
    """SAM in the interface of two steps, right but for what such a loop cannot do; each fault overrides one piece."""

    def __init__(self, params, base_cls, rho, **kwargs):
        self.base = base_cls(params, **kwargs)
        super().__init__(self.base.param_groups, {"rho": rho})
        self.param_groups, self.state, self.rho = self.base.param_groups, self.base.state, rho

    def load_state_dict(self, state):
        self.base.load_state_dict(state)
        self.param_groups, self.state = self.base.param_groups, self.base.state

    def climbing(self):
        return [p for group in self.param_groups for p in group["params"] if p.grad is not None]

    def factor(self, p):
        return self.rho / (torch.sqrt(sum(q.grad.square().sum() for q in self.climbing())) + 1e-12)

    @torch.no_grad()
    def first_step(self, zero_grad):
        self.before = [(p, p.clone()) for p in self.climbing()]
        factors = [self.factor(p) for p in self.climbing()]
        for (p, _), factor in zip(self.before, factors, strict=True):
            p.add_(p.grad * factor)
        self.zero_grad()

    @torch.no_grad()
    def second_step(self, zero_grad):
        self.back()
        self.base.step()
        self.zero_grad()

    def back(self):
        for p, old in self.before:
            p.copy_(old)


class StaysThere(Plain):
    def back(self):
        pass


class SubtractsTheClimb(Plain):
    def first_step(self, zero_grad):
        self.away = [(p, p.grad * self.factor(p)) for p in self.climbing()]
        super().first_step(zero_grad)

    def back(self):
        for p, away in self.away:
            p.sub_(away)


class NotNormalised(Plain):
    def factor(self, p):
        return self.rho


class BallsOfTensors(Plain):
    def factor(self, p):
        return self.rho / (p.grad.norm() + 1e-12)


class TooFar(Plain):
    def factor(self, p):
        return 1.01 * super().factor(p)


class NoSmallestNorm(Plain):
    def factor(self, p):
        return self.rho / torch.sqrt(sum(q.grad.square().sum() for q in self.climbing()))


class ForgetsItsBase(Plain):
    def load_state_dict(self, state):
        pass


class NeedsEveryGradient(Plain):
    def climbing(self):
        return [p for group in self.param_groups for p in group["params"] if p.grad.isfinite().all()]


class BaseClimbsToo(Plain):
    def first_step(self, zero_grad):
        saved = [(p, p.detach().clone()) for p in self.climbing()]
        self.base.step()  # its momentum takes in the gradient at w
        with torch.no_grad():
            for p, old in saved:
                p.copy_(old)
        super().first_step(zero_grad)


class OneRate(Plain):
    def second_step(self, zero_grad):
        for group in self.param_groups:
            group["lr"] = self.param_groups[0]["lr"]
        super().second_step(zero_grad)


# What a loop of two backward passes of the caller's cannot keep, whoever wrote the optimiser.
OF_THE_LOOP = {"batch_norm", "dropout", "not_finite"}
FORMULA = {"sgd", "momentum", "adamw", "one_ball", "frozen", "unused"}
FAULTS = {
    Plain: set(),
    SubtractsTheClimb: {"weights_back"},
    StaysThere: {"weights_back", "groups", "scheduler", "bfloat16", *FORMULA},
    NotNormalised: {"length", "scale", "bfloat16", *FORMULA},
    BallsOfTensors: {"length", "bfloat16", *FORMULA},
    TooFar: {"length", *FORMULA},
    NoSmallestNorm: {"zero_gradient"},
    ForgetsItsBase: {"resume"},
    NeedsEveryGradient: {"frozen", "unused"},
    BaseClimbsToo: {"radius_0", "momentum", "adamw"},
    OneRate: {"one_ball", "groups"},
}


@pytest.mark.parametrize("faulty", FAULTS, ids=lambda faulty: faulty.__name__)
def test_a_fault_fails_its_checks_and_no_others(faulty):
    report = testing.check(faulty, testing.two_steps)
    assert {outcome.name for outcome in report.failed} == FAULTS[faulty] | OF_THE_LOOP, f"\n{report}"
    assert report["float16"].verdict == "not applicable" and "no scaler" in report["float16"].said
    with pytest.raises(testing.Nonconformance, match=r"batch_norm\s+failed"):
        report.raise_if_failed()


# -- what the loop of a style decides ---------------------------------------------------------------------------------------


def one_pass(optimizer, model, loss_fn):
    """The base alone, under another name."""
    optimizer.base.zero_grad()
    loss_fn(model).backward()
    optimizer.base.step()


def test_the_base_alone_is_found_out():
    report = testing.check(Plain, one_pass)
    assert {outcome.name for outcome in report.failed} == {"length", "not_finite", "bfloat16", *FORMULA}
    assert report["accumulation"].verdict == "not applicable" and "loss_fn.parts" in report["accumulation"].said


def test_a_style_of_ones_own_that_draws_the_masks_again_passes_that_check():
    def replaying(optimizer, model, loss_fn):
        state = torch.get_rng_state()
        loss_fn(model).backward()
        optimizer.first_step(zero_grad=True)
        torch.set_rng_state(state)
        loss_fn(model).backward()
        optimizer.second_step(zero_grad=True)

    assert testing.check(Plain, replaying, only=["dropout"]).passed


def test_a_closure_that_is_evaluated_twice_is_a_style():
    class Evaluating(Plain):
        def step(self, closure):
            with torch.enable_grad():
                closure()
                self.first_step(True)
                closure()
            self.second_step(True)

    assert {outcome.name for outcome in testing.check(Evaluating, testing.closure).failed} == OF_THE_LOOP

    class GivenOneGradient(Plain):
        def step(self, closure):
            self.first_step(True)
            closure()
            self.second_step(True)

    assert {outcome.name for outcome in testing.check(GivenOneGradient, testing.backward_then_closure).failed} == OF_THE_LOOP


def scaled(optimizer, model, loss_fn, scaler=None):
    """Two steps with a scaler that looks at the second pass only; what overflows there is left out by it."""
    for move in (optimizer.first_step, None):
        loss = loss_fn(model)
        (loss if scaler is None else scaler.scale(loss)).backward()
        if move:
            move(zero_grad=True)
    optimizer.back()
    if scaler is None:
        optimizer.base.step()
    else:
        scaler.step(optimizer.base)
        scaler.update()
    optimizer.zero_grad()


def test_a_style_with_a_scaler_is_asked_about_float16():
    report = testing.check(Plain, scaled, only=("float16", "overflow"))
    assert all(outcome.verdict != "not applicable" for outcome in report)
    assert not testing.check(StaysThere, scaled, only=["float16"]).passed


def test_a_factory_that_takes_the_model_is_given_it():
    given = []

    def made(params, base_cls, rho, model, **kwargs):
        given.append(model)
        return Plain(params, base_cls, rho, **kwargs)

    assert testing.check(made, testing.two_steps, only=["sgd"]).passed
    assert all(isinstance(model, nn.Module) for model in given)


# -- the report -------------------------------------------------------------------------------------------------------------


def test_an_error_of_a_candidate_is_a_failed_check_with_its_message():
    def refusing(params, base_cls, rho, **kwargs):
        raise RuntimeError("no optimiser today")

    report = testing.check(refusing, testing.two_steps)
    assert len(report.failed) == len(report) - 2 and "RuntimeError: no optimiser today" in str(report)


def test_a_radius_of_0_may_be_refused():
    def refusing(params, base_cls, rho, **kwargs):
        if rho == 0:
            raise ValueError("rho must be positive")
        return Plain(params, base_cls, rho, **kwargs)

    report = testing.check(refusing, testing.two_steps, only=["radius_0"])
    assert report["radius_0"].verdict == "not applicable" and "rho must be positive" in report["radius_0"].said
    assert not report.passed
    with pytest.raises(testing.Nonconformance, match="no check applied"):
        report.raise_if_failed()


def test_the_report_is_plain_values_and_a_table():
    report = testing.check(ours(), testing.batch, only=["length", "sgd"])
    assert list(json.loads(json.dumps(report.to_dict()))) == ["length", "sgd"]
    assert str(report).splitlines()[0].split() == ["check", "outcome", "measured", "at", "most"] and len(report) == 2


def test_the_random_state_is_as_before():
    before = torch.get_rng_state()
    testing.check(ours(), testing.batch, only=["dropout"])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("wrong, words", [
    ({"optimizer_factory": 5}, "optimizer_factory must be a class or function"),
    ({"style": "block"}, "style must be a function"),
    ({"rho": 0}, "rho must be greater than 0"),
    ({"is_sam": "no"}, "is_sam must be"),
    ({"only": ["lenght"]}, "only must be one of"),
])  # fmt: skip
def test_a_wrong_argument_is_refused_by_name(wrong, words):
    with pytest.raises((TypeError, ValueError), match=words):
        testing.check(**{"optimizer_factory": ours(), "style": testing.batch, **wrong})


def test_every_check_says_what_it_measures():
    assert len(INVARIANTS) > 20
    assert all("easured" in invariant.measure.__doc__ for invariant in INVARIANTS.values())
