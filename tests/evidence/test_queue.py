"""The queue: what is worth most comes first, whatever the runs have shown, and every cut is gone on from."""

import dataclasses
import itertools
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import records

from bisam import _files as files
from bisam import cli
from bisam.evidence import decisions, experiment, ledger, listing, places, queue, recording, reproduce
from bisam.evidence.plans import Settings, plan
from bisam.evidence.queue import gain
from bisam.evidence.report import changes
from bisam.evidence.reproduce import carry_out
from bisam.training import fit, weights_digest

ROOT = Path(__file__).resolve().parents[2]
TOML = """
[family.first]
title = "A question?"
why = "One."

[experiment.short]
title = "Short runs"
scale = "laptop"
methods = ["sgd", "sgd-equal-epochs", "sam", "bisam-log"]
label_noise = [0.0, 0.4]
seeds = 12
epochs = 1
rho = 0.1
settings = { data = "digits", model = "mlp", batch_size = 100, lr = 0.1 }

[experiment.long]
title = "Long runs"
scale = "laptop"
methods = ["sam", "bisam-log"]
seeds = 13
epochs = 3
rho = 0.1
settings = { data = "digits", model = "mlp", batch_size = 50, lr = 0.1 }

[experiment.other]
title = "For another machine"
scale = "laptop"
machine = "gpu"
methods = ["sam", "bisam-log"]
seeds = 12
epochs = 1
settings = { data = "digits", model = "mlp" }

[experiment.earlier]
title = "Of an earlier form"
scale = "laptop"
schema = 2
methods = ["sam", "bisam-log"]
seeds = 12
epochs = 1
settings = { data = "digits", model = "mlp" }

[experiment.absent]
title = "Data that nobody has"
scale = "laptop"
methods = ["sam", "bisam-log"]
seeds = 12
epochs = 1
settings = { data = "cifar10", model = "mlp" }
"""


def claim(experiment, ours, theirs, noise=None, family="first", **more):
    more = {"rule": 2, "family": family, **({} if noise is None else {"label_noise": noise}), **more}
    lines = [f"{name} = {json.dumps(value)}" for name, value in more.items() if value != ""]
    id = f"{experiment}/{ours}-{theirs}-{noise}"
    fixed = {"id": id, "experiment": experiment, "statement": "It is.", "ours": ours, "theirs": theirs, "metric": "last_test_accuracy"}
    return "\n".join(["\n[[claim]]", *(f"{name} = {json.dumps(value)}" for name, value in fixed.items()), *lines, ""])


CLAIMS = "".join(
    [
        claim("short", "bisam-log", "sam", 0.0), claim("short", "bisam-log", "sam", 0.4), claim("short", "sam", "sgd", 0.4),
        claim("short", "sam", "sgd-equal-epochs", 0.0, family=""),  # secondary: nobody waits for it
        claim("long", "bisam-log", "sam"), claim("other", "bisam-log", "sam"), claim("earlier", "bisam-log", "sam"),
        claim("absent", "bisam-log", "sam"),
    ]
)  # fmt: skip
SECONDS = {100: 1.0, 50: 2.5}  # of a pass, by batch size


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "claims.toml").write_text(TOML + CLAIMS)
    return tmp_path


@pytest.fixture
def settings(folder, monkeypatch):
    monkeypatch.setattr(queue, "seconds_of_a_pass", lambda run, settings: SECONDS[run.batch_size])
    return Settings(folder=folder, checkpoints=folder / "checkpoints", root=str(folder))


def write(folder, one, accuracy=90.0, seconds=None):
    """A record of a planned run, made without training."""
    entry = records.sound(one.run, accuracy, experiment=one.experiment, scale="laptop")
    entry["environment"]["wall_seconds"] = SECONDS[one.run.batch_size] * one.passes if seconds is None else seconds
    place = folder / "runs" / one.experiment
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{one.file}.json").write_text(json.dumps(entry))


def names(jobs):
    return [f"{job.planned.experiment}/{job.planned.file}" for job in jobs]


