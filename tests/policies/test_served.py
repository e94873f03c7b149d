"""A served policy against one that runs here: the same replies, the same updates; a server's failures are the machinery's."""

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import torch
from stand_in import TOKEN, StandIn
from synthetic import weights_of

from envs.base import TaskSpec
from envs.errors import AdaptationError, InfrastructureError, PolicyError, SetupError, UsageError
from policies.adapters.hidden import HiddenShift
from policies.adapters.lora import LoRAHead
from policies.generation import Request
from policies.registry import load_policy, needs
from policies.sampling import SamplingConfig
from policies.served import wire
from policies.served.learner import ServedLearner
from policies.served.process import python

TASK = TaskSpec("agentlab/miniwob-v0", "click-test", 7, max_steps=3)
FAST = {"tries": 3, "max_wait_s": 0.01}


@pytest.fixture(scope="module")
def server(engine, tiny_checkpoint):
    stand_in = StandIn(engine, tiny_checkpoint).start()
    yield stand_in
    stand_in.close()


@pytest.fixture(autouse=True)
def token(monkeypatch):
    monkeypatch.setenv(wire.TOKEN_VARIABLE, TOKEN)


@pytest.fixture
def served(server):
    policy = load_policy(f"served:{server.url}", **FAST)
    yield policy
    policy.close()


@pytest.fixture
def here(tiny_checkpoint):
    return load_policy(str(tiny_checkpoint), device="cpu")


def attempts(policy, screens, *, method="rosa", count=3, **changes):
    """Every (token ids, log-probabilities, update) of a session's failed attempts, and its last adapter."""
    session = policy.open(TASK, seed=3, adapt=weights_of(method, **changes))
    found = []
    for attempt in range(1, count + 1):
        session.begin("Click the button", attempt=attempt)
        decisions = [session.act({"screenshot": screen}) for screen in screens[:2]]
        found.append(([d.token_ids for d in decisions], [d.token_logprobs for d in decisions], session.adapt([-1.0, -1.0])))
    return found, session


SESSIONS = [("rosa", {}), ("rosa-paper", {}), ("rl", {}), ("slot", {}), ("rosa", {"mode": "hidden"}), ("rosa", {"update": "here"})]


@pytest.mark.parametrize(("method", "changes"), SESSIONS)
def test_a_served_session_acts_and_learns_as_one_that_runs_here(server, here, screens, method, changes):
    options = {key: changes[key] for key in changes if key == "update"}
    changes = {key: value for key, value in changes.items() if key != "update"}
    served = load_policy(f"served:{server.url}", **FAST, **options)
    there, session = attempts(served, screens, method=method, **changes)
    mine, local = attempts(here, screens, method=method, **changes)
    for (tokens, logprobs, update), (own_tokens, own_logprobs, own) in zip(there, mine, strict=True):
        assert tokens == own_tokens
        np.testing.assert_allclose(np.concatenate(logprobs), np.concatenate(own_logprobs), atol=1e-5)
        assert update.accepted == own.accepted
        shared = [k for k, v in own.numbers.items() if isinstance(v, float) and not k.endswith(("_memory_mb", "seconds"))]
        assert {k: update.numbers[k] for k in shared} == pytest.approx({k: own.numbers[k] for k in shared}, rel=1e-4, abs=1e-6)
        assert [(r.step, r.pieces) for r in update.replies] == [(r.step, r.pieces) for r in own.replies]
    assert any(update.accepted for *_, update in mine)
    if method == "rosa":
        assert len({tuple(map(tuple, tokens)) for tokens, *_ in there}) > 1  # what was learned is acted on
    assert isinstance(session.learner, ServedLearner) == (options == {})
    for name, value in local.learner.adapter.theta.items():
        torch.testing.assert_close(session.learner.adapter.theta[name], value, atol=1e-5, rtol=1e-4)
    served.close()


