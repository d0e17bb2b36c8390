"""``train.log``, and runs that are made longer."""

import json
import re
import threading
import warnings

import pytest
from short_runs import configure, ignored_warnings, scalars

from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.run import run
from torchrl_ob.experiments.train_log import log_file, note, say

pytestmark = ignored_warnings
BALANCE = ("env.scenario=balance", "scheduler=constant")


def test_a_run_tells_its_log_what_it_did_and_why_it_ended(tmp_path, capsys):
    run(configure(*BALANCE), tmp_path)
    out = capsys.readouterr().out
    text = (tmp_path / "train.log").read_text()
    assert "INFO results go to" in text
    frames = re.findall(r"INFO frame (\d+): eval/deterministic_reward -?\d+\.\d{3}, eval/", text)
    assert frames == ["0", "200", "400"]
    for line in out.splitlines():
        assert line in text
    with pytest.raises(ExperimentError, match="already holds a run"):
        run(configure(*BALANCE), tmp_path)
    again = (tmp_path / "train.log").read_text()
    assert again.startswith(text)  # it goes on
    assert re.search(r"ERROR ExperimentError: .* already holds a run", again)


def test_a_log_has_what_its_own_thread_says_and_warns_of(tmp_path, capsys):
    def other():
        with log_file(tmp_path / "other.log"):
            say("theirs")

    def own():
        with log_file(tmp_path / "own.log"):
            say("printed\nin two lines")
            note("noted")
            warnings.warn("careful\nhere", stacklevel=1)
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()

    before = warnings.showwarning
    with pytest.warns(UserWarning, match="careful"):
        own()
    note("too late")
    assert capsys.readouterr().out == "printed\nin two lines\ntheirs\n"
    own, theirs = ((tmp_path / f"{name}.log").read_text() for name in ("own", "other"))
    assert re.sub(r"\d{4}-\S+ \S+ ", "", own) == (
        "INFO printed\nin two lines\nINFO noted\nWARNING careful\n"
    )
    assert theirs.endswith("INFO theirs\n")
    assert warnings.showwarning is before


def test_a_log_that_finds_no_room_stops_nothing(tmp_path, capsys):
    with log_file(tmp_path / "a.log"):
        note("before")
        full = "/dev/full"
        with log_file(full):
            say("after")
    assert capsys.readouterr() == ("after\n", "")
    assert "INFO after" in (tmp_path / "a.log").read_text()


def test_a_run_that_is_made_longer_ends_as_one_that_was_long_from_the_start(tmp_path):
    short, long = (configure(*BALANCE, f"total_frames={x}", "loss=mappo") for x in (400, 800))
    whole = run(long, tmp_path / "whole").actor.state_dict()
    run(short, tmp_path / "longer")
    long.resume = "auto"
    found = run(long, tmp_path / "longer").actor.state_dict()
    assert scalars(tmp_path / "longer") == scalars(tmp_path / "whole")
    assert all(x.equal(found[name]) for name, x in whole.items())
    texts = [(tmp_path / name / "evaluation.json").read_text() for name in ("whole", "longer")]
    assert json.loads(texts[0]) == json.loads(texts[1])


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ((), ("total_frames=800",), "total_frames=400, over which its learning rate is scheduled"),
        (BALANCE, (*BALANCE, "total_frames=200"), "total_frames=400 there and 200 here"),
        (BALANCE, (*BALANCE, "total_frames=800", "seed=1"), "seed=0 there and 1 here"),
        ((), ("total_frames=800", "scheduler=constant"), "of another config: .*scheduler"),
    ],
)
def test_a_run_that_cannot_be_made_longer_is_told_why(before, now, message, tmp_path):
    run(configure(*before), tmp_path)
    numbers = scalars(tmp_path)
    with pytest.raises(ExperimentError, match=message):
        run(configure(*now, "resume=auto"), tmp_path)
    assert scalars(tmp_path) == numbers
