"""The real vLLM against the in-process engine: on demand (``AGENTLAB_VLLM=1``), where ``agentlab fetch vllm`` was run.

The bundled policy in float32; vLLM has it with wider heads (:mod:`policies.nano.wide`), so that the last quarter of each row of H is zero.
"""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from policies.adapters.hidden import HiddenShift
from policies.adapters.lora import LoRAHead
from policies.checkpoint import load_engine
from policies.generation import Request
from policies.registry import bundled_checkpoint, load_policy
from policies.sampling import SamplingConfig
from policies.served import wire
from policies.served.load import servable
from policies.served.process import Process, vllm_arguments

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("AGENTLAB_VLLM") != "1", reason="AGENTLAB_VLLM=1 runs it; agentlab fetch vllm makes what it needs"
    ),
    pytest.mark.timeout(3600),
]
BLOCKS = 44
"""Blocks of 32 tokens: not enough for the sixteen requests of the preemption test together."""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A server with little memory for keys and values and a small budget of tokens a step; ``AGENTLAB_VLLM_URL`` names one that runs."""
    if given := os.environ.get("AGENTLAB_VLLM_URL"):
        yield given
        return
    folder = tmp_path_factory.mktemp("served")
    model = servable(str(bundled_checkpoint()), folder)
    extra = vllm_arguments(dtype="float32", max_batch=16, images=8, context=1024)
    small = ["--block-size", "32", "--num-gpu-blocks-override", str(BLOCKS), "--max-num-batched-tokens", "256"]
    process = Process(model, extra=[*extra, *small], log=folder / "server.log")
    os.environ[wire.TOKEN_VARIABLE] = process.token
    try:
        yield process.wait()
    finally:
        process.close()


@pytest.fixture(scope="module")
def served(url):
    policy = load_policy(f"served:{url}")
    yield policy
    policy.close()


@pytest.fixture(scope="module")
def engine():
    return load_engine(str(bundled_checkpoint()), device="cpu", dtype="float32")


def prompt_of(engine, number=0, pictures=0):
    """A prompt of its own for each number: a long text, or pictures."""
    if not pictures:
        words = " ".join(f"click the button {number + n} and type {n}" for n in range(8))
        return engine.prompt([{"role": "user", "content": [{"type": "text", "text": words}]}], 400, 409600)
    pixels = np.random.default_rng(number).integers(0, 256, (210, 160, 3), dtype=np.uint8)
    content = [{"type": "text", "text": "Click the ok button"}, *[{"type": "image", "image": Image.fromarray(pixels)}] * pictures]
    return engine.prompt([{"role": "user", "content": content}], 400, 409600)


def adapter(engine, number, wide=None):
    """A random adapter for the in-process engine, or the same one for heads of ``wide``."""
    V, d = engine.head_weight.shape
    g = torch.Generator().manual_seed(number)
    more = (0, (wide or d) - d)
    if number % 5 == 4:
        return HiddenShift(torch.nn.functional.pad(torch.randn(d, generator=g) * 0.05, more))
    return LoRAHead(torch.nn.functional.pad(torch.randn(2, d, generator=g) * 0.05, more), torch.randn(V, 1, generator=g), 0.7)


def same(served, own, d, tolerance=2e-3):
    assert served.tokens.tolist() == own.tokens.tolist()
    torch.testing.assert_close(served.logprobs, own.logprobs, atol=tolerance, rtol=1e-3)
    assert served.hidden.shape[0] == len(own.tokens)
    torch.testing.assert_close(served.hidden[:, :d], own.hidden, atol=tolerance, rtol=1e-3)
    assert not served.hidden[:, d:].any()


def test_sixteen_in_flight_with_adapters_and_frozen_rows_are_each_what_they_are_alone(served, engine):
    wide = served.engine.shape[1]
    d = engine.head_weight.shape[1]
    limit = SamplingConfig(max_new_tokens=24)
    prompts = [prompt_of(engine, n % 3) for n in range(16)]
    pairs = [(None, None) if n % 4 == 0 else (adapter(engine, n), adapter(engine, n, wide)) for n in range(16)]
    alone = [engine.generate([Request(p, limit, n, a, True)])[0] for n, (p, (a, _)) in enumerate(zip(prompts, pairs, strict=True))]
    assert len({tuple(g.tokens.tolist()) for g in alone}) > 8
    with ThreadPoolExecutor(16) as pool:
        for _ in range(2):  # the second time their keys and values are there already
            found = list(pool.map(lambda n: served.engine.submit(Request(prompts[n], limit, n, pairs[n][1], True)), range(16)))
            for one, own in zip(found, alone, strict=True):
                same(one, own, d)


def test_one_prompt_under_many_adapters_shares_its_keys_and_values_and_nothing_else(served, engine):
    wide, d = served.engine.shape[1], engine.head_weight.shape[1]
    limit, prompt = SamplingConfig(max_new_tokens=12), prompt_of(engine, 77)
    before = cached(served)
    for number in (None, 1, 2, None, 9, 1):
        mine, there = (None, None) if number is None else (adapter(engine, number), adapter(engine, number, wide))
        same(
            served.engine.submit(Request(prompt, limit, 0, there, True)),
            engine.generate([Request(prompt, limit, 0, mine, True)])[0],
            d,
        )
    assert cached(served) - before > 0  # the prefix cache was in use


def cached(served):
    text = httpx.get(
        f"{served.engine.client.url}{wire.PREFIX}/metrics", headers={"Authorization": f"Bearer {os.environ[wire.TOKEN_VARIABLE]}"}
    ).text
    found = re.search(r"^agentlab_cached_tokens_total (\S+)$", text, re.M)
    return float(found[1]) if found else 0.0


def test_after_a_swap_no_reply_is_the_old_adapters(served, engine):
    wide, d = served.engine.shape[1], engine.head_weight.shape[1]
    limit, prompt = SamplingConfig(max_new_tokens=8), prompt_of(engine, 5)
    session = served.engine.open()
    from policies.served import updates

    for number in range(1, 12):
        worn = adapter(engine, number, wide)
        fields, tensors = updates.theta_of(worn).packed()
        name = served.engine.client.put(f"/sessions/{session}/adapter", wire.pack(fields, tensors))["adapter"]
        served.engine.named(worn, name)
        own = engine.generate([Request(prompt, limit, 0, adapter(engine, number), True)])[0]
        same(served.engine.submit(Request(prompt, limit, 0, worn, True)), own, d)
    served.engine.close_session(session)


def preemptions(served):
    headers = {"Authorization": f"Bearer {os.environ[wire.TOKEN_VARIABLE]}"}
    text = httpx.get(f"{served.engine.client.url}/metrics", headers=headers, follow_redirects=True).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("vllm:num_preemptions_total"))


def test_h_is_whole_after_preemption(served, engine):
    """Sixteen long replies of different prompts in a cache that holds half of them."""
    wide, d = served.engine.shape[1], engine.head_weight.shape[1]
    g = torch.Generator().manual_seed(3)
    A, B = torch.randn(1, d, generator=g) * 0.01, torch.zeros(engine.head_weight.shape[0], 1)
    hot = SamplingConfig(temperature=3.0, max_new_tokens=90)
    mine, there = LoRAHead(A, B), LoRAHead(torch.nn.functional.pad(A, (0, wide - d)), B)
    prompts = [prompt_of(engine, 100 + n) for n in range(16)]
    before = preemptions(served)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda n: served.engine.submit(Request(prompts[n], hot, n, there, True)), range(16)))
    happened = preemptions(served) - before
    equal = 0
    for n, one in enumerate(found):
        assert one.hidden.shape == (len(one.tokens), wide)
        scored = engine.score(prompts[n], one.tokens, mine)  # the very tokens, read by the in-process engine
        torch.testing.assert_close(one.hidden[:, :d], scored.hidden, atol=5e-3, rtol=1e-3)
        torch.testing.assert_close(one.logprobs, scored.logprobs, atol=5e-3, rtol=1e-3)
        equal += one.tokens.tolist() == engine.generate([Request(prompts[n], hot, n, mine)])[0].tokens.tolist()
    assert happened > 0, "nothing was preempted: this says nothing"
    assert equal >= 15  # the same draws, but where two candidates differ by less than rounding


@pytest.mark.parametrize("pictures", [0, 1, 2])
def test_scoring_is_the_in_process_engines(served, engine, pictures):
    wide, d = served.engine.shape[1], engine.head_weight.shape[1]
    prompt = prompt_of(engine, 8, pictures)
    reply = engine.tokens("Thought: click the button\nAction: click(start_box='(500,500)')")
    for number in (None, 3, 4):
        own = engine.score(prompt, reply, None if number is None else adapter(engine, number))
        for _ in range(2):  # cached the second time
            found = served.engine.score(prompt, reply, None if number is None else adapter(engine, number, wide))
            torch.testing.assert_close(found.hidden[:, :d], own.hidden, atol=2e-3, rtol=1e-3)
            torch.testing.assert_close(found.logprobs, own.logprobs, atol=2e-3, rtol=1e-3)


def test_a_request_that_is_given_up_leaves_nothing(served, engine):
    prompt = prompt_of(engine, 9, 1)
    body = wire.pack(
        {
            "sampling": {"temperature": 5.0, "max_new_tokens": 400},
            "images": [wire.digest_of(torch.from_numpy(np.array(prompt.images[0])))],
        },
        {
            "ids": torch.tensor(served.engine._ids_of(prompt.text)),
            "stop": torch.tensor([0]),
            f"image.{wire.digest_of(torch.from_numpy(np.array(prompt.images[0])))}": torch.from_numpy(np.array(prompt.images[0])),
        },
    )
    headers = {"Authorization": f"Bearer {os.environ[wire.TOKEN_VARIABLE]}"}
    with pytest.raises(httpx.TimeoutException):
        httpx.post(f"{served.engine.client.url}{wire.PREFIX}/generate", content=body, headers=headers, timeout=1.0)
    own = engine.generate([Request(prompt, SamplingConfig(max_new_tokens=8), 0, None, True)])[0]
    same(served.engine.submit(Request(prompt, SamplingConfig(max_new_tokens=8), 0, None, True)), own, engine.head_weight.shape[1])


def test_openais_routes_are_beside_ours_and_under_the_same_token(served):
    url = served.engine.client.url
    assert httpx.get(f"{url}/health").status_code == 200
    assert httpx.get(f"{url}/v1/models").status_code == 401
    headers = {"Authorization": f"Bearer {os.environ[wire.TOKEN_VARIABLE]}"}
    models = httpx.get(f"{url}/v1/models", headers=headers).json()["data"]
    chat = {"model": models[0]["id"], "messages": [{"role": "user", "content": "Click"}], "max_tokens": 4, "temperature": 0}
    assert httpx.post(f"{url}/v1/chat/completions", json=chat, headers=headers, timeout=300).status_code == 200


@pytest.mark.browser
def test_a_run_on_miniwob_is_the_same_run(url, tmp_path):
    """Greedily: the same actions and the same updates, attempt by attempt.

    Nothing is drawn again here: in this process a tried action is excluded exactly, on a server whole replies are drawn until one is new.
    """
    told = {}
    for name, policy in (("served", f"served:{url}"), ("here", "ui-tars-nano")):
        command = [
            sys.executable, "-m", "agentlab", "run", "miniwob", "--policy", policy, "--adapt", "rosa", "--attempts", "3", "--limit", "6",
            "--seed", "5", "--workers", "2", "--out", str(tmp_path / name), "--set", "sampling.temperature=0",
            "--set", "sampling.no_repeat=false",
        ]  # fmt: skip
        subprocess.run(
            [*command, *(["--set", "model.dtype=float32"] if name == "here" else ["--set", "model.timeout_s=3000"])], check=True
        )
        told[name] = recorded(tmp_path / name)
    assert list(told["served"]) == list(told["here"]) and len(told["here"]) >= 6
    assert sum(update is not None for _, update in told["here"].values()) >= 2, "nothing was learned: this says nothing"
    for attempt, (actions, update) in told["here"].items():
        assert told["served"][attempt][0] == actions, attempt
        assert (told["served"][attempt][1] is None) == (update is None)
        if update is not None:
            assert told["served"][attempt][1] == pytest.approx(update, rel=2e-2, abs=1e-3), attempt


NUMBERS = ("T", "rank", "residual_before", "residual_after", "delta_norm2", "halvings")


def recorded(run):
    """(actions, numbers of the update) of every attempt."""
    found = {}
    for folder in sorted(run.glob("sessions/*/attempt_*")):
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        actions = [event[key] for event in events for key in ("text", "actions") if key in event]
        update = folder / "update.json"
        numbers = json.loads(update.read_text()).get("numbers", {}) if update.exists() else None
        if numbers is not None:
            numbers = {key: numbers[key] for key in NUMBERS if key in numbers}
        found[str(folder.relative_to(run))] = (actions, numbers)
    return found