def test_sampled_replies_are_the_same_draws(server, here, screens):
    hot = SamplingConfig(temperature=1.5, top_p=0.9, frequency_penalty=0.5, repetition_penalty=0.02, max_new_tokens=8)
    policy = load_policy(f"served:{server.url}", sampling=hot, **FAST)
    here.sampling = hot
    drawn = [[tokens for tokens, *_ in attempts(p, screens, count=2)[0]] for p in (policy, here)]
    here.sampling = dataclasses.replace(hot, repetition_penalty=1.0)
    assert drawn[0] == drawn[1] != [tokens for tokens, *_ in attempts(here, screens, count=2)[0]]
    policy.close()


def test_undo_save_load_and_scoring_under_refined_guidance(server, served, here, screens, tmp_path):
    found = {}
    for name, policy in (("served", served), ("here", here)):
        session = policy.open(TASK, seed=3, adapt=weights_of("rosa"))
        session.begin("Click the button")
        session.act({"screenshot": screens[0]})
        refined = session.adapt([-1.0], refined="Click the other one").numbers["refined"]
        assert session.save_adapter(tmp_path / name)
        session.begin("Click the button", attempt=2)
        under = session.act({"screenshot": screens[0]}).token_ids
        session.rollback()
        session.begin("Click the button", attempt=3)
        undone = session.act({"screenshot": screens[0]}).token_ids
        again = policy.open(TASK, seed=3, adapt=weights_of("rosa"))
        again.load_adapter(tmp_path / name)
        again.begin("Click the button", attempt=2)
        assert again.act({"screenshot": screens[0]}).token_ids == under != undone
        relived = policy.open(TASK, seed=3)
        relived.begin("Click the button")
        found[name] = (refined, under, undone, relived.relive([({"screenshot": screens[0]}, "Action: next")]))
    assert found["served"][1:3] == found["here"][1:3]
    assert found["served"][0] == pytest.approx(found["here"][0], rel=1e-4)
    assert found["served"][3] == pytest.approx(found["here"][3], abs=1e-4)


def adapter_of(engine, number, scale=1.0):
    V, d = engine.head_weight.shape
    g = torch.Generator().manual_seed(number)
    if number % 5 == 4:
        return HiddenShift(torch.randn(d, generator=g) * 0.3)
    return LoRAHead(torch.randn(2, d, generator=g), torch.randn(V, 1, generator=g) * 0.5, scale)


def test_sixteen_sessions_in_flight_never_touch_each_other(server, served, engine, screens):
    prompt = engine.prompt(
        [{"role": "user", "content": [{"type": "text", "text": "Click"}, {"type": "image", "image": screens_image(screens)}]}],
        400,
        409600,
    )
    adapters = [None if n % 4 == 0 else adapter_of(engine, n) for n in range(16)]
    limit = SamplingConfig(max_new_tokens=6)
    alone = [engine.generate([Request(prompt, limit, n, a, True)])[0] for n, a in enumerate(adapters)]
    assert len({tuple(g.tokens.tolist()) for g in alone}) > 4
    for _ in range(2):
        with ThreadPoolExecutor(16) as pool:
            together = list(pool.map(lambda n: served.engine.submit(Request(prompt, limit, n, adapters[n], True)), range(16)))
        for own, found in zip(alone, together, strict=True):
            assert found.tokens.tolist() == own.tokens.tolist()
            torch.testing.assert_close(found.hidden, own.hidden, atol=2e-4, rtol=1e-4)


def screens_image(screens):
    from PIL import Image

    return Image.fromarray(screens[0])


def test_every_adapter_has_a_name_of_its_own_and_is_dropped_with_its_session(served, server, screens):
    server.backend.asked.clear()
    _, session = attempts(served, screens, count=4)
    names = list(dict.fromkeys(name for name, _ in server.backend.asked))
    assert names[0] is None and len(set(names)) == 4
    assert len(server.backend.adapters) <= 2  # the one in force, and the one before
    session.close()
    del session
    import gc

    gc.collect()
    until = time.monotonic() + 10
    while server.backend.adapters and time.monotonic() < until:
        time.sleep(0.01)
    assert not server.backend.adapters


