"""The worker's heads over a runner that schedules as vLLM's does: chunks, preemption, rows that come and go, replies that are given up."""

import dataclasses
import random
import sys
from types import SimpleNamespace

import pytest
import torch

from envs.errors import PolicyError
from policies.adapters.hidden import HiddenShift
from policies.adapters.lora import LoRAHead
from policies.head import add_deltas
from policies.rosa.config import RosaConfig
from policies.sampler import Sampler
from policies.sampling import SamplingConfig
from policies.served import wire
from policies.served.engine import ServedEngine
from policies.served.plugin import heads, worker

V, D, STOP = 40, 8, 0
W = torch.randn(V, D, generator=torch.Generator().manual_seed(0))


def hidden_of(tokens):
    """A backbone: what the head receives after these tokens [d], whoever asks and whenever."""
    return torch.randn(D, generator=torch.Generator().manual_seed(hash(tuple(tokens)) % 2**31))


class Runner:
    """Of vLLM's model runner 1 what the extension touches, with a scheduler that does as it likes."""

    def __init__(self, head=W):
        self.model = SimpleNamespace(
            compute_logits=lambda hidden: hidden @ self.model.lm_head.weight[:V].T,
            lm_head=SimpleNamespace(weight=head, org_vocab_size=V),
        )
        self.input_batch = SimpleNamespace(req_ids=[], num_reqs=0, num_computed_tokens_cpu=[])
        self.speculative_config = None
        self.known, self.tokens, self.done = {}, {}, {}
        self.finished = set()

    def add(self, request, prompt, plan, limit):
        self.known[request] = (list(prompt), plan, limit)
        self.tokens[request], self.done[request] = [], 0

    def execute_model(self, scheduler_output):
        batch = self.input_batch
        batch.req_ids = list(scheduler_output.num_scheduled_tokens)
        batch.num_reqs = len(batch.req_ids)
        batch.num_computed_tokens_cpu = [self.done[r] for r in batch.req_ids]
        hidden = self._model_forward(None, None)
        ends = torch.tensor(list(scheduler_output.num_scheduled_tokens.values())).cumsum(0) - 1
        logits = self.model.compute_logits(hidden[ends])
        for row, request in enumerate(batch.req_ids):
            self.done[request] += scheduler_output.num_scheduled_tokens[request]
            prompt = self.known[request][0]
            if self.done[request] == len(prompt) + len(self.tokens[request]):  # else the rest is still to be read
                self.tokens[request].append(int(logits[row].argmax()))

    def _model_forward(self, input_ids, positions):
        batch, rows = self.input_batch, []
        for request, first in zip(batch.req_ids, batch.num_computed_tokens_cpu, strict=True):
            whole = self.known[request][0] + self.tokens[request]
            rows += [hidden_of(whole[: at + 1]) for at in range(first, first + self.counts[request])]
        return torch.stack(rows + [torch.full((D,), torch.nan)] * 3)  # padding, as captured graphs have

    def step(self, counts, new=(), finished=()):
        self.counts = counts
        requests = [
            SimpleNamespace(
                req_id=r,
                prompt_token_ids=self.known[r][0],
                sampling_params=SimpleNamespace(extra_args={worker.ARGUMENT: self.known[r][1].as_args()}),
            )
            for r in new
        ]
        self.execute_model(
            SimpleNamespace(scheduled_new_reqs=requests, num_scheduled_tokens=counts, finished_req_ids=set(finished))
        )


@pytest.fixture(autouse=True)
def vllm(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(__version__="0.32.0"))
    one = SimpleNamespace(get_tensor_model_parallel_world_size=lambda: 1, tensor_model_parallel_all_gather=None)
    monkeypatch.setitem(sys.modules, "vllm.distributed", one)


def extension(runner):
    made = worker.HeadExtension()
    made.model_runner = runner
    assert made.agentlab_install() == made.agentlab_install() == {
        "vocabulary": V, "hidden_size": D, "dtype": "float32", "plain": True,
    }  # fmt: skip
    return made


