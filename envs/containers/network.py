"""The network of our containers: a way out, and none to each other.

A guest's server runs any command for whoever asks it, and what an agent does in one desktop must not reach another.
"""

from __future__ import annotations

import logging
import threading

import docker

from envs.containers.engine import engine_errors
from envs.containers.ownership import PREFIX

logger = logging.getLogger(__name__)

NAME = "agentlab-guests"
APART = {"com.docker.network.bridge.enable_icc": "false"}
"""Packets from one container of this bridge to another are dropped.  Ports published on the loopback interface, and the internet, are
reached all the same."""


_making = threading.Lock()


def ensure_network(client: docker.DockerClient) -> str:
    """The id of the network, which all runs of an engine share; created if missing.

    Its name is not enough: Docker lets two processes make one of the same name at the same time, and takes neither after that.
    """
    with _making, engine_errors("make a network for its guests"):
        if not (found := _found(client)):
            client.networks.create(NAME, driver="bridge", options=APART, labels={f"{PREFIX}network": "guests"})
            found = _found(client)
            if client.info().get("BridgeNfIptables") is False:
                logger.warning(
                    "This engine cannot keep containers apart: guests can reach each other until `modprobe br_netfilter`."
                )
        return found[0]


def _found(client: docker.DockerClient) -> list[str]:
    """Ids of ours, the oldest first."""
    ours = [network for network in client.networks.list(names=[NAME]) if network.name == NAME]
    return [str(network.id) for network in sorted(ours, key=lambda network: (network.attrs["Created"], network.id))]
