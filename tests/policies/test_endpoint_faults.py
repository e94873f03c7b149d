"""Whatever an endpoint answers: the attempt ends in time with an endpoint failure, and no key is written or shown."""

import gzip
import itertools
import json
import os
import random
import time

import numpy as np
import pytest
from endpoint_replies import RawEndpoint, completion, dripped, http, said

from envs.base import TaskSpec
from envs.errors import LabError
from policies.registry import load_policy
from policies.sampling import SamplingConfig
from retrospect.config import WordsConfig
from retrospect.engines import make_engine

TASK = TaskSpec("agentlab/osworld-v0", "t", 0, max_steps=3)
SCREEN = {"screenshot": np.zeros((90, 160, 3), dtype=np.uint8)}
KEY = "sk-of-the-test-0123456789"


def policy_at(url, timeout_s, tries=1):
    options = {"base_url": url, "api_key_env": "KEY_OF_THE_TEST", "max_wait_s": 0.0, "tries": tries, "timeout_s": timeout_s}
    return load_policy("openai:ui-tars-1.5-7b", sampling=SamplingConfig(max_new_tokens=9), **options)


def act(policy):
    session = policy.open(TASK, seed=1)
    session.begin("Do it", guidance="")
    return session.act(SCREEN)


def ask(url, *, timeout_s=1.0, tries=1):
    """One action of a policy behind ``url``."""
    return act(policy_at(url, timeout_s, tries))


def writer_at(url, timeout_s):
    config = WordsConfig(
        engine="openai:m",
        base_url=url,
        api_key_env="KEY_OF_THE_TEST",
        timeout_s=timeout_s,
        deadline_s=max(2.0, timeout_s),
        max_retries=0,
    )
    return make_engine(config, self_engine=None)


def written(engine):
    return engine.generate("What went wrong?", "You are a critic.", "loss")


def write(url, *, timeout_s=1.0):
    """One text of a writer of words behind ``url``."""
    return written(writer_at(url, timeout_s))


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("KEY_OF_THE_TEST", KEY)


@pytest.fixture(scope="module", autouse=True)
def loaded():
    """What the first request loads (the client, the family) is none of an answer's time."""
    with pytest.MonkeyPatch.context() as environment, RawEndpoint(said(completion())) as endpoint:
        environment.setenv("KEY_OF_THE_TEST", KEY)
        assert ask(endpoint.url, timeout_s=300).text and write(endpoint.url, timeout_s=300)


ENDLESS = b"HTTP/1.1 200 OK\r\nX-Padding: " + b"x" * 10_000
LATE = {
    "headers that drip": dripped(ENDLESS, 0.05),
    "a body that drips": lambda request: itertools.chain(
        [b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"], dripped(b" " * 9999, 0.05)(request)
    ),
    "chunks that drip": lambda request: itertools.chain(
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"], dripped(b"1\r\n \r\n" * 9999, 0.01)(request)
    ),
}


@pytest.mark.parametrize("client", [ask, write])
@pytest.mark.parametrize("how", LATE)
def test_the_whole_answer_has_a_deadline(client, how):
    with RawEndpoint(LATE[how]) as endpoint:
        begun = time.monotonic()
        with pytest.raises(LabError):
            client(endpoint.url)
        assert time.monotonic() - begun < 15


@pytest.mark.parametrize("client", [ask, write])
def test_the_answer_has_a_bound_on_its_size(client):
    sent = [0]

    def huge(request):
        yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 400000000\r\n\r\n"
        while sent[0] < 400_000_000:
            sent[0] += 2**20
            yield b" " * 2**20

    with RawEndpoint(huge) as endpoint, pytest.raises(LabError):
        client(endpoint.url, timeout_s=60.0 if client is ask else 2.0)
    assert sent[0] < 64 * 2**20


@pytest.mark.parametrize("client", [ask, write])
def test_an_answer_that_unpacks_to_any_size_is_refused(client):
    packed = gzip.compress(json.dumps(completion("a")).encode() + b" " * 50_000_000)
    with RawEndpoint(lambda r: [http(packed, 200, "Content-Encoding: gzip\r\n")]) as endpoint, pytest.raises(LabError):
        client(endpoint.url, timeout_s=10.0)


USAGES = ["many", 1.5, -1, 10**400, True, [], {"completion_tokens": "many"}, {"completion_tokens": 10**400}]
USAGES += [{"completion_tokens": v} for v in (-1, 1.5, True, [], {}, float("nan"), float("inf"), "7")]
MALFORMED = [
    *(completion("Action: wait()", usage) for usage in USAGES if isinstance(usage, dict)),
    *(completion(content) for content in (5, True, [], {}, [{"type": "text", "text": "x"}])),
    *({**completion(), "choices": choices} for choices in (None, [], {}, 5, "x", [None], [5], [{}], [{"message": None}])),
    b"[" * 100_000, b'{"a":' * 100_000, b"", b"nonsense", b"null", b"5", b'"x"', b"\xff\xfe", b"[]", b"{}",
    b'{"choices": [{"message": {"content": ' + b"[" * 50_000, b'{"usage": ' + b"9" * 5000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(MALFORMED)))
