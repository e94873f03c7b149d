"""The thirteen routes of upstream's server, with its habits: everything but a malformed query is 500, nothing is answered in between."""

from __future__ import annotations

from typing import Any

import fastapi
from standin.world import World

from lite import environment, tasks


def create_app(world: World) -> fastapi.FastAPI:
    """The application; its state is the environment and a suite, seed 42 with two instances of each task at first."""
    app = fastapi.FastAPI()
    env = environment.AsyncAndroidEnv(environment.Controller(world))
    registry = tasks.Registry()
    state: dict[str, Any] = {"suite": tasks.create_suite(registry.get_registry("android_world"), 2, 42)}
    _add_phone_routes(app, env)
    _add_suite_routes(app, state, registry)
    _add_task_routes(app, state, env)
    return app


def _add_phone_routes(app: fastapi.FastAPI, env: environment.AsyncAndroidEnv) -> None:
    @app.get("/health")
    async def health() -> Any:
        return {"status": "success"}

    @app.post("/reset")
    async def reset(go_home: bool) -> Any:
        env.reset(go_home)
        return {"status": "success", "message": f"Environment reset with go_home={go_home}."}

    @app.get("/screenshot")
    async def screenshot(wait_to_stabilize: bool) -> Any:
        return {"pixels": env.get_state(wait_to_stabilize).pixels.tolist()}

    @app.post("/execute_action")
    async def execute_action(action_dict: dict[str, Any]) -> Any:
        action = environment.JSONAction(**action_dict)
        env.execute_action(action)
        return {"status": "success", "message": f"Action {action} executed."}

    @app.post("/close")
    async def close() -> Any:
        env.close()
        return {"status": "success"}


def _add_suite_routes(app: fastapi.FastAPI, state: dict[str, Any], registry: tasks.Registry) -> None:
    @app.get("/suite/task_list")
    async def task_list(max_index: int) -> Any:
        names = list(state["suite"])
        return {"task_list": names[:max_index] if 0 <= max_index <= len(names) else names}

    @app.get("/suite/task_length")
    async def task_length(task_type: str) -> Any:
        return {"length": len(state["suite"][task_type])}

    @app.get("/suite/reinitialize")
    def reinitialize(n_task_combinations: int = 2, seed: int = 42, task_family: str = "android_world") -> Any:
        try:
            known = registry.get_registry(task_family)
        except ValueError:
            raise fastapi.HTTPException(400, f"Invalid task family: {task_family}") from None
        state["suite"] = tasks.create_suite(known, n_task_combinations, seed)
        made = f"n_task_combinations={n_task_combinations}, seed={seed}"
        return {"status": "success", "message": f"Task suite re-initialized with {made}."}


def _add_task_routes(app: fastapi.FastAPI, state: dict[str, Any], env: environment.AsyncAndroidEnv) -> None:
    def find(task_type: str, task_idx: int) -> Any:
        return state["suite"][task_type][task_idx]

    @app.post("/task/initialize")
    async def initialize(task_type: str, task_idx: int) -> Any:
        find(task_type, task_idx).initialize_task(env)
        return {"status": "success", "message": f"Task {task_type} {task_idx} initialized."}

    @app.post("/task/tear_down")
    async def tear_down(task_type: str, task_idx: int) -> Any:
        find(task_type, task_idx).tear_down(env)
        return {"status": "success", "message": f"Task {task_type} {task_idx} torn down."}

    @app.get("/task/score")
    async def score(task_type: str, task_idx: int) -> Any:
        return {"score": find(task_type, task_idx).is_successful(env)}

    @app.get("/task/goal")
    async def goal(task_type: str, task_idx: int) -> Any:
        return {"goal": find(task_type, task_idx).goal}

    @app.get("/task/template")
    async def template(task_type: str, task_idx: int) -> Any:
        return {"template": find(task_type, task_idx).template}