def test_a_server_that_was_restarted_gets_its_adapters_again(engine, tiny_checkpoint, here, screens):
    stand_in = StandIn(engine, tiny_checkpoint).start()
    policy = load_policy(f"served:{stand_in.url}", **FAST)
    found = {}
    for name, one in (("served", policy), ("here", here)):
        session = one.open(TASK, seed=3, adapt=weights_of("rosa"))
        session.begin("Click the button")
        session.act({"screenshot": screens[0]})
        session.adapt([-1.0])
        if name == "served":
            stand_in.crash()
        session.begin("Click the button", attempt=2)
        second = session.act({"screenshot": screens[0]}).token_ids
        if name == "served":
            stand_in.crash()
        update = session.adapt([-1.0])
        session.begin("Click the button", attempt=3)
        found[name] = (second, update.accepted, update.numbers["update"], session.act({"screenshot": screens[0]}).token_ids)
    assert found["served"] == found["here"]
    policy.close()
    stand_in.close()


def test_a_lost_request_is_asked_again_and_a_server_that_is_gone_is_the_machinery(engine, tiny_checkpoint, screens):
    stand_in = StandIn(engine, tiny_checkpoint).start()
    policy = load_policy(f"served:{stand_in.url}", **FAST)
    session = policy.open(TASK, seed=3, adapt=weights_of("rosa"))
    session.begin("Click the button")
    stand_in.backend.broken = 2
    first = session.act({"screenshot": screens[0]}).token_ids
    assert len({seed for _, seed in stand_in.backend.asked}) == 1 and len(stand_in.backend.asked) == 3
    stand_in.backend.broken = 99
    with pytest.raises(InfrastructureError, match="failed 3 times"):
        session.act({"screenshot": screens[1]})
    stand_in.stop()
    with pytest.raises(InfrastructureError, match="failed 3 times"):
        session.adapt([-1.0])
    assert session.learner.adapter is None  # a failure of the machinery teaches nothing
    with pytest.raises(InfrastructureError):
        needs(f"served:{stand_in.url}", FAST)
    stand_in.start()
    session.begin("Click the button")
    assert session.act({"screenshot": screens[0]}).token_ids == first
    policy.close()
    stand_in.close()


def test_pictures_travel_once(server, served, screens):
    session = served.open(TASK, seed=1)
    session.begin("Click the button")
    sent = []
    once = served.engine.client._once
    served.engine.client._once = lambda method, path, body: (sent.append(len(body or b"")), once(method, path, body))[1]
    session.act({"screenshot": screens[0]})
    session.begin("Click the button")
    session.act({"screenshot": screens[0]})
    server.server._pictures.clear()
    session.begin("Click the button")
    session.act({"screenshot": screens[0]})
    assert sent[1] < 20_000 < 50_000 < sent[0] and sent[2] < 20_000 and sent[3] == sent[0]


# -- what is refused ---------------------------------------------------------------------------------------------------------------


def test_who_comes_in(server, monkeypatch):
    assert httpx.get(f"{server.url}/health").status_code == 200
    for path in ("/info", "/metrics", "/head", "/checkpoint"):
        assert httpx.get(f"{server.url}{wire.PREFIX}{path}").status_code == 401
        assert httpx.get(f"{server.url}{wire.PREFIX}{path}", headers={"Authorization": "Bearer no"}).status_code == 401
    monkeypatch.setenv(wire.TOKEN_VARIABLE, "other")
    with pytest.raises(PolicyError, match="token"):
        load_policy(f"served:{server.url}", **FAST)
    monkeypatch.delenv(wire.TOKEN_VARIABLE)
    with pytest.raises(SetupError, match="no token"):
        load_policy(f"served:{server.url}", **FAST)