def lora(seed):
    g = torch.Generator().manual_seed(seed)
    return LoRAHead(torch.randn(3, D, generator=g), torch.randn(V, 2, generator=g), 0.5)


def reference(prompt, plan, adapter, limit):
    """Tokens, log-probabilities and H of a reply that is written alone."""
    sampler, tokens, logprobs, hidden = Sampler([plan.sampling], [plan.seed], [torch.tensor(prompt)]), [], [], []
    while len(tokens) < limit and (not tokens or tokens[-1] != STOP):
        h = hidden_of([*prompt, *tokens])[None]
        z = h @ W.T
        z = add_deltas(W, h, z, [(adapter, [0])]) if adapter is not None else z
        tokens.append(int(sampler.draw(z.clone())[0]))
        logprobs.append(float(z[0].log_softmax(-1)[tokens[-1]]))
        hidden.append(h[0])
    return tokens, torch.tensor(logprobs), torch.stack(hidden)


def schedule(runner, waiting, chance):
    """Run all of ``waiting`` to their ends, five at a time at most, in an order and in pieces that chance decides."""
    seen, running, ended = set(), [], []
    while waiting or running:
        while waiting and len(running) < 5 and chance.random() < 0.7:
            running.append(waiting.pop(0))
        counts = {}
        for r in chance.sample(running, chance.randrange(len(running) + 1)):
            left = len(runner.known[r][0]) + len(runner.tokens[r]) - runner.done[r]
            counts[r] = chance.randrange(1, left + 1)
        if not counts:
            continue
        new = [r for r in counts if r not in seen or chance.random() < 0.05]  # some are sent as new again
        seen |= set(counts)
        runner.step(counts, new, ended)
        ended = [r for r in running if len(runner.tokens[r]) >= runner.known[r][2] or runner.tokens[r][-1:] == [STOP]]
        running = [r for r in running if r not in ended]
        for r in [r for r in running if r in seen and chance.random() < 0.08]:
            if chance.random() < 0.5:  # preempted: its keys and values are gone, what it wrote is not
                running.remove(r)
                waiting.insert(0, r)
                runner.done[r] = 0
            else:  # a position is computed once more
                runner.done[r] = max(0, runner.done[r] - 1)


HOT = SamplingConfig(temperature=1.3, top_p=0.9, frequency_penalty=0.4)
OFFICIAL = SamplingConfig(repetition_penalty=1.5)
"""As GUI-Owl's and UI-Venus's recipes, stronger: greedy but for what was said already."""


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_schedule_every_reply_is_what_it_is_alone(seed):
    """Sixteen requests under five adapters or none; prompts in chunks; requests preempted and read again, or sent as new again."""
    chance = random.Random(seed)
    runner = Runner(torch.cat([W, torch.zeros(8, D)]))  # vLLM pads the vocabulary
    ext = extension(runner)
    adapters = {f"s{n}@1": lora(n) if n else HiddenShift(torch.ones(D)) for n in range(5)}
    for name, adapter in adapters.items():
        theta = {"delta": adapter.delta} if name == "s0@1" else {"A": adapter.A, "B": adapter.B}
        ext.agentlab_put(
            name, wire.pack({"kind": "hidden" if name == "s0@1" else "lora", "scale": getattr(adapter, "scale", 1.0)}, theta)
        )
    expected, waiting = {}, []
    for n in range(16):
        worn = chance.choice([None, *adapters])
        plan = heads.Plan(f"k{n}", worn, chance.choice([SamplingConfig(), HOT, OFFICIAL]), n, STOP, chance.random() < 0.8)
        prompt, limit = [chance.randrange(1, V) for _ in range(chance.randrange(1, 9))], chance.randrange(1, 9)
        runner.add(f"r{n}", prompt, plan, limit)
        expected[f"r{n}"] = (plan, reference(prompt, plan, adapters.get(worn), limit))
        waiting.append(f"r{n}")
    schedule(runner, waiting, chance)
    for r, (plan, (tokens, logprobs, hidden)) in expected.items():
        assert runner.tokens[r] == tokens
        fields, found = wire.unpack(ext.agentlab_pop(plan.key, len(tokens), plan.adapter, []))
        assert fields == {"error": ""} and found["tokens"].tolist() == tokens
        torch.testing.assert_close(found["logprobs"], logprobs, atol=1e-5, rtol=1e-5)
        assert ("hidden" in found) == plan.capture
        if plan.capture:
            torch.testing.assert_close(found["hidden"], hidden)
        assert ext.agentlab_pop(plan.key, len(tokens), plan.adapter, []) is None  # once