def by_hand(folder):
    """The order by the words of the rule: at every step all worths from scratch."""
    plans = {name: plan(name, folder=folder) for name in ("short", "long")}
    done = {(name, one.file) for name, planned in plans.items() for one in planned if one.recorded}
    pairs = []
    for one in listing.claims(None, folder):
        if not one.family or one.experiment not in plans:
            continue
        noise = "" if one.label_noise is None else f"-noise{round(100 * one.label_noise):02}"
        seeds = range(12 if one.experiment == "short" else 13)
        pairs.append([[(one.experiment, f"{side}{noise}-seed{seed}") for side in (one.ours, one.theirs)] for seed in seeds])
    runs = {(name, one.file): one for name, planned in plans.items() for one in planned}

    def worth(key):
        total = 0.0
        for claim_pairs in pairs:
            lacking = [sum(run not in done for run in pair) for pair in claim_pairs]
            for seed, pair in enumerate(claim_pairs):
                if key in pair:
                    before = sum(lack == 0 or (lack, other) < (lacking[seed], seed) for other, lack in enumerate(lacking))
                    total += (1 / math.sqrt(before + 1) - 1 / math.sqrt(before + 2)) / lacking[seed]
        return total / (SECONDS[runs[key].run.batch_size] * runs[key].passes)

    order = []
    while True:
        best = max((key for key in runs if key not in done), key=worth, default=None)
        if best is None or worth(best) == 0:
            return order
        order.append("/".join(best))
        done.add(best)


# -- the order --------------------------------------------------------------------------------------------------------


def test_the_gain_of_a_pair():
    assert [gain(n) for n in (0, 3)] == pytest.approx([1 - 1 / math.sqrt(2), 1 / 2 - 1 / math.sqrt(5)])


def test_the_order_is_that_of_the_rule(folder, settings):
    jobs, _ = queue.queue(settings)
    assert names(jobs) == by_hand(folder) and len(jobs) == 12 * 5 + 13 * 2
    assert not any("sgd-equal" in name or "sgd-noise00" in name for name in names(jobs))  # no primary claim asks for them
    both = [job for job in jobs if job.planned.file == "sam-noise40-seed0"]
    assert set(both[0].claims) == {"short/bisam-log-sam-0.4", "short/sam-sgd-0.4"}


def test_what_is_recorded_is_counted(folder, settings):
    for one in plan("long", folder=folder)[:7]:
        write(folder, one)
    for one in plan("short", only=["sam"], folder=folder)[:9]:
        write(folder, one)
    jobs, _ = queue.queue(settings)
    assert names(jobs) == by_hand(folder) and not any(job.planned.recorded for job in jobs)


def test_pairs_are_finished_before_others_are_begun(folder, settings):
    write(folder, plan("long", only=["sam", "seed5"], folder=folder)[0])
    jobs = [name for name in names(queue.queue(settings)[0]) if name.startswith("long")]
    assert jobs[0] == "long/bisam-log-seed5"
    for first, second in zip(jobs[1::2], jobs[2::2], strict=True):
        assert first.rpartition("-")[2] == second.rpartition("-")[2]


def test_what_the_runs_have_shown_does_not_count(folder, settings):
    orders = []
    for high in (90.0, 99.8):
        for one in plan("short", folder=folder)[:64]:
            write(folder, one, high if one.run.recipe.name == "sam" else 90.0)
        orders.append(names(queue.queue(settings)[0]))
    assert orders[0] == orders[1] and orders[0]


def test_recorded_runs_say_how_long_others_take(folder, settings):
    write(folder, plan("long", folder=folder)[0], seconds=600.0)
    jobs, _ = queue.queue(settings)
    assert {job.seconds for job in jobs if job.planned.experiment == "long"} == {600.0}
    assert {job.seconds for job in jobs if job.planned.experiment == "short"} == {2.0}


def test_what_was_cut_comes_first(folder, settings):
    path = settings.checkpoints / "long" / "bisam-log-seed9.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    jobs = names(queue.queue(settings)[0])
    assert jobs[0] == "long/bisam-log-seed9" and next(name for name in jobs[1:] if name.startswith("long")) == "long/sam-seed9"


def test_a_finished_list_is_empty(folder, settings):
    for name in ("short", "long"):
        for one in plan(name, folder=folder):
            write(folder, one)
    assert queue.queue(settings)[0] == []


def test_data_that_are_not_there_leave_the_rest(folder, settings):
    jobs, absent = queue.queue(settings)
    assert list(absent) == ["absent"] and "no file" in str(absent["absent"]) and len(jobs) == 86


