"""Messages of a process that waits for others which have not come or are lost."""

import json
import os
import socket
import time

import pytest

import backends
from common.commands import waiting
from common.commands.launcher import free_port
from common.commands.waiting import WatchedBatches, all_joined, resume_with, watching
from common.errors import UserError
from common.interface import Framework

AGAIN = "; go on with: python run.py --resume runs/x"
# The errors of each engine when another process was killed, and what is kept of them.
LOST = {
    "pytorch": (
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error [10.77.0.2]:14540: Connection reset by "
        "peer. This is typically caused by a remote worker hanging",
        "Read error [10.77.0.2]:14540: Connection reset by peer",
    ),
    "tensorflow": (
        "Graph execution error:\n\nCollective ops is aborted by: recvmsg:Connection reset by peer\nAdditional GRPC",
        "Collective ops is aborted by: recvmsg:Connection reset by peer",
    ),
}


@pytest.fixture(params=list(backends.FRAMEWORKS))
def framework(request: pytest.FixtureRequest, monkeypatch) -> Framework:
    """The record of each framework, with the variables of its engine."""
    found = backends.FRAMEWORKS[request.param]
    assert found.engine is not None
    for name, value in found.engine.roles(2, free_port, ())[-1].variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(waiting, "skip_finalizers", lambda: None)
    return found


def error_with(words: str, capfd: pytest.CaptureFixture[str]) -> str:
    """Wait until standard error has these words, and return it."""
    text, deadline = "", time.monotonic() + 60
    while words not in text:
        assert time.monotonic() < deadline, text
        time.sleep(0.01)
        text += capfd.readouterr().err
    return text


def test_a_minute_without_the_others_is_said_with_their_addresses(framework, monkeypatch, capfd):
    monkeypatch.setattr(waiting, "SECONDS_TO_SAY", 0.05)
    address = framework.engine.addresses(os.environ)[0]
    with watching(framework, launched=False):
        said = error_with("\n", capfd)
    assert said.startswith("note: after 0 s, this process has not joined the others (")
    assert f"{address} does not answer: Connection refused" in said
    assert f"start them all, with a free port; if they run, {framework.engine.reachable}" in said
    host, port = address.split(":")
    with socket.create_server((host, int(port))), watching(framework, launched=False):
        assert f"{address} answers" in error_with("\n", capfd)


def test_tensorflow_names_the_addresses_of_all_workers(monkeypatch):
    workers = ["10.0.0.1:29500", "10.0.0.2:29500"]
    config = {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}})}
    assert backends.FRAMEWORKS["tensorflow"].engine.addresses(config) == workers


def test_five_minutes_without_a_step_end_the_process(framework, monkeypatch, capfd):
    codes: list[int] = []
    monkeypatch.setattr(waiting, "end_program", codes.append)
    monkeypatch.setattr(waiting, "LONGER", 0)
    monkeypatch.setattr(waiting, "SECONDS_TO_SAY", 0.05)
    monkeypatch.setattr(waiting, "SECONDS_TO_GIVE_UP", 0.1)
    with watching(framework, launched=False):
        all_joined(2)
        resume_with(AGAIN)
        batches = WatchedBatches([(1, 1), (2, 2)])
        assert len(batches) == 2
        assert "no step yet after 0 s: rank 0 may still prepare the" in error_with("note: ", capfd)
        assert not codes  # before the first step
        assert [*batches] == [(1, 1), (2, 2)]
        assert "no step for 0 s: another process may be lost (" in error_with("note: ", capfd)
        said = error_with("error: ", capfd)
    assert f"error: no step for 0 s: a process or the network was lost{AGAIN}\n" in said
    assert codes[0] == 2


def test_a_step_that_takes_long_is_not_taken_for_a_loss(framework, monkeypatch):
    codes: list[int] = []
    monkeypatch.setattr(waiting, "end_program", codes.append)
    monkeypatch.setattr(waiting, "SECONDS_TO_SAY", 0.01)
    monkeypatch.setattr(waiting, "SECONDS_TO_GIVE_UP", 0.02)
    with watching(framework, launched=False):
        all_joined(2)
        watch = waiting._watch
        assert watch is not None
        assert watch.is_alive()
        watch.last -= 1000
        [*WatchedBatches([(1, 1), (2, 2)])]
        time.sleep(0.2)
    assert not codes


def fail_after_joining(framework: Framework, text: str) -> None:
    with watching(framework, launched=False):
        all_joined(2)
        resume_with(AGAIN)
        raise RuntimeError(text)


def test_the_error_of_a_lost_process_is_one_line(framework):
    text, kept = LOST.get(framework.name, ("", ""))
    if not text:
        pytest.skip(f"{framework.title} raises no error for a lost process")
    with pytest.raises(UserError) as caught:
        fail_after_joining(framework, text)
    assert str(caught.value) == f"a process or the network was lost ({kept}){AGAIN}"


def test_another_error_keeps_its_traceback(framework):
    with pytest.raises(RuntimeError, match="a bug"):
        fail_after_joining(framework, "a bug")


def test_an_error_of_the_engine_before_all_have_joined_is_one_line(framework):
    with pytest.raises(UserError) as caught, watching(framework, launched=False):
        raise RuntimeError("Traceback:\n  here\nError: address already in use")
    assert (
        "not joined the others (Error: address already in use): start them all, with a free port"
        in str(caught.value)
    )


def test_variables_that_are_not_complete_are_one_line(framework, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{")
    for name in ("MASTER_ADDR", "DMLC_PS_ROOT_URI"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="not joined the others"), watching(framework, False):
        pass


def test_a_process_alone_waits_for_nobody(framework):
    with watching(framework, launched=False):
        all_joined(1)
        assert waiting._watch is not None
        assert not waiting._watch.is_alive()


def test_with_a_launcher_errors_stay_as_they_are(framework):
    with pytest.raises(RuntimeError, match="reset"), watching(framework, launched=True):
        raise RuntimeError("/gloo/transport/ Collective ops is aborted by: reset")
