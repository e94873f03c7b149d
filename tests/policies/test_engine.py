"""One reply is the same alone and in any batch, greedy equals transformers' own ``generate``, and H is what the head received."""

import ctypes
import dataclasses
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from checkpoints import processed
from PIL import Image

from envs.errors import PolicyError
from policies.adapters.lora import LoRAHead
from policies.engine import Request
from policies.families.base import Turn
from policies.families.plain import Plain
from policies.sampler import Sampler
from policies.sampling import SamplingConfig, seed_of
from policies.vision_cache import VisionCache

PLAIN = Plain()
SETTINGS = PLAIN.defaults.model_copy(update={"history_images": 2})
GREEDY = SamplingConfig(max_new_tokens=10)
TASKS = ["Click the button", "type a word", "x", "Click the second field and type a word into the first"]


def asked(task, screen, history=()):
    return PLAIN.messages(Turn(task, "", list(history), screen, screen.size, SETTINGS))


@pytest.fixture(scope="module")
def requests(engine, screens):
    """Four prompts of different lengths, the last with two screenshots, and adapters on two of them."""
    source = torch.Generator().manual_seed(0)
    vocabulary, width = engine.model.lm_head.weight.shape
    adapters = [
        LoRAHead(torch.randn(2, width, generator=source), torch.randn(vocabulary, 2, generator=source), 1.0) if i % 2 else None
        for i in range(4)
    ]
    rows = []
    for i, task in enumerate(TASKS):
        history = [(Image.fromarray(screens[i]), "Action: wait()")] if i == 3 else []
        prompt = engine.prompt(asked(task, Image.fromarray(screens[i + 1]), history), 400, 409600)
        rows.append(Request(prompt, GREEDY, seed=i, adapter=adapters[i], capture=True))
    return rows


