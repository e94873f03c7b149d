"""The adapters on the head: what the hooks add and capture, row by row, and the files PEFT can read."""

from pathlib import Path

import pytest
import torch
from torch import nn

from envs.errors import PolicyError, StoreError
from policies.adapters import load_adapter
from policies.adapters.base import HeadAdapter
from policies.adapters.hidden import HiddenShift
from policies.adapters.lora import LoRAHead
from policies.head import head_hooks


def lora(r: int = 3, d: int = 16, V: int = 40, scale: float = 0.5, seed: int = 1) -> LoRAHead:
    g = torch.Generator().manual_seed(seed)
    return LoRAHead(torch.randn(r, d, generator=g), torch.randn(V, r, generator=g), scale)


@pytest.fixture
def head() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(16, 40, bias=False)


@pytest.mark.parametrize("shape", [(5, 1, 16), (5, 7, 16), (5, 16)])
def test_every_row_gets_its_own_adapter(head: nn.Linear, shape: tuple[int, ...]) -> None:
    shared, other, shift = lora(), lora(2, seed=2), HiddenShift(torch.randn(16))
    adapters: list[HeadAdapter | None] = [shared, None, shift, shared, other]
    x = torch.randn(shape)
    with torch.no_grad(), head_hooks(head, adapters, capture=False):
        batched = head(x)
    for row, adapter in enumerate(adapters):
        W, h = head.weight.detach(), x[row]
        if isinstance(adapter, LoRAHead):
            W = W + adapter.scale * adapter.B @ adapter.A
        elif isinstance(adapter, HiddenShift):
            h = h + adapter.delta
        torch.testing.assert_close(batched[row], h @ W.T, rtol=1e-5, atol=1e-5)
        with torch.no_grad(), head_hooks(head, [adapter], capture=False):
            torch.testing.assert_close(head(x[row : row + 1])[0], batched[row], rtol=1e-5, atol=1e-5)


def test_the_tap_sees_what_the_head_received_last(head: nn.Linear) -> None:
    x = torch.randn(2, 7, 16)
    with torch.no_grad(), head_hooks(head, [lora(), None], capture=True) as tap:
        head(x)
        head(x[:, :1])
    assert [tuple(h.shape) for h in tap.hidden] == [(2, 16), (2, 16)]
    assert torch.equal(tap.hidden[0], x[:, -1]) and torch.equal(tap.hidden[1], x[:, 0])


def test_hooks_leave_nothing_behind(head: nn.Linear) -> None:
    x = torch.randn(1, 16)
    plain = head(x)
    with pytest.raises(PolicyError, match="2 rows"), head_hooks(head, [lora()], capture=True):
        head(torch.randn(2, 16))
    assert torch.equal(head(x), plain)
    assert not head._forward_hooks and not head._forward_pre_hooks


def test_small_updates_survive_bf16(head: nn.Linear) -> None:
    """Logits near 100 in bf16 move in steps of 0.5: a delta of 0.05 has to reach the sampler all the same."""
    wide = nn.Linear(16, 40, bias=False).bfloat16()
    with torch.no_grad():
        wide.weight.fill_(1.0)
    x = torch.full((1, 16), 6.25).bfloat16()
    small = LoRAHead(torch.full((1, 16), 0.01), torch.linspace(-0.1, 0.1, 40)[:, None], 1.0)
    with torch.no_grad(), head_hooks(wide, [small], capture=False):
        z = wide(x)
    assert z.dtype == torch.float32
    torch.testing.assert_close(z[0] - 100, torch.linspace(-0.1, 0.1, 40), rtol=1e-3, atol=1e-4)


def test_tied_embeddings_keep_their_input_side() -> None:
    torch.manual_seed(0)
    embed, tied = nn.Embedding(40, 16), nn.Linear(16, 40, bias=False)
    tied.weight = embed.weight
    ids, before = torch.tensor([[3, 5]]), embed.weight.detach().clone()
    with torch.no_grad(), head_hooks(tied, [lora()], capture=False):
        x = embed(ids)
        z = tied(x)
    assert torch.equal(embed.weight, before) and torch.equal(x, before[ids])
    assert (z - x @ before.T).abs().max() > 0.1


@pytest.mark.parametrize("adapter", [lora(3, scale=8 / 3), lora(1, scale=8.0), HiddenShift(torch.randn(16))])
def test_save_and_load_are_exact(tmp_path: Path, adapter: HeadAdapter) -> None:
    adapter.save(tmp_path)
    back = load_adapter(tmp_path)
    assert type(back) is type(adapter)
    for name in ("A", "B", "delta", "scale"):
        value = getattr(adapter, name, None)
        assert value is None or torch.equal(torch.as_tensor(getattr(back, name)), torch.as_tensor(value))


def test_a_missing_or_torn_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no adapter"):
        load_adapter(tmp_path)
    lora().save(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(StoreError, match="cannot be read"):
        load_adapter(tmp_path)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_peft_loads_the_file_onto_the_plain_model(tmp_path: Path, tied: bool) -> None:
    from peft import PeftModel
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    torch.manual_seed(0)
    text = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text |= {"num_key_value_heads": 2, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}, "tie_word_embeddings": tied}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 32, "patch_size": 4}
    config = Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied)
    model = Qwen2VLForConditionalGeneration(config).eval()
    adapter = lora(5, 32, 64, scale=8 / 5)
    adapter.save(tmp_path)
    ids = torch.arange(12)[None] + 4
    with torch.no_grad():
        plain = model(input_ids=ids).logits
        with head_hooks(model.lm_head, [adapter], capture=False):
            ours = model(input_ids=ids).logits
        theirs = PeftModel.from_pretrained(model, str(tmp_path)).eval()(input_ids=ids).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert (ours - plain).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_a_half_precision_head_are_kept_in_float32(dtype):
    """In bf16 the 9,000 logits near 20 would be a few numbers; no two are equal here."""
    g = torch.Generator().manual_seed(0)
    head = nn.Linear(64, 9000, bias=False)
    head.weight.data = torch.randn(9000, 64, generator=g).to(dtype)
    x = torch.randn(2, 1, 64, generator=g).to(dtype)
    with head_hooks(head, [None, None], capture=False):
        logits = head(x)
    torch.testing.assert_close(logits, x.float() @ head.weight.float().T)
    assert logits.dtype == torch.float32 and len(logits[0, 0].unique()) > 8900 > len(head(x)[0, 0].unique())