@pytest.mark.parametrize("sampling", [OFFICIAL, dataclasses.replace(HOT, repetition_penalty=2.0)])
def test_what_the_prompt_says_already_is_less_probable(sampling):
    likely = (hidden_of([1, 2]) @ W.T).topk(3).indices.tolist()
    prompts = {"plain": [1, 2], "penalised": [1, 2], "outside": [1, V + 3]}  # the last is a token that the head cannot write
    for name, prompt in prompts.items():
        runner = Runner()
        ext = extension(runner)
        plan = heads.Plan(name, None, SamplingConfig() if name == "plain" else sampling, 5, STOP)
        whole = [*likely, *prompt]
        runner.add("r", whole, plan, 6)
        runner.step({"r": len(whole)}, ["r"])
        while len(runner.tokens["r"]) < 6 and runner.tokens["r"][-1] != STOP:
            runner.step({"r": 1})
        assert runner.tokens["r"] == reference(whole, plan, None, 6)[0]
        assert wire.unpack(ext.agentlab_pop(name, len(runner.tokens["r"]), None, []))[0] == {"error": ""}


def test_no_setting_of_a_draw_is_left_out_on_the_way():
    """What is not sent is decided on the client's side: which of several replies is taken, and when it is greedy."""
    clients = {"no_repeat", "next_best", "consistent", "beams", "radius", "first_greedy"}
    assert {field.name for field in dataclasses.fields(SamplingConfig)} == {"max_new_tokens", *wire.DRAWING, *clients}


def test_a_server_whose_model_caps_its_logits_says_so_and_its_weights_are_not_adapted():
    runner, made = Runner(), worker.HeadExtension()
    runner.model.compute_logits = lambda hidden: 30 * torch.tanh(hidden @ W.T / 30)
    made.model_runner = runner
    info = made.agentlab_install()
    assert not info["plain"]
    with pytest.raises(PolicyError, match="not W h alone"):
        ServedEngine(SimpleNamespace(), info).learner(RosaConfig(), 0)


def test_requests_that_are_not_ours_are_left_alone():
    runner = Runner()
    ext = extension(runner)
    ext.agentlab_put("s@1", wire.pack({}, {"A": lora(1).A, "B": lora(1).B}))
    runner.add("ours", [1, 2], heads.Plan("k", "s@1", stop=STOP), 4)
    runner.add("theirs", [3, 4], heads.Plan("t"), 4)
    step = runner.execute_model
    runner.counts = {"theirs": 2, "ours": 2}
    plans = [("ours", {worker.ARGUMENT: runner.known["ours"][1].as_args()}), ("theirs", None)]
    new = [
        SimpleNamespace(req_id=r, prompt_token_ids=runner.known[r][0], sampling_params=SimpleNamespace(extra_args=x))
        for r, x in plans
    ]
    seen = []
    inner = runner.model.compute_logits
    runner.model.compute_logits = lambda hidden: (seen.append(inner(hidden)), seen[-1])[1]
    step(SimpleNamespace(scheduled_new_reqs=new, num_scheduled_tokens=runner.counts, finished_req_ids=set()))
    torch.testing.assert_close(seen[0][0], hidden_of([3, 4]) @ W.T)
    assert int(torch.isfinite(seen[0][1]).sum()) == 1


