"""A lock whose waiters get it in the order in which they came."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from policies.turns import Turns


def test_who_comes_again_waits_for_who_waits_already() -> None:
    turns, order, go_on = Turns(), list[str](), threading.Event()

    def again_and_again() -> None:
        while not go_on.is_set():
            with turns:
                order.append("again")
                time.sleep(0.005)

    def once() -> None:
        with turns:
            order.append("once")

    busy = threading.Thread(target=again_and_again)
    busy.start()
    for _ in range(20):  # an ordinary lock gives most of them their turn only after many more of the other's
        waiting = threading.Thread(target=once)
        waiting.start()
        before = order.count("again")
        waiting.join(10)
        assert order.count("again") - before <= 3
    go_on.set()
    busy.join()
    assert order.count("once") == 20


def test_one_at_a_time() -> None:
    turns, inside, most = Turns(), 0, 0

    def some() -> None:
        nonlocal inside, most
        for _ in range(200):
            with turns:
                inside += 1
                most = max(most, inside)
                time.sleep(0)
                inside -= 1

    threads = [threading.Thread(target=some) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_an_error_inside_lets_the_next_one_in() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="inside"), turns:
        raise ValueError("inside")
    with turns:
        pass


INTERRUPTED = """
import signal, threading
from policies.turns import Turns
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
turns, held, done = Turns(), threading.Event(), threading.Event()
def hold():
    with turns:
        held.set()
        done.wait(60)
holder = threading.Thread(target=hold)
holder.start()
held.wait(60)
main = threading.main_thread().ident
threading.Timer(0.1, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
try:
    with turns:
        print("not free, and entered")
except KeyboardInterrupt:
    print("interrupted")
done.set()
holder.join()
with turns:  # nobody waits for who was interrupted
    print("free")
"""


def test_who_is_interrupted_while_waiting_is_not_waited_for() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["interrupted", "free"]