def test_each_machine_has_its_experiments(folder, settings):
    assert {job.planned.experiment for job in queue.queue(settings, machine="gpu")[0]} == {"other"}
    with pytest.raises(ValueError, match="machine must be one of cpu, gpu; got 'tpu'"):
        queue.queue(settings, machine="tpu")


@pytest.mark.parametrize("scale, machine, expected", [("laptop", "", "cpu"), ("paper", "", "gpu"), ("laptop", "gpu", "gpu"), ("paper", "cpu", "cpu")])
def test_runs_of_paper_scale_need_a_gpu_unless_they_say_otherwise(scale, machine, expected):
    one = experiment.Experiment("e", "t", scale, ("sam",), 1, 1, machine=machine)
    assert one.machine == dataclasses.replace(one).machine == expected


def test_a_claim_that_averages_needs_the_runs_of_all_places(folder, settings):
    over = claim("short", "bisam-log", "sam", over=["label_noise"])
    (folder / "claims.toml").write_text(TOML + over)
    write(folder, plan("short", only=["sam", "noise40", "seed3"], folder=folder)[0])
    jobs, _ = queue.queue(settings)
    assert len(jobs) == 4 * 12 - 1
    assert {name for name in names(jobs)[:3]} == {f"short/{rest}-seed3" for rest in ("sam-noise00", "bisam-log-noise00", "bisam-log-noise40")}


# -- claims with a number of pairs of their own -------------------------------------------------------------------------


def test_a_claim_is_not_judged_before_its_pairs_are_there(folder):
    asked = claim("long", "bisam-log", "sam", pairs=13)
    (folder / "claims.toml").write_text(TOML + asked)
    for one in plan("long", folder=folder)[:24]:
        write(folder, one, 92.0 + one.run.seed % 3 / 5 if one.run.recipe.name == "bisam-log" else 90.0)
    early = decisions.decide(listing.claims("long", folder)[0], folder)
    assert early.verdict == "not resolved" and early.result.pairs == 12 and "12 of 13 pairs so far" in early.marks
    for one in plan("long", folder=folder)[24:]:
        write(folder, one, 92.0 if one.run.recipe.name == "bisam-log" else 90.0)
    late = decisions.decide(listing.claims("long", folder)[0], folder)
    assert late.verdict == "holds" and not any("so far" in mark for mark in late.marks)
    said = changes([early], [late])
    assert len(said) == 1 and "from 12 of 13 pairs -> " in said[0] and said[0].endswith("from 13 pairs: not resolved -> HOLDS")
    assert changes([late], [late]) == []


def test_a_plan_too_small_for_its_claim_is_a_fault(folder):
    (folder / "claims.toml").write_text(TOML + claim("long", "bisam-log", "sam", pairs=14))
    with pytest.raises(places.LedgerError, match="pairs must be all 13 seeds of long, or be left out; got 14"):
        listing.claims("long", folder)


def test_a_family_that_is_half_done_is_no_smaller_family(folder):
    """The other claims of the family count as ones in which nothing is found, until their pairs are there."""
    waiting = "".join(claim("short", ours, theirs, noise, pairs=12) for ours, theirs in (("bisam-log", "sam"), ("sam", "sgd")) for noise in (0.0, 0.4))
    (folder / "claims.toml").write_text(TOML + claim("long", "bisam-log", "sam", pairs=13) + waiting)
    for one in plan("long", folder=folder):
        write(folder, one, 90.0 + 0.2 * (one.run.seed % 4) if one.run.recipe.name == "bisam-log" else 90.2)
    (found,) = decisions.decisions("long", folder)
    alone = found.result.largest_p
    assert alone > 0.01 and found.q == pytest.approx(min(1, 5 * alone))


