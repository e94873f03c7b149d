"""Emulator containers: started in parallel on free loopback ports, waited for, labelled, and never left behind.

No fixed ports, no lock between processes, and nothing that somebody else started is ever touched.
"""

from envs.containers.checks import engine_check
from envs.containers.container import Container, Probe, wait_ready
from envs.containers.engine import await_engine, build_image, connect, engine_errors, require_image
from envs.containers.fleet import ContainerSpec, Fleet
from envs.containers.housekeeping import Listing, find, gc, ls, remove_leftovers, stop
from envs.containers.once import run_once
from envs.containers.ownership import Ledger, Owner, state_dir
from envs.containers.pool import SparePool

__all__ = [
    "Container", "ContainerSpec", "Fleet", "Ledger", "Listing", "Owner", "Probe", "SparePool",
    "await_engine", "build_image", "connect", "engine_check", "engine_errors", "find", "gc", "ls",
    "remove_leftovers", "require_image", "run_once", "state_dir", "stop", "wait_ready",
]  # fmt: skip
