"""Text-only chat models on the shared engine: true architectures at small size, and SmolLM2 where its weights are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    Gemma2Config,
    Gemma3TextConfig,
    GraniteConfig,
    LlamaConfig,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from envs.actions import Answer, Invalid
from envs.base import TaskSpec
from envs.errors import PolicyError, UsageError
from policies.base import PastAttempt
from policies.causal.engine import TextEngine
from policies.causal.load import is_text_model, load_engine
from policies.causal.policy import CausalPolicy
from policies.causal.prefix import MB, Entry, PrefixCache, ReadAlone
from policies.causal.settings import CausalSettings, settings_of
from policies.generation import Request
from policies.registry import load_policy, needs
from policies.rosa.config import RosaConfig
from policies.sampling import SamplingConfig

WORDS = [f"w{n}" for n in range(40)] + ["<|im_start|>", "<|im_end|>", "user", "assistant", "system", "[UNK]", "\n"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|> {{ m['role'] }} \n {{ m['content'] }} <|im_end|> \n {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant \n{% endif %}"
)
SMALL = {"vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512, "eos_token_id": WORDS.index("<|im_end|>"),
         "tie_word_embeddings": True}  # fmt: skip
LATENT = {"q_lora_rank": None, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6,
          "num_key_value_heads": 4, "head_dim": 4, "first_k_dense_replace": 2}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SMALL), "qwen2": Qwen2Config(**SMALL), "qwen3": Qwen3Config(**SMALL),
    "gemma3": Gemma3TextConfig(**SMALL, sliding_window=16, layer_types=["sliding_attention", "full_attention"]),
    "capped": Gemma3TextConfig(**SMALL, layer_types=2 * ["full_attention"], final_logit_softcapping=2.0),
    "gemma2": Gemma2Config(**SMALL, sliding_window=16, final_logit_softcapping=None, attn_logit_softcapping=5.0),  # it has no sdpa
    "granite": GraniteConfig(**SMALL, logits_scaling=8.0),
    "phi": PhiConfig(**SMALL | {"tie_word_embeddings": False}),
    "deepseek3": DeepseekV3Config(**SMALL | LATENT),  # keys of another size than values, in the cache and in attention
}  # fmt: skip


def save(folder: Path, kind: str = "llama", template: str | None = TEMPLATE) -> Path:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[kind])
    model.get_input_embeddings().weight.data.mul_(30)  # far from uniform: argmax must not hang on rounding
    if model.lm_head.bias is not None:
        model.lm_head.bias.data.normal_(std=3)
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|im_end|>", pad_token="<|im_end|>", unk_token="[UNK]")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("llama"))


def task(**options) -> TaskSpec:
    return TaskSpec("agentlab/reasoning-v0", "t", 0, 1, options={"kind": "number", **options})


GREEDY = SamplingConfig(max_new_tokens=12)


@pytest.mark.parametrize("kind", CONFIGS)
def test_replies_are_those_of_transformers_whatever_is_in_the_batch_and_in_the_cache(tmp_path, kind, monkeypatch):
    engine = load_engine(str(save(tmp_path, kind)), device="cpu")
    chats = [
        [{"role": "user", "content": "w1 w2 w3"}],
        [{"role": "user", "content": "w1 w2 w3"}, {"role": "assistant", "content": "w5"}, {"role": "user", "content": "w6"}],
        [{"role": "user", "content": "w9 " * 30}],
    ]
    prompts = [engine.chat(chat) for chat in chats]
    expected = []
    for prompt in prompts:
        ids = engine.tokenizer(prompt.text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        expected.append(engine.model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :].tolist())
    alone = [engine.generate([Request(p, GREEDY, capture=True)])[0] for p in prompts]
    together = engine.generate([Request(p, GREEDY, capture=True) for p in reversed(prompts)])[::-1]
    engine.prefixes.clear()
    fresh = engine.generate([Request(p, GREEDY, capture=True) for p in prompts])
    engine.prefixes.clear()
    monkeypatch.setattr("policies.causal.prefix.PADDING", 0)  # however small the batch, long prompts are read by themselves
    in_pieces = engine.generate([Request(p, GREEDY, capture=True) for p in prompts])
    for replies in (alone, together, fresh, in_pieces):
        assert [reply.tokens.tolist() for reply in replies] == expected
        for prompt, reply in zip(prompts, replies, strict=True):
            score = engine.score(prompt, reply.tokens)
            assert torch.allclose(score.logprobs, reply.logprobs, atol=1e-4)
            assert torch.allclose(score.hidden, reply.hidden, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("phi", "float32"), ("phi", "bfloat16"), ("capped", "float32"), ("granite", "bfloat16")]
)
def test_a_model_that_does_more_than_w_h_acts_as_it_is_and_its_weights_are_not_adapted(tmp_path, kind, dtype):
    engine = load_engine(str(save(tmp_path, kind)), device="cpu", dtype=dtype)
    prompt = engine.chat([{"role": "user", "content": "w1 w2 w3"}])
    reply = engine.generate([Request(prompt, SamplingConfig(temperature=1.0, max_new_tokens=8), seed=3)])[0]
    ids = torch.cat([engine._ids(prompt), reply.tokens])[None]
    own = engine.model(ids).logits[0, -len(reply.tokens) - 1 : -1].float().log_softmax(-1).gather(1, reply.tokens[:, None])[:, 0]
    near = 1e-4 if dtype == "float32" else 0.15
    assert torch.allclose(reply.logprobs, own, atol=near) and torch.allclose(
        engine.score(prompt, reply.tokens).logprobs, own, atol=near
    )
    with pytest.raises(PolicyError, match="not W h alone"):
        engine.learner(RosaConfig(), 0)


def test_a_head_that_was_offloaded_comes_back_with_its_bias(tmp_path):
    plain = load_engine(str(save(tmp_path, "phi")), device="cpu")
    prompt = plain.chat([{"role": "user", "content": "w1 w2 w3"}])
    expected = plain.generate([Request(prompt, GREEDY)])[0]
    places = {"model": "cpu", "lm_head": "disk"}
    model = AutoModelForCausalLM.from_pretrained(tmp_path, device_map=places, offload_folder=tmp_path / "disk")
    assert model.lm_head.bias.is_meta
    engine = TextEngine(model.eval(), plain.tokenizer)
    reply = engine.generate([Request(prompt, GREEDY)])[0]
    assert torch.equal(reply.tokens, expected.tokens) and torch.allclose(reply.logprobs, expected.logprobs, atol=1e-4)
    assert torch.allclose(engine.score(prompt, reply.tokens).logprobs, reply.logprobs, atol=1e-4)


def test_what_prompts_begin_with_alike_is_read_once(folder):
    engine = load_engine(str(folder), device="cpu")
    first = [{"role": "user", "content": "w1 " * 50}]
    engine.generate([Request(engine.chat(first), GREEDY)])
    read = engine.prefixes.read
    reply = engine.generate([Request(engine.chat(first), GREEDY)])[0]
    assert engine.prefixes.read == read + 1  # the last token: its logits are wanted
    longer = [*first, {"role": "assistant", "content": reply.text}, {"role": "user", "content": "w2"}]
    engine.generate([Request(engine.chat(longer), GREEDY)])
    assert engine.prefixes.read < read + 40 and engine.prefixes.reused > 100
    none = load_engine(str(folder), device="cpu", prefix_cache_mb=0)
    again = none.generate([Request(none.chat(first), GREEDY)])[0]
    assert again.tokens.tolist() == reply.tokens.tolist() and none.prefixes.reused == 0


def test_replies_to_one_prompt_are_scored_after_one_reading_of_it_with_the_same_digits_as_alone(folder, monkeypatch):
    engine, fresh = (load_engine(str(folder), device="cpu") for _ in range(2))
    computed: list[int] = []
    forward = engine.model.model.forward
    monkeypatch.setattr(engine.model.model, "forward", lambda *a, **k: computed.append(k["input_ids"].numel()) or forward(*a, **k))
    prompts = [engine.chat([{"role": "user", "content": f"w{n} " * 60}]) for n in (1, 2)]
    replies = [torch.tensor([3, 4, 41]), torch.tensor([7, 41]), torch.tensor([9, 2, 5, 41])]
    engine.generate([Request(prompts[0], GREEDY)])  # what others have read has no say in the digits
    computed.clear()
    scores = [engine.score(prompt, reply) for reply in replies for prompt in prompts]
    assert sum(computed) < 2 * 70 + 2 * sum(len(reply) for reply in replies)
    for score, (reply, prompt) in zip(scores, [(r, p) for r in replies for p in prompts], strict=True):
        fresh._make_room()
        alone = fresh.score(prompt, reply)
        assert torch.equal(score.hidden, alone.hidden) and torch.equal(score.logprobs, alone.logprobs)
    whole = load_engine(str(folder), device="cpu", prefix_cache_mb=0).score(prompts[0], replies[0])
    monkeypatch.setattr("policies.causal.engine.LONGEST_KEPT", 10)
    assert torch.equal(fresh.score(prompts[0], replies[0]).hidden, engine.score(prompts[0], replies[0]).hidden)  # neither kept
    assert torch.allclose(whole.logprobs, scores[0].logprobs, atol=1e-4)


def test_the_last_prompts_read_by_themselves_are_kept_within_their_memory():
    read: list[int] = []

    def entry(tokens):
        read.append(int(tokens[0]))
        return Entry(tokens, torch.zeros(1, 1, 3, 64), torch.zeros(1, 1, 3, 64))

    kept = ReadAlone(2 * (2 * 3 * 64 * 4) / MB)
    for n in (1, 1, 2, 1, 3, 1, 2):
        kept.of(torch.tensor([n, 0, 0]), entry)
    assert read == [1, 2, 3, 2]


def test_the_prompts_of_sessions_in_flight_stay():
    def prompt(n):
        return torch.tensor([n, n + 1, n + 2]), torch.zeros(1, 1, 3, 64), torch.zeros(1, 1, 3, 64)

    size = 2 * 3 * 64 * 4
    for in_flight, kept in ((0, 2), (1, 2), (5, 5), (100, 8)):
        cache = PrefixCache(2 * size / MB)
        for n in range(20):
            cache.add(*prompt(10 * n), in_flight=in_flight)
        there = [n for n in range(20) if cache.match(torch.tensor([10 * n, 10 * n + 1, 10 * n + 2, 0]))[1] == 3]
        assert there == list(range(20 - kept, 20))


def test_one_new_question_costs_its_own_tokens_whoever_else_is_in_the_batch(folder):
    engine = load_engine(str(folder), device="cpu")
    asked = [engine.chat([{"role": "user", "content": f"w{n} " * 60}]) for n in range(1, 9)]
    engine.generate([Request(prompt, GREEDY) for prompt in asked[1:]])
    computed: list[int] = []
    hook = engine.model.get_input_embeddings().register_forward_hook(lambda _, args, __: computed.append(args[0].numel()))
    engine.generate([Request(prompt, SamplingConfig(max_new_tokens=1)) for prompt in asked])
    hook.remove()
    assert sum(computed) <= len(engine._ids(asked[0])) + len(asked)  # the new one, and everybody's last token


def test_fresh_conversation_and_guidance_make_the_prompts_of_algorithm_1(folder):
    policy = load_policy(str(folder), sampling=GREEDY, device="cpu", system="w0", shots=1, instruct=False)
    session = policy.open(task(examples=[["w1", "w2"], ["w3", "w4"]]), seed=0)
    session.begin("w5")
    shown = [{"role": "system", "content": "w0"}, {"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2"}]
    assert session.messages("w5") == [*shown, {"role": "user", "content": "w5"}]
    session.begin("w5", guidance="w6", attempt=2)
    assert session.messages("w5")[-1]["content"] == "w5\n\nKeep in mind:\nw6"
    past = [PastAttempt("", (({"text": "w5"}, "w7"),), "w8"), PastAttempt("w9", (({"text": "w5"}, "w10"),), "w11")]
    session.converse(past)
    session.begin("w5", guidance="", attempt=3)
    assert [m["content"] for m in session.messages("w5")[3:]] == ["w5", "w7", "w9", "w10", "w11"]  # x*, where words were learned
    session.converse(past[:1])
    session.begin("w5", guidance="w9", attempt=2)
    assert [m["content"] for m in session.messages("w5")[3:]] == ["w5", "w7", "w9"]
    instructed = CausalPolicy("x", policy.engine, CausalSettings(), GREEDY).open(task(), seed=0)
    instructed.begin("w5")
    assert "boxed" in instructed.messages("w5")[-1]["content"]


@pytest.mark.parametrize("target", ["token", "reply", "episode"])
def test_an_update_moves_the_answer_and_leaves_the_end_of_the_reply_alone(folder, target):
    policy = load_policy(str(folder), sampling=SamplingConfig(max_new_tokens=30), device="cpu", instruct=False)
    session = policy.open(task(), seed=0, adapt=RosaConfig(tokens="all", target=target))
    session.begin("w1 w2")
    session.relive([({"text": ""}, "w3 w4 w5")], [[3, 4, 5, WORDS.index("<|im_end|>")]])
    update = session.adapt([-1.0])
    assert update is not None and update.accepted
    [reply] = update.replies
    assert len(reply.before) == 4 == len(reply.pieces)
    assert sum(reply.after[:-1]) < sum(reply.before[:-1]) - 0.1
    assert abs(reply.after[-1] - reply.before[-1]) < 0.5 * abs(sum(reply.after[:-1]) - sum(reply.before[:-1]))
    session.close()


def test_a_session_goes_on_from_what_another_captured(folder):
    policy = load_policy(str(folder), sampling=SamplingConfig(max_new_tokens=30), device="cpu", instruct=False)
    acted, resumed = (policy.open(task(), seed=0, adapt=RosaConfig(tokens="all")) for _ in range(2))
    for session in (acted, resumed):
        session.begin("w1 w2")
    decision = acted.act({"text": ""})
    resumed.resume([({"text": ""}, decision.text)], acted.captured())
    first, second = acted.adapt([-1.0]), resumed.adapt([-1.0])
    assert first is not None and second is not None and first.replies == second.replies
    assert torch.equal(acted.learner.adapter.B, resumed.learner.adapter.B)


def test_the_same_reply_again_from_a_saved_adapter(folder, tmp_path):
    policy = load_policy(str(folder), sampling=GREEDY, device="cpu", instruct=False)
    session = policy.open(task(), seed=0, adapt=RosaConfig(tokens="all"))
    session.begin("w1 w2")
    first = session.act({"text": ""})
    session.adapt([-1.0])
    assert session.save_adapter(tmp_path)
    session.begin("w1 w2", attempt=2)
    second = session.act({"text": ""})
    other = policy.open(task(), seed=0, adapt=RosaConfig(tokens="all"))
    other.load_adapter(tmp_path)
    other.begin("w1 w2", attempt=2)
    assert other.act({"text": ""}).token_ids == second.token_ids
    relived = policy.open(task(), seed=0, adapt=RosaConfig(tokens="all"))
    relived.begin("w1 w2")
    assert relived.relive([({"text": ""}, first.text)], [first.token_ids]) == pytest.approx([first.logprob], abs=1e-3)
    assert [d.token_ids for d in relived.propose()] == [first.token_ids]


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (TEMPLATE, "<|im_end|>"),
        (TEMPLATE.replace("<|im_end|>", "w38"), "w39"),
        (None, "w39"),
        ("{{ raise_exception('no') }}", "w39"),
    ],
)
def test_a_text_without_token_ids_ends_as_the_template_ends_a_turn(folder, template, end):
    """As Gemma's and Phi-3's do, this model's turns end with another token than its tokenizer's own."""
    engine = load_engine(str(folder), device="cpu")
    engine.tokenizer.eos_token, engine.stop_ids = "w39", frozenset({WORDS.index("w39"), WORDS.index("<|im_end|>")})
    engine.tokenizer.chat_template = template
    assert engine.tokens("w1 w2").tolist() == [1, 2, WORDS.index(end)]
    if template == TEMPLATE:
        session = CausalPolicy("x", engine, CausalSettings(), GREEDY).open(task(), seed=0)
        scores = []
        for ids in ([], [1, 2, WORDS.index(end)]):
            session.begin("w1")
            scores += session.relive([({"text": ""}, "w1 w2")], [ids])
        assert scores[0] == scores[1]


def test_cut_off_and_empty_replies_are_no_answers(folder):
    policy = load_policy(str(folder), sampling=SamplingConfig(max_new_tokens=1), device="cpu", instruct=False)
    session = policy.open(task(), seed=0)
    session.begin("w1")
    [action] = session.act({"text": ""}).actions
    assert isinstance(action, Invalid | Answer)
    if isinstance(action, Invalid):
        assert "had not ended after 1 tokens" in action.reason or "empty" in action.reason


def test_no_repeat_draws_until_an_answer_is_new(folder):
    policy = load_policy(str(folder), sampling=SamplingConfig(max_new_tokens=6, no_repeat=True), device="cpu", instruct=False)
    session = policy.open(task(), seed=0)
    said = []
    for attempt in range(1, 4):
        session.begin("w1 w2", attempt=attempt)
        said.append(session.act({"text": ""}))
    answers = [d.actions[0].text for d in said if isinstance(d.actions[0], Answer)]
    assert len(set(answers)) == len(answers)


def test_which_models_are_text_models(folder, tmp_path):
    assert is_text_model("smollm2-135m") and is_text_model("qwen3-8b") and is_text_model(str(folder))
    assert not is_text_model("ui-tars-nano") and not is_text_model(str(tmp_path)) and not is_text_model("no such policy")
    assert needs(str(folder)) == {"text"}
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Qwen2VLForConditionalGeneration"]}))
    assert not is_text_model(str(tmp_path))


def test_errors_say_what_to_do(folder, tmp_path):
    with pytest.raises(UsageError, match="shots"):
        settings_of("smollm2-135m", {"shot": 3})
    with pytest.raises(UsageError, match="dtype"):
        load_engine(str(folder), dtype="float99")
    with pytest.raises(PolicyError, match="chat template"):
        load_engine(str(save(tmp_path / "base", template=None)), device="cpu")