def test_other_data_than_those_of_the_records_are_refused_before_anything_is_trained(folder, settings):
    write(folder, plan("long", folder=folder)[0])
    path = next((folder / "runs" / "long").glob("*.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "data_fingerprint": "0" * 16}))
    with pytest.raises(places.LedgerError, match="data 'digits' here have fingerprint 28f2d7b2e458c832, those of the records of long have 0000"):
        recording.check_data(listing.experiment("long", folder).run("sam", 1), listing.experiment("long", folder), folder)


def test_an_experiment_may_name_its_data_before_any_record_does(folder, settings):
    """The first run is refused as well; without a name it would decide what the data are."""
    text = SMALL.replace("[experiment.long]", f'[experiment.long]\nfingerprint = "{"0" * 16}"')
    (folder / "claims.toml").write_text(text)
    chosen = listing.experiment("long", folder)
    with pytest.raises(places.LedgerError, match="here have fingerprint 28f2d7b2e458c832, experiment long asks for 0000000000000000"):
        recording.check_data(chosen.run("sam", 1), chosen, folder)
    _, absent = queue.queue(settings)
    assert list(absent) == ["long"] and "asks for" in str(absent["long"])
    write(folder, plan("long", folder=folder)[0])
    with pytest.raises(places.LedgerError, match="other data"):
        ledger.evidence("long", folder)
    (folder / "claims.toml").write_text(text.replace("0" * 16, "28f2d7b2e458c832"))
    chosen = listing.experiment("long", folder)
    recording.check_data(chosen.run("sam", 1), chosen, folder)
    assert len(ledger.evidence("long", folder)) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('fingerprint = "28f2"', "16 hexadecimal digits in experiment 'long', got '28f2'"),
        ('fingerprint = "28f2d7b2e458c832"\naxes = { pool = [1, 2] }', "must be left out in experiment 'long', whose axis 'pool' has several data"),
    ],
)
def test_a_fingerprint_of_another_form_or_of_several_data_is_refused(folder, line, said):
    (folder / "claims.toml").write_text(SMALL.replace("[experiment.long]", f"[experiment.long]\n{line}"))
    with pytest.raises(places.LedgerError, match=said):
        listing.experiment("long", folder)


# -- the command ------------------------------------------------------------------------------------------------------

SMALL = TOML.replace("seeds = 13\nepochs = 3", "seeds = 12\nepochs = 2") + claim("long", "bisam-log", "sam")


def words(folder, *more):
    return ["evidence", "--ledger", str(folder), "--checkpoints", str(folder / "checkpoints"), "--root", str(folder), *more]


def test_the_plan_is_shown_and_nothing_is_run(folder, settings, capsys):
    assert cli.main(words(folder, "--plan")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == queue.RULE and lines[1].startswith("absent is left out: data 'cifar10' is not there")
    assert lines[2].startswith("86 runs are missing, about ") and len(lines) == 3 + 86
    assert lines[3].split()[3] == by_hand(folder)[0] and not (folder / "runs").exists()


@pytest.mark.slow
def test_the_queue_is_worked_through_and_says_what_changed(folder, capsys):
    (folder / "claims.toml").write_text(SMALL)
    assert cli.main(words(folder)) == 0
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 24 and said.err.splitlines()[0].startswith("1 of 24: long/")
    assert "long/bisam-log-sam-None: 0 of 12 pairs -> " in said.out and "from 12 pairs" in said.out
    assert said.out.splitlines()[-1].startswith("24 recorded, 0 to go")
    assert all(one.recorded for one in plan("long", folder=folder))
    assert cli.main(words(folder)) == 0 and "0 runs are missing" in capsys.readouterr().out


def test_without_time_nothing_is_begun(folder, capsys):
    (folder / "claims.toml").write_text(SMALL)
    assert cli.main(words(folder, "--minutes", "1e-9")) == 0
    said = capsys.readouterr()
    assert not said.err and said.out.splitlines()[-1].startswith("0 recorded, 24 to go")


def test_no_run_is_begun_whose_epoch_would_outlast_the_time(folder, settings):
    (folder / "claims.toml").write_text(SMALL)
    slow, quick = plan("long", folder=folder)[:2]
    slow = dataclasses.replace(slow, epoch_seconds=3600.0)
    outcomes = carry_out([slow, quick], dataclasses.replace(settings, minutes=30), progress=False)
    assert outcomes["cut"] == [slow.file] and outcomes["recorded"] == [quick.file]
    assert not slow.checkpoint(settings.checkpoints).exists()


def test_the_queue_says_when_no_epoch_fits(folder, capsys, monkeypatch):
    (folder / "claims.toml").write_text(SMALL)
    monkeypatch.setattr(queue, "seconds_of_a_pass", lambda run, settings: 3600.0)
    assert cli.main(words(folder, "--minutes", "30")) == 0
    said = capsys.readouterr()
    assert re.search(r"no run is begun: the shortest epoch takes about 7,200 s, and 1,\d\d\d s are left of 30 minutes", said.out)
    assert not said.err and said.out.splitlines()[-1].startswith("0 recorded, 24 to go")


def test_the_minutes_count_from_the_start_of_the_command(folder, capsys, monkeypatch):
    """What it takes to put the runs into their order, which is timing them where nothing is recorded, is part of the time."""
    (folder / "claims.toml").write_text(SMALL)
    priced = []
    monkeypatch.setattr(time, "monotonic", lambda: 3600.0 * len(priced))
    monkeypatch.setattr(queue, "seconds_of_a_pass", lambda run, settings: priced.append(run) or 1e-3)
    assert cli.main(words(folder, "--minutes", "30")) == 0
    assert priced and capsys.readouterr().out.splitlines()[-1].startswith("0 recorded, 24 to go")


@pytest.mark.slow
def test_a_clock_that_is_set_back_neither_prolongs_nor_ends_the_work(folder, capsys, monkeypatch):
    (folder / "claims.toml").write_text(SMALL)
    now, steps = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: now() - 3600 * next(steps))
    assert cli.main(words(folder, "--minutes", "1e-9")) == 0
    assert "0 recorded, 24 to go" in capsys.readouterr().out
    assert cli.main(words(folder, "--minutes", "600")) == 0
    assert "24 recorded, 0 to go" in capsys.readouterr().out