@pytest.mark.parametrize(
    ("url", "options", "error"),
    [
        ("localhost:8000", {}, UsageError),
        ("", {}, UsageError),
        ("ftp://127.0.0.1:8000", {}, UsageError),
        ("http://127.0.0.1:1", FAST, InfrastructureError),
        ("URL", {"nonsense": 1}, UsageError),
        ("URL", {"timeout_s": -1}, UsageError),
        ("URL", {"update": "elsewhere"}, UsageError),
    ],
)
def test_a_server_that_is_none_and_options_that_are_none(server, url, options, error):
    with pytest.raises(error):
        load_policy(f"served:{server.url if url == 'URL' else url}", **options)


def test_engines_there_are(tmp_path, monkeypatch, tiny_checkpoint):
    with pytest.raises(UsageError, match="no engine 'vlm'"):
        load_policy(str(tiny_checkpoint), engine="vlm")
    monkeypatch.setenv("AGENTLAB_VLLM_HOME", str(tmp_path))
    with pytest.raises(SetupError) as lacking:
        load_policy(str(tiny_checkpoint), engine="vllm")
    assert lacking.value.hint == "agentlab fetch vllm"
    with pytest.raises(UsageError, match="in-process engine"):
        load_policy(str(tiny_checkpoint), engine="vllm", window_s=1)
    with pytest.raises(SetupError):
        python()


