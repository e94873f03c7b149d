"""What a server of vLLM's is started with, and what is said if it does not start."""

from __future__ import annotations

import psutil
import pytest

from policies.registry import bundled_checkpoint
from policies.served.process import cause_of, cpu_memory, sees_tinted

LOG = """\
(APIServer pid=7) INFO 11-30 11:57:10 [entry.py:1] Error-free so far
(Worker pid=9) ERROR 11-30 11:57:32 [executor.py:953] WorkerProc failed to start.
(Worker pid=9) ERROR 11-30 11:57:32 [executor.py:953]     raise ValueError(
(Worker pid=9) ERROR 11-30 11:57:32 [executor.py:953] ValueError: Available memory on node 0 is less than desired.
Traceback (most recent call last):
Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.
    raise RuntimeError(
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


def test_the_cause_is_said_and_not_that_there_was_one():
    assert cause_of(LOG) == "ValueError: Available memory on node 0 is less than desired."
    assert cause_of("x\ntorch.OutOfMemoryError: CUDA out of memory.\n") == "torch.OutOfMemoryError: CUDA out of memory."
    assert cause_of("all is well") == ""


@pytest.mark.parametrize(
    "extra", [["--gpu-memory-utilization", "0.3"], ["--kv_cache_memory_bytes=1000000"], ["--kv-cache-memory=1G"]]
)
def test_what_the_user_says_of_memory_holds(extra):
    assert cpu_memory(extra) == []


def test_a_server_on_a_cpu_takes_a_part_of_what_is_free(monkeypatch):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    name, size = cpu_memory(["--max-num-seqs", "4"])
    assert name == "--kv-cache-memory-bytes" and 0 < int(size) < psutil.virtual_memory().total / 2
    for several in (["--data-parallel-size", "4"], ["--data_parallel_size=4"]):
        assert 0.2 < int(cpu_memory(several)[1]) / int(size) < 0.3  # all copies together take no more
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "4")
    assert cpu_memory([]) == []


def test_the_bundled_policys_pictures_are_left_to_its_own_processor(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "Qwen2VLImageProcessor"}')
    assert sees_tinted(str(bundled_checkpoint()))
    assert not sees_tinted(str(tmp_path)) and not sees_tinted("ByteDance-Seed/UI-TARS-7B-DPO")