def test_a_batch_with_adapters_equals_one_by_one(engine, requests):
    together = engine.generate(requests)
    for request, row in zip(requests, together, strict=True):
        (alone,) = engine.generate([request])
        assert row.tokens.tolist() == alone.tokens.tolist()
        torch.testing.assert_close(row.hidden, alone.hidden, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(row.logprobs, alone.logprobs, atol=1e-3, rtol=1e-3)
        assert row.hidden.shape == (len(row.tokens), engine.model.lm_head.in_features)


def test_an_adapter_changes_only_its_own_row(engine, requests):
    adapted = engine.generate(requests)
    frozen = engine.generate([dataclasses.replace(r, adapter=None) for r in requests])
    same = [a.tokens.tolist() == b.tokens.tolist() for a, b in zip(adapted, frozen, strict=True)]
    assert same == [True, False, True, False]


def test_greedy_equals_transformers_generate(engine, requests):
    frozen = [dataclasses.replace(r, adapter=None) for r in requests]
    encoded = processed(engine, [r.prompt for r in frozen])
    reference = engine.model.generate(**encoded, max_new_tokens=10, do_sample=False)[:, encoded["input_ids"].shape[1] :]
    for row, expected in zip(engine.generate(frozen), reference, strict=True):
        assert row.tokens.tolist() == expected[: len(row.tokens)].tolist()


def test_the_head_makes_the_tokens_from_the_captured_rows(engine, requests):
    for request, row in zip(requests, engine.generate(requests), strict=True):
        logits = row.hidden @ engine.model.lm_head.weight.T
        if request.adapter is not None:
            logits = logits + request.adapter.logits_delta(row.hidden, engine.model.lm_head.weight)
        assert logits.argmax(dim=-1).tolist() == row.tokens.tolist()
        expected = logits.log_softmax(-1).gather(1, row.tokens[:, None])[:, 0]
        torch.testing.assert_close(row.logprobs, expected, atol=1e-3, rtol=1e-3)


def test_teacher_forcing_repeats_the_generation(engine, requests):
    for request, row in zip(requests, engine.generate(requests), strict=True):
        score = engine.score(request.prompt, row.tokens, request.adapter)
        torch.testing.assert_close(score.hidden, row.hidden, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(score.logprobs, row.logprobs, atol=1e-3, rtol=1e-3)


def test_a_draw_depends_on_its_seed_and_not_on_its_neighbours(engine, requests):
    hot = [dataclasses.replace(r, sampling=SamplingConfig(temperature=3.0, top_p=0.95, max_new_tokens=10)) for r in requests]
    together = [g.tokens.tolist() for g in engine.generate(hot)]
    assert together == [engine.generate([r])[0].tokens.tolist() for r in hot]
    assert together == [g.tokens.tolist() for g in engine.generate(hot[::-1])][::-1]
    other = [g.tokens.tolist() for g in engine.generate([dataclasses.replace(r, seed=r.seed + 100) for r in hot])]
    assert all(a != b for a, b in zip(together, other, strict=True))


def test_a_reply_stops_at_its_own_limit_and_at_the_end_of_turn(engine, requests, monkeypatch):
    short = dataclasses.replace(requests[0], sampling=SamplingConfig(max_new_tokens=3))
    row, other = engine.generate([short, requests[2]])
    assert (len(row.tokens), row.finish) == (3, "length")
    assert len(other.tokens) == 10
    monkeypatch.setattr(engine, "stop_ids", frozenset({int(row.tokens[1])}))
    (stopped,) = engine.generate([requests[0]])
    assert stopped.finish == "stop"
    assert stopped.tokens.tolist() == row.tokens.tolist()[: row.tokens.tolist().index(int(row.tokens[1])) + 1]
    assert len(stopped.hidden) == len(stopped.tokens)  # the end-of-turn token's row included


def test_finished_rows_leave_the_batch_and_change_nothing(engine, requests):
    """Replies of 1 to 10 tokens, each with its own adapter, random stream and penalty."""
    settings = [SamplingConfig(temperature=2.0, frequency_penalty=0.5, max_new_tokens=n) for n in (3, 10, 1, 6)]
    rows = [dataclasses.replace(r, sampling=s) for r, s in zip(requests, settings, strict=True)]
    sizes = []
    handle = engine.model.lm_head.register_forward_pre_hook(lambda module, args: sizes.append(args[0].shape[0]))
    together = engine.generate(rows)
    handle.remove()
    assert sizes == [4, 3, 3, 2, 2, 2, *[1] * 4]
    for request, row in zip(rows, together, strict=True):
        (alone,) = engine.generate([request])
        assert row.tokens.tolist() == alone.tokens.tolist()
        torch.testing.assert_close(row.hidden, alone.hidden, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(row.logprobs, alone.logprobs, atol=1e-3, rtol=1e-3)


def test_concurrent_sessions_share_batches(engine, requests, monkeypatch):
    sizes = []
    run = engine.generate
    monkeypatch.setattr(engine.batcher, "_run", lambda batch: (sizes.append(len(batch)), run(batch))[1])
    monkeypatch.setattr(engine.batcher, "_window_s", 20.0)
    expected = [g.tokens.tolist() for g in run(requests)]
    results = [None] * len(requests)

    def session(i):
        results[i] = engine.submit(requests[i]).tokens.tolist()
        engine.batcher.leave(i)

    for i in range(len(requests)):
        engine.batcher.enter(i)
    threads = [threading.Thread(target=session, args=(i,)) for i in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == expected
    assert sizes == [4]


def test_an_error_of_a_batch_reaches_every_caller(engine, requests, monkeypatch):
    def broken(batch):
        raise PolicyError("broken")

    monkeypatch.setattr(engine.batcher, "_run", broken)
    errors = []

    def session(request):
        try:
            engine.submit(request)
        except PolicyError as error:
            errors.append(error.message)

    threads = [threading.Thread(target=session, args=(r,)) for r in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == ["broken"] * 4


def test_a_batch_that_does_not_fit_is_halved(engine, requests, monkeypatch):
    expected = [g.tokens.tolist() for g in engine.generate(requests)]
    generate = engine._generate
    sizes = []

    def limited(batch):
        sizes.append(len(batch))
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(batch)

    monkeypatch.setattr(engine, "_generate", limited)
    monkeypatch.setattr(engine.batcher, "_max_batch", 16)  # put back afterwards
    assert [g.tokens.tolist() for g in engine.generate(requests)] == expected
    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    sizes.clear()
    with ThreadPoolExecutor(4) as pool:  # what did not fit is not tried again
        assert [g.tokens.tolist() for g in pool.map(engine.submit, requests)] == expected
    assert sizes == [1, 1, 1, 1]


def test_out_of_memory_for_one_row_says_what_to_do(engine, requests, monkeypatch):
    def full(batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine, "_generate", full)
    with pytest.raises(PolicyError, match="max_pixels"):
        engine.generate(requests[:1])


def test_an_instruction_with_the_image_token_is_refused(engine, screens):
    messages = asked("<|image_pad|>", Image.fromarray(screens[0]))
    with pytest.raises(PolicyError, match="control token"):
        engine.prompt(messages, 400, 409600)


# -- the sampler ---------------------------------------------------------------------------------------------------------------


def draws(settings, logits, count=4000):
    sampler = Sampler([settings], [seed_of("run", "task", 1)])
    return torch.stack([sampler.draw(logits[None])[0] for _ in range(count)])


def test_draws_follow_the_softmax_at_their_temperature():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    for temperature in (0.5, 1.0, 2.0):
        frequency = draws(SamplingConfig(temperature=temperature), logits).bincount(minlength=4) / 4000
        torch.testing.assert_close(frequency, (logits / temperature).softmax(0), atol=0.03, rtol=0)


def test_top_p_keeps_the_nucleus_only():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    assert set(draws(SamplingConfig(temperature=1.0, top_p=0.6), logits).tolist()) == {0, 1}
    assert set(draws(SamplingConfig(temperature=1.0, top_p=0.01), logits, 50).tolist()) == {0}


def test_a_repetition_penalty_is_for_what_the_prompt_or_the_reply_holds():
    sampler = Sampler([SamplingConfig(repetition_penalty=2.0), SamplingConfig()], [0, 0], [torch.tensor([0]), None])
    logits = torch.tensor([[3.0, 2.0, 1.8, -1.0]] * 2)
    assert [sampler.draw(logits).tolist() for _ in range(4)] == [[1, 0], [2, 0], [0, 0], [0, 0]]
    sampler.keep([1])
    assert sampler.draw(logits[1:]).tolist() == [0]


def test_frequency_penalty_counts_per_row():
    sampler = Sampler([SamplingConfig(frequency_penalty=1.0), SamplingConfig()], [0, 0])
    logits = torch.tensor([[1.5, 1.0], [1.5, 1.0]])
    assert [sampler.draw(logits).tolist() for _ in range(3)] == [[0, 0], [1, 0], [0, 0]]


def test_logits_that_are_not_numbers_are_refused():
    with pytest.raises(PolicyError, match="NaN"):
        Sampler([SamplingConfig()], [0]).draw(torch.tensor([[float("nan"), 1.0]]))


def test_seeds_tell_their_parts_apart():
    assert seed_of(1, 23) != seed_of(12, 3)
    assert 0 <= seed_of("a") < 2**63


def test_qwen2_5_vl_runs_on_the_same_engine(tiny_checkpoint, screens):
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from policies.engine import Engine
    from policies.nano.build import load_processor

    processor = load_processor(tiny_checkpoint)
    ids = processor.tokenizer.convert_tokens_to_ids
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(processor.tokenizer), "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2,
            "eos_token_id": ids("<|im_end|>"), "bos_token_id": ids("<|im_end|>"),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 4, 4]},
        },
        vision_config={
            "depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 10, "out_hidden_size": 48,
            "window_size": 40, "fullatt_block_indexes": [0], "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
    )  # fmt: skip
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    model.lm_head.weight.data.mul_(40)
    engine = Engine(model, processor)
    prompts = [engine.prompt(asked(task, Image.fromarray(screens[0])), 400, 409600) for task in TASKS[:2]]
    rows = engine.generate([Request(prompt, GREEDY, capture=True) for prompt in prompts])
    encoded = processed(engine, prompts)
    reference = model.generate(**encoded, max_new_tokens=10, do_sample=False)[:, encoded["input_ids"].shape[1] :]
    for prompt, row, expected in zip(prompts, rows, reference, strict=True):
        assert row.tokens.tolist() == expected[: len(row.tokens)].tolist()
        torch.testing.assert_close(engine.score(prompt, row.tokens).hidden, row.hidden, atol=1e-4, rtol=1e-4)


def test_prompts_are_encoded_as_the_processor_encodes_them(engine, requests):
    prompts = [r.prompt for r in requests]
    for some in (prompts, prompts[3:]):
        mine, its = engine._encode(some), processed(engine, some)
        assert set(its) == {*mine, "pixel_values"}
        assert all(torch.equal(mine[name], its[name]) for name in mine)
        assert torch.equal(engine._pixels([image for p in some for image in p.images]), its["pixel_values"])


def test_a_screenshot_seen_before_is_not_computed_again(engine, requests, monkeypatch):
    engine.vision.clear()
    before = engine.generate(requests)
    misses, hits = engine.vision.misses, engine.vision.hits
    made = []
    monkeypatch.setattr(engine, "_pixels", lambda images: made.append(images))
    after = engine.generate(requests)
    assert engine.vision.misses == misses and engine.vision.hits == hits + 5  # the last prompt has two
    assert not made  # nor are its pixels
    for a, b in zip(before, after, strict=True):
        assert a.tokens.tolist() == b.tokens.tolist() and torch.equal(a.hidden, b.hidden)


def test_the_vision_cache_keeps_to_its_budget(engine, requests, monkeypatch):
    whole = engine.generate(requests)
    one = engine.vision._kept[next(iter(engine.vision._kept))].nbytes
    kept, engine.vision = engine.vision, VisionCache(engine.model, 2.5 * one / 2**20)
    try:
        for _ in range(2):  # again with most of it dropped
            for request, row in zip(requests, whole, strict=True):
                assert engine.generate([request])[0].tokens.tolist() == row.tokens.tolist()
            assert len(engine.vision._kept) == 2
        assert engine.vision.misses > 5
        monkeypatch.setattr("policies.vision_cache._quarter", lambda device: 10 * one)
        for session in range(4):
            engine.enter(session)
        engine.generate(requests)
        assert len(engine.vision._kept) == len({i.tobytes() for r in requests for i in r.prompt.images})  # what they show is kept
    finally:
        for session in range(4):
            engine.leave(session)
        engine.vision = kept


HELD = """
import sys, threading, psutil, torch
from policies.engine import give_memory_back
if sys.argv[1] == "yes":
    give_memory_back()
before, kept, pins, turn = psutil.Process().memory_info().rss, [], [], threading.Lock()
def batches(number):
    with turn:
        nodes = [torch.ones(49152) for _ in range(200)]  # and what a tree holds, with one that is kept above it
        pins.append(nodes[-1])
        del nodes
    for _ in range(20):
        with turn:
            logits = torch.ones(24, 49152)
            kept.append(logits[number % 24].clone())
            del logits, kept[: len(kept) - 100]
threads = [threading.Thread(target=batches, args=(n,)) for n in range(32)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(psutil.Process().memory_info().rss - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_what_tensors_took_in_other_threads_goes_back_to_the_machine():
    held = {
        asked: int(subprocess.run([sys.executable, "-c", HELD, asked], capture_output=True, text=True, check=True).stdout)
        for asked in ("no", "yes")
    }
    assert held["yes"] < held["no"] / 4
