"""What was held for a reply goes when the reply is there, and does not wait for the collector of cycles: it sees few objects, though each
holds the keys and values of a prompt.
"""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from test_causal import save

import policies.tree_engine
from policies.causal.load import load_engine
from policies.exclusion import Exclusion
from policies.generation import Request, Search
from policies.sampling import SamplingConfig


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Weak references to every forest, tree and cache that is made."""
    made: list[Any] = []
    forest, tree, packed = policies.tree_engine.Forest, policies.tree_engine.TokenTree, policies.tree_engine.packed

    def noted(make: Any) -> Any:
        def of(*args: Any, **kwargs: Any) -> Any:
            one = make(*args, **kwargs)
            made.append(weakref.ref(one))
            return one

        return of

    for name, make in (("Forest", forest), ("TokenTree", tree), ("packed", packed)):
        monkeypatch.setattr(policies.tree_engine, name, noted(make))
    gc.collect()
    gc.disable()
    yield made
    gc.enable()


@pytest.mark.parametrize("count", [1, 3])
def test_a_reply_that_was_drawn_again_leaves_no_keys_and_values(tmp_path: Path, held: list[Any], count: int) -> None:
    engine = load_engine(str(save(tmp_path)), device="cpu")
    prompts = [engine.chat([{"role": "user", "content": text}]) for text in ("w1 w2 w3", "w4 w5", "w6 " * 20)][:count]
    never = Exclusion(lambda text: False, bool, lambda pieces: 0)
    sampling = SamplingConfig(temperature=1.0, max_new_tokens=4)
    asked = [Request(prompt, sampling, 0, capture=True, exclusion=never) for prompt in prompts]
    replies = engine.generate(asked)
    assert all(reply.redrawn for reply in replies)
    left = [engine.submit(one) for one in asked]  # in pieces, put aside between them
    found = engine.search(Search(prompts[0], lambda text: True, beams=3, max_new_tokens=3, capture=True))
    assert len(held) >= 3 * count and found.tokens.numel() and left
    assert [ref() for ref in held if ref() is not None] == []


def test_what_is_read_for_sessions_that_learn_is_there_when_they_act_again(tmp_path: Path) -> None:
    engine = load_engine(str(save(tmp_path)), device="cpu", prefix_cache_mb=0.02)  # two prompts fit
    prompts = [engine.chat([{"role": "user", "content": f"w{n} " * 30}]) for n in range(1, 5)]
    for session in range(4):
        engine.enter(session)
    engine.read(prompts[0])
    for session in range(4):
        engine.leave(session)  # all of them learn
    for prompt in prompts:
        engine.read(prompt)
    before = engine.prefixes.read
    engine.generate([Request(prompt, SamplingConfig(max_new_tokens=1)) for prompt in prompts])
    assert engine.prefixes.read - before == len(prompts)  # the last token of each


def test_a_prompt_that_is_known_is_looked_up_while_a_batch_is_answered(tmp_path: Path) -> None:
    engine = load_engine(str(save(tmp_path)), device="cpu")
    prompt = engine.chat([{"role": "user", "content": "w1 w2 w3"}])
    assert engine.read(prompt).prefill == 1
    with ThreadPoolExecutor(1) as other, engine._lock:
        assert other.submit(engine.read, prompt).result(timeout=10).prefill == 0