def test_a_malformed_reply_is_a_failure_of_the_endpoint(number):
    with RawEndpoint(said(MALFORMED[number])) as endpoint:
        for client in (ask, write):
            with pytest.raises(LabError):
                client(endpoint.url, timeout_s=20.0 if client is ask else 2.0)


def test_half_a_surrogate_pair_can_be_written():
    with RawEndpoint(said(json.dumps(completion("Thought: \ud800\nAction: wait()")).encode())) as endpoint:
        ask(endpoint.url, timeout_s=20).text.encode()


@pytest.mark.parametrize("form", ["Incorrect key: {}", '{{"error": {{"message": "Authorization: Bearer {}"}}}}', "{}\x1b[2J\u202e"])
@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_a_key_that_an_endpoint_echoes_is_in_no_error(form, status):
    body = form.format(KEY).encode()
    with RawEndpoint(lambda request: [http(body, status)]) as endpoint:
        for client in (ask, write):
            with pytest.raises(LabError) as caught:
                client(endpoint.url.replace("://", "://me:hunter2@"), timeout_s=20.0 if client is ask else 2.0)
            shown = f"{caught.value}{caught.value.message}{caught.value.hint}"
            assert KEY not in shown and "hunter2" not in shown and "\x1b" not in shown and "\u202e" not in shown


def test_a_key_in_a_reply_is_in_no_decision():
    with RawEndpoint(
        lambda request: [http(json.dumps(completion(f"Thought: {request.decode()}\nAction: wait()")).encode())]
    ) as endpoint:
        decision = ask(endpoint.url, timeout_s=20)
        assert "authorization" in decision.text.lower() and KEY not in repr(decision)


def test_500_replies_made_at_random():
    """Cut, flipped and repeated answers; every one ends as an action or as an error that is ours.  The seed is printed on failure."""
    seed = int(os.environ.get("AGENTLAB_FUZZ_SEED", time.time_ns() % 10**6))
    draw = random.Random(seed)
    whole = http(json.dumps(completion("Thought: x\nAction: click(start_box='(5,5)')", {"completion_tokens": 7})).encode())
    with RawEndpoint(lambda request: [mangled(draw, whole)]) as endpoint:
        policy, engine = policy_at(endpoint.url, 2.0), writer_at(endpoint.url, 2.0)
        for number in range(500):
            try:
                written(engine) if number % 5 == 0 else act(policy)
            except LabError as error:
                assert str(error).isprintable(), f"seed {seed}, reply {number}"
            except Exception as error:
                raise AssertionError(f"seed {seed}, reply {number}: {error!r}") from error


def mangled(draw, whole):
    data = bytearray(whole)
    for _ in range(draw.choice([0, 1, 1, 2, 5])):
        place = draw.randrange(len(data))
        match draw.randrange(4):
            case 0:
                data[place] = draw.randrange(256)
            case 1:
                del data[place : place + draw.randrange(1, 40)]
            case 2:
                data[place:place] = draw.choice([b"null", b"-1", b"{}", b"[[", b'"', b"1e999", b"\\ud800", b"\x00", b"\r\n"])
            case _:
                data = data[: max(1, place)]
        if not data:
            break
    return bytes(data)