def test_a_checkpoint_that_outlived_its_run_is_taken_away(folder, settings):
    """A process that is killed after the record is written, and before the checkpoint is removed, leaves one behind."""
    (folder / "claims.toml").write_text(SMALL)
    done, unfinished, held = plan("long", folder=folder)[:3]
    for one in (done, unfinished, held):
        path = one.checkpoint(settings.checkpoints)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        if one is not unfinished:
            write(folder, one)
    strange = settings.checkpoints / "no experiment of this ledger" / done.file
    strange.parent.mkdir()
    strange.with_suffix(".pt").write_bytes(b"")
    with files.held(held.checkpoint(settings.checkpoints).with_suffix(".lock")):
        assert cli.main(words(folder, "--minutes", "1e-9")) == 0
    assert not done.checkpoint(settings.checkpoints).exists() and strange.with_suffix(".pt").exists()
    assert unfinished.checkpoint(settings.checkpoints).exists() and held.checkpoint(settings.checkpoints).exists()


def test_the_checkpoint_of_a_run_that_was_recorded_meanwhile_is_taken_away(folder, settings):
    (folder / "claims.toml").write_text(SMALL)
    waiting = plan("long", folder=folder)[:1]  # as another process knows it
    path = waiting[0].checkpoint(settings.checkpoints)
    path.parent.mkdir(parents=True)
    write(folder, waiting[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduce, "_take_away_what_is_recorded", lambda settings: path.write_bytes(b""))
        assert carry_out(waiting, settings, progress=False)["elsewhere"] == [waiting[0].file]
    assert not path.exists()


def start(folder, *more):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "bisam.cli", *words(folder, *more)], env=environment, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_killed_beside_another_and_begun_again_the_queue_ends_with_the_records_of_one_that_was_not(folder):
    (folder / "claims.toml").write_text(SMALL)
    first, second, draw = start(folder, "--cores", "2"), start(folder), random.Random(0)
    done = draw.randint(3, 7)  # of 24, so that it is caught in the middle
    while first.poll() is None and len(list(folder.glob("runs/long/*.json"))) < done:
        time.sleep(0.02)
    time.sleep(draw.uniform(0, 0.2))
    assert first.poll() is None, first.communicate()
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    said = second.communicate(timeout=900)[0]
    assert second.returncode == 0, said
    assert cli.main(words(folder)) == 0  # what the killed one held
    planned = plan("long", folder=folder)
    assert all(one.recorded for one in planned) and not list(folder.rglob("*.pt"))
    entries = [ledger.read(folder / "runs" / "long" / f"{one.file}.json") for one in planned]
    for one, entry in list(zip(planned, entries, strict=True))[::5]:
        assert entry["weights_digest"] == weights_digest(fit(one.run).model)
