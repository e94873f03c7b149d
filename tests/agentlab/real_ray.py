"""A real Ray of several nodes on this machine, for tests and benchmarks; each node is a raylet of its own, with a ledger of its own.

Ray's limits of start are for idle machines: all that can be told are raised here, and one that cannot (a node gives the helper that serves
its metrics 15 seconds to write down its port) is met by writing down the port that the helper was told to take.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from pathlib import Path

PATIENT = {
    "RAY_raylet_start_wait_time_s": "600", "RAY_gcs_server_port_wait_time_s": "600", "RAY_agent_register_timeout_ms": "600000",
    "RAY_worker_register_timeout_seconds": "600", "RAY_USAGE_STATS_ENABLED": "0", "RAY_gcs_rpc_server_connect_timeout_s": "600",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600", "RAY_health_check_timeout_ms": "60000",
}  # fmt: skip
PORTS = {
    "metrics_agent_port": "metrics_agent_port", "metrics_export_port": "metrics_export_port",
    "dashboard_agent_listen_port": "dashboard_agent_listen_port", "runtime_env_agent_port": "runtime_env_agent_port",
}  # fmt: skip
"""Parameter -> beginning of the file in which its value is written down."""
STORE_BYTES = 80 * 2**20


class RealRay:
    """A cluster whose head has room for nothing and that every node can be taken away from.

    Args:
        folder: For the nodes' state (the ledger of their containers).
        path: Of modules that nodes must find, in the form of PYTHONPATH.
    """

    def __init__(self, folder: Path, path: str = "") -> None:
        os.environ.update(PATIENT | ({"PYTHONPATH": path} if path else {}))
        from ray.cluster_utils import Cluster

        self.folder = folder
        self._nodes: dict[str, object] = {}
        head = self._parameters("head")
        with _Ports(head):
            self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **head})
        self.address: str = self._cluster.address
        os.environ["RAY_ADDRESS"] = self.address

    def add(self, name: str, resources: dict[str, float], cpus: float = 1.0) -> None:
        """Start a node; its processes have its name in ``PLACED_NODE``."""
        parameters = self._parameters(name)
        with _Ports(parameters):
            self._nodes[name] = self._cluster.add_node(num_cpus=cpus, resources=resources, wait=False, **parameters)

    def wait(self) -> None:
        """Until all nodes are known to the cluster."""
        self._cluster.wait_for_nodes(timeout=600)

    def kill(self, name: str) -> None:
        """As if its machine lost its power: the node's processes are killed."""
        self._cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def names(self) -> list[str]:
        """The nodes that were not killed."""
        return list(self._nodes)

    def close(self) -> None:
        self._cluster.shutdown()
        os.environ.pop("RAY_ADDRESS", None)

    def _parameters(self, name: str) -> dict:
        own = {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": secrets.token_hex(28), "PLACED_NODE": name}
        own["AGENTLAB_STATE"] = str(self.folder / name)
        return {"env_vars": own, "object_store_memory": STORE_BYTES, "include_log_monitor": False, **{p: _free() for p in PORTS}}


class _Ports:
    """While it is open, the ports of a node that starts are written down as soon as there is a place for them."""

    def __init__(self, parameters: dict) -> None:
        self._parameters, self._done = parameters, threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _write(self) -> None:
        node = self._parameters["env_vars"]["RAY_OVERRIDE_NODE_ID_FOR_TESTING"]
        while not self._done.wait(0.05):
            for session in Path("/tmp/ray").glob(f"session_*_{os.getpid()}"):
                for parameter, file in PORTS.items():
                    path = session / f"{file}_{node}"
                    if not path.exists():
                        path.write_text(str(self._parameters[parameter]))


def _free() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


if __name__ == "__main__":  # a cluster to play with: python tests/agentlab/real_ray.py NODES SECONDS
    import sys
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        ray = RealRay(Path(folder), os.environ.get("PYTHONPATH", ""))
        print(f"head after {time.time() - began:.0f} s at {ray.address}", flush=True)
        for n in range(int(sys.argv[1])):
            ray.add(f"node-{n + 1}", {"desktops": 1, "browsers": 1})
            print(f"node {n + 1} after {time.time() - began:.0f} s", flush=True)
        ray.wait()
        print(f"up after {time.time() - began:.0f} s", flush=True)
        time.sleep(float(sys.argv[2]))
        ray.close()