HEAD = {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"\xff" * 64,
        (2**40).to_bytes(8, "little") + b"{}",
        wire.pack({}),
        wire.pack({"images": ["x"]}, {"ids": torch.tensor([1]), "stop": torch.tensor([2])}),
        wire.pack({"images": "x"}, {"ids": torch.tensor([1]), "stop": torch.tensor([2])}),
        wire.pack({"images": ["x"]}, {"ids": torch.tensor([1]), "stop": torch.tensor([2]), "image.x": torch.zeros(2, 2, 3).byte()}),
        wire.pack({}, {"ids": torch.tensor([10**9]), "stop": torch.tensor([2])}),
        wire.pack({}, {"ids": torch.tensor([0.5]), "stop": torch.tensor([2])}),
        wire.pack({}, {"ids": torch.zeros(0, dtype=torch.long), "stop": torch.tensor([2])}),
        wire.pack({"adapter": "nobody@1"}, {"ids": torch.tensor([1]), "stop": torch.tensor([2])}),
        wire.pack({"adapter": {"a": 1}}, {"ids": torch.tensor([1]), "stop": torch.tensor([2])}),
        wire.pack({"sampling": {"temperature": "hot"}}, {"ids": torch.tensor([1]), "stop": torch.tensor([2])}),
        wire.pack({"sampling": {"temperature": float("nan")}}, {"ids": torch.tensor([1]), "stop": torch.tensor([2])}),
        wire.pack({"sampling": {"max_new_tokens": 10**9}}, {"ids": torch.tensor([1]), "stop": torch.tensor([2])}),
        wire.pack({"seed": -1}, {"ids": torch.tensor([1]), "stop": torch.tensor([2])}),
        wire.pack({"seed": True}, {"ids": torch.tensor([1]), "stop": torch.tensor([2])}),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused_and_nothing_is_computed(server, body):
    server.backend.asked.clear()
    answer = httpx.post(f"{server.url}{wire.PREFIX}/generate", content=body, headers=HEAD)
    assert answer.status_code in (400, 404, 409) and answer.json()["error"]["message"]
    assert not server.backend.asked


def test_adapters_that_do_not_fit_are_refused(server, engine):
    V, d = engine.head_weight.shape
    session = httpx.post(f"{server.url}{wire.PREFIX}/sessions", headers=HEAD).json()["session"]

    def put(tensors, session=session, **fields):
        body = wire.pack(fields, tensors)
        return httpx.put(f"{server.url}{wire.PREFIX}/sessions/{session}/adapter", content=body, headers=HEAD)

    A, B = torch.ones(2, d), torch.ones(V, 2)
    assert put({"A": A, "B": B}).json() == {"adapter": f"{session}@1"}
    assert (
        put({"base_model.model.lm_head.lora_A.weight": A, "base_model.model.lm_head.lora_B.weight": B}).status_code == 200
    )  # PEFT's
    assert put({"A": A, "B": B}, session="s0").status_code == 404
    for tensors in (
        {},
        {"A": A},
        {"A": A.T.contiguous(), "B": B},
        {"A": A, "B": B[1:].clone()},
        {"A": A[:1].clone(), "B": B},
        {"delta": torch.ones(d + 1)},
    ):
        assert put(tensors).status_code == 400
    assert put({"A": A * torch.nan, "B": B}).status_code == 400
    assert put({"A": A, "B": B}, scale="x").status_code == 400
    assert put({"A": A, "B": B}, kind="code").status_code == 400
    httpx.delete(f"{server.url}{wire.PREFIX}/sessions/{session}", headers=HEAD)
    assert not server.backend.adapters or all(not name.startswith(session) for name in server.backend.adapters)


def test_an_update_never_runs_a_method_that_a_message_names(server, engine):
    d = engine.head_weight.shape[1]
    session = httpx.post(f"{server.url}{wire.PREFIX}/sessions", headers=HEAD).json()["session"]
    fields = {"session": session, "what": "update", "seed": 0, "rewards": [-1.0], "steps": [[0, 2, False, False]]}
    tensors = {"hidden": torch.ones(2, d), "tokens": torch.tensor([1, 2])}
    for config in (
        {"method": "os:system"},
        {"method": "none"},
        {"method": "rosa", "beta": "x"},
        {"method": "rosa", "nonsense": 1},
        {},
    ):
        answer = httpx.post(
            f"{server.url}{wire.PREFIX}/update", content=wire.pack({**fields, "config": config}, tensors), headers=HEAD
        )
        assert answer.status_code == 422, answer.text
    bad = wire.pack({**fields, "config": {"method": "rosa"}, "rewards": [7.0]}, tensors)
    assert httpx.post(f"{server.url}{wire.PREFIX}/update", content=bad, headers=HEAD).json()["error"]["code"] == "AdaptationError"


def test_the_learner_says_what_the_servers_says(served, screens):
    session = served.open(TASK, seed=3, adapt=weights_of("rosa"))
    session.begin("Click the button")
    session.act({"screenshot": screens[0]})
    with pytest.raises(AdaptationError, match="Rewards"):
        session.adapt([7.0])
    with pytest.raises(AdaptationError, match="captured"):
        session.adapt([-1.0])
    assert isinstance(session.learner, ServedLearner)


def test_a_full_queue_and_a_server_that_ends(engine, tiny_checkpoint, screens):
    stand_in = StandIn(engine, tiny_checkpoint, max_queue=1).start()
    stand_in.backend.hold = threading.Event()
    policy = load_policy(f"served:{stand_in.url}", **FAST)
    session = policy.open(TASK, seed=1)
    session.begin("Click the button")
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(session.act, {"screenshot": screens[0]})
        while not stand_in.guard.running:
            time.sleep(0.005)
        refused = httpx.post(f"{stand_in.url}{wire.PREFIX}/sessions", headers=HEAD)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert httpx.get(f"{stand_in.url}{wire.PREFIX}/info", headers=HEAD).status_code == 200
        stand_in.guard.draining = True
        assert httpx.post(f"{stand_in.url}{wire.PREFIX}/sessions", headers=HEAD).status_code == 503
        assert httpx.get(f"{stand_in.url}/health").status_code == 503
        stand_in.backend.hold.set()
        assert slow.result(60).tokens > 0  # what runs is finished
    policy.close()
    stand_in.close()


def test_a_reply_that_nobody_waits_for_is_given_up(engine, tiny_checkpoint):
    stand_in = StandIn(engine, tiny_checkpoint).start()
    stand_in.backend.hold = threading.Event()
    body = wire.pack({}, {"ids": torch.tensor([1, 2]), "stop": torch.tensor([0])})
    with pytest.raises(httpx.TimeoutException):
        httpx.post(f"{stand_in.url}{wire.PREFIX}/generate", content=body, headers=HEAD, timeout=0.3)
    until = time.monotonic() + 60
    while stand_in.guard.running and time.monotonic() < until:
        time.sleep(0.02)
    assert not stand_in.guard.running and stand_in.backend.asked
    stand_in.backend.hold.set()
    stand_in.close()


def test_bodies_are_bounded(engine, tiny_checkpoint):
    stand_in = StandIn(engine, tiny_checkpoint, max_body_mb=0.1).start()
    url = f"{stand_in.url}{wire.PREFIX}/generate"
    assert httpx.post(url, content=b"x" * 200_000, headers=HEAD).status_code == 413
    with pytest.raises(httpx.HTTPError):  # its length is not said: it is cut off
        if httpx.post(url, content=(b"x" * 50_000 for _ in range(10)), headers=HEAD).status_code >= 400:
            raise httpx.ReadError("refused")
    assert httpx.get(f"{stand_in.url}/health").status_code == 200
    stand_in.close()


def test_metrics_are_prometheus(server, served, screens):
    session = served.open(TASK, seed=1)
    session.begin("Click the button")
    session.act({"screenshot": screens[0]})
    text = httpx.get(f"{server.url}{wire.PREFIX}/metrics", headers=HEAD).text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["agentlab_tokens_total"]) > 0 and float(values["agentlab_generate_seconds_count"]) > 0
    assert float(values['agentlab_requests_total{route="/generate",status="200"}']) > 0
    assert all(float(value) >= 0 for value in values.values())