def test_scoring_a_reply_in_chunks():
    runner = Runner()
    ext = extension(runner)
    adapter = lora(3)
    ext.agentlab_put("s@1", wire.pack({"scale": 0.5}, {"A": adapter.A, "B": adapter.B}))
    prompt, reply = [5, 6, 7], [8, 9, 10, 11]
    runner.add("r", prompt + reply, heads.Plan("k", None, stop=STOP, score_from=-len(reply)), 1)
    for count, new in ((2, ["r"]), (3, []), (2, [])):
        runner.step({"r": count}, new)
    fields, found = wire.unpack(ext.agentlab_pop("k", 4, "s@1", reply))
    assert fields == {"error": ""}
    h = torch.stack([hidden_of([*prompt, *reply[:n]]) for n in range(4)])
    torch.testing.assert_close(found["hidden"], h)
    z = add_deltas(W, h, h @ W.T, [(adapter, [0, 1, 2, 3])])
    torch.testing.assert_close(found["logprobs"], z.log_softmax(-1).gather(1, torch.tensor(reply)[:, None])[:, 0])


def test_what_cannot_be_served_ends_and_says_why():
    runner = Runner()
    ext = extension(runner)
    runner.add("lost", [1], heads.Plan("lost", "nobody@1", stop=STOP, capture=True), 5)
    runner.step({"lost": 1}, ["lost"])
    assert runner.tokens["lost"] == [STOP]
    assert wire.unpack(ext.agentlab_pop("lost", 1, "nobody@1", []))[0] == {"error": "unknown adapter nobody@1"}
    runner.model.lm_head.weight[3] = torch.nan
    try:
        runner.add("nan", [2], heads.Plan("nan", stop=STOP), 5)
        runner.step({"nan": 1}, ["nan"])
    finally:
        W[3] = torch.ones(D)
    assert runner.tokens["nan"] == [STOP] and "NaN" in wire.unpack(ext.agentlab_pop("nan", 1, None, []))[0]["error"]


def test_a_dropped_adapter_stays_with_those_who_wear_it_and_what_nobody_fetches_is_forgotten(monkeypatch):
    runner = Runner()
    ext = extension(runner)
    adapter = lora(5)
    ext.agentlab_put("s@1", wire.pack({"scale": 0.5}, {"A": adapter.A, "B": adapter.B}))
    plan = heads.Plan("k", "s@1", stop=STOP, capture=True)
    runner.add("r", [1, 2], plan, 3)
    runner.step({"r": 2}, ["r"])
    assert ext.agentlab_drop(["s@1", "s@0"]) == 1
    runner.step({"r": 1})
    assert runner.tokens["r"] == reference([1, 2], plan, adapter, 2)[0]
    monkeypatch.setattr(heads, "FORGET_S", -1.0)
    runner.add("x", [1], heads.Plan("x", stop=STOP), 3)
    runner.step({"x": 1}, ["x"], ["r"])
    runner.step({"x": 1})
    assert ext.agentlab_pop("k", 2, "s@1", []) is None
    ext.agentlab_forget("x")
    ext.agentlab_forget("x")
    runner.step({"x": 1})
    assert ext.agentlab_pop("x", 3, None, []) is None and ext.agentlab_counts()["rows"] == 5


@pytest.mark.parametrize("what", ["version", "forward", "batch", "speculative", "quantised"])
def test_a_vllm_that_is_another_is_refused_at_the_start(monkeypatch, what):
    runner = Runner()
    if what == "version":
        monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(__version__="0.33.0"))
    elif what == "forward":
        monkeypatch.setattr(Runner, "_model_forward", lambda self, batch: None)
    elif what == "batch":
        del runner.input_batch.num_computed_tokens_cpu
    elif what == "speculative":
        runner.speculative_config = object()
    else:
        runner.model.lm_head.weight = torch.zeros(V, D, dtype=torch.int8)
    with pytest.raises(RuntimeError, match=r"vLLM|quantised"):
        extension(runner)