def test_a_stranger_with_the_protocol_alone(server, engine):
    """As docs/serving.md has it: no policy, no loop of ours."""
    with httpx.Client(base_url=f"{server.url}{wire.PREFIX}", headers=HEAD) as http:
        info = http.get("/info").json()
        ids = torch.tensor(engine._ids_of("Click the button"))
        body = wire.pack({"sampling": {"max_new_tokens": 4}}, {"ids": ids, "stop": torch.tensor(sorted(engine.stop_ids))})
        fields, reply = wire.unpack(http.post("/generate", content=body).content)
        assert fields["finish"] in ("stop", "length") and reply["hidden"].shape == (len(reply["tokens"]), info["hidden_size"])
        scored = wire.pack({}, {"ids": ids, "reply": reply["tokens"]})
        _, again = wire.unpack(http.post("/score", content=scored).content)
        torch.testing.assert_close(again["hidden"], reply["hidden"], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(again["logprobs"], reply["logprobs"], atol=1e-4, rtol=1e-4)


def test_chat_models_are_served_too(tmp_path):
    """A Llama with a vocabulary of words; the stand-in is given token ids, as vLLM is."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

    words = [*(f"w{n}" for n in range(40)), "user", "<end>", "?"]
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        eos_token_id=words.index("<end>"), tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.get_input_embeddings().weight.data.mul_(30)
    model.save_pretrained(tmp_path)
    core = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<end>", unk_token="?")
    tokenizer.chat_template = "{% for m in messages %}user {{ m['content'] }} <end> {% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    here = load_policy(str(tmp_path), device="cpu")
    stand_in = StandIn(load_policy(str(tmp_path), device="cpu").engine, tmp_path, vision=False).start()
    assert needs(f"served:{stand_in.url}", FAST) == {"text"}
    served = load_policy(f"served:{stand_in.url}", system="w1", **FAST)
    here.settings = served.settings
    task = TaskSpec("agentlab/reasoning-v0", "t", 0, 1, options={"kind": "number"})
    found = []
    for policy in (served, here):
        policy.sampling = SamplingConfig(max_new_tokens=8)
        session = policy.open(task, seed=2, adapt=weights_of("rosa"))
        said = []
        for attempt in (1, 2, 3):
            session.begin("w3 w4", attempt=attempt)
            said.append(session.act({"text": ""}).token_ids)
            said.append(session.adapt([-1.0]).numbers["residual_before"])
        found.append(said)
        said.append(policy.complete("w5 w6"))
    assert found[0][::2] == found[1][::2]  # its own answer to a text stands last
    assert found[0][1::2] == pytest.approx(found[1][1::2], rel=1e-4)
    served.close()
    stand_in.close()
