"""The chat policy against a local server that answers what the test tells it to."""

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from envs import actions as act
from envs.base import TaskSpec
from envs.errors import InfrastructureError, PolicyError, SetupError, UsageError
from policies.families.registry import recipes
from policies.registry import load_policy
from policies.sampling import SamplingConfig

TASK = TaskSpec("agentlab/osworld-v0", "t", 0, max_steps=3)
SCREEN = {"screenshot": np.zeros((1080, 1920, 3), dtype=np.uint8)}


def completion(text, finish="stop"):
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
    return 200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


@pytest.fixture
def server(monkeypatch):
    """An endpoint that gives ``answers`` one after the other and keeps the ``requests`` it got."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            httpd.requests.append((self.path, self.headers["Authorization"], body))
            status, answer = httpd.answers.pop(0)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    monkeypatch.setenv("KEY_OF_THE_TEST", "sk-of-the-test")
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.answers, httpd.requests = [], []
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()
    thread.join(10)


def policy(server, **options):
    base = f"http://127.0.0.1:{server.server_port}/v1"
    defaults = {"base_url": base, "api_key_env": "KEY_OF_THE_TEST", "max_wait_s": 0.0, "tries": 3}
    name = options.pop("model", "ui-tars-1.5-7b")
    return load_policy(f"openai:{name}", sampling=SamplingConfig(temperature=0.5, max_new_tokens=99), **{**defaults, **options})


def opened(server, **options):
    session = policy(server, **options).open(TASK, seed=1)
    session.begin("Do it", guidance="Carefully.")
    return session


def test_requests_and_replies(server):
    server.answers = [completion("Thought: go\nAction: click(start_box='(966,546)')"), completion("Action: finished()")]
    session = opened(server)
    decision = session.act(SCREEN)
    assert decision.actions == (act.Click(960.0, 540.0),)  # pixels of the 1932 x 1092 image it was sent, on a 1920 x 1080 screen
    assert (decision.thought, decision.tokens, decision.logprob) == ("go", 7, None)
    assert session.act(SCREEN).actions == (act.Finished(),)
    path, key, body = server.requests[1]
    assert (path, key) == ("/v1/chat/completions", "Bearer sk-of-the-test")
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("ui-tars-1.5-7b", 0.5, 99)
    assert [m["role"] for m in body["messages"]] == ["system", "user", "user", "assistant", "user"]
    assert "Do it\n\n```guidance\nCarefully.\n```" in body["messages"][1]["content"]
    url = body["messages"][-1]["content"][0]["image_url"]["url"]
    assert Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,")))).size == (1932, 1092)


@pytest.mark.parametrize(
    ("model", "options", "reply"),
    [
        ("ui-tars-7b-dpo", {}, "Action: click(start_box='(500,500)')"),
        ("ByteDance-Seed/UI-TARS-1.5-7B", {}, "Action: click(start_box='(966,546)')"),
        ("doubao-1-5-ui-tars-250428", {}, "Action: click(point='<point>500 500</point>')"),
        ("my-model", {"family": "ui-tars-1"}, "Action: click(start_box='(500,500)')"),
        ("EvoCUA-32B-20260105", {}, '<tool_call>{"name": "computer_use", "arguments": {"action": "click", "coordinate": [499.5, 499.5]}}'),
        ("opencua-7b", {}, "## Code:\n```python\npyautogui.click(x=966, y=546)\n```"),
        ("Fara-7B", {}, '<tool_call>\n{"name": "computer_use", "arguments": {"action": "left_click", "coordinate": [966, 546]}}'),
    ],
)  # fmt: skip
def test_the_middle_of_the_screen_in_every_familys_own_coordinates(server, model, options, reply):
    server.answers = [completion(reply)]
    assert opened(server, model=model, **options).act(SCREEN).actions == (act.Click(960.0, 540.0),)


@pytest.mark.parametrize("model", ["gpt-5", "tars", "qwen2.5-vl-7b-instruct", "holo1.5-7b", "holo3-1-35b-a3b", "gta1-7b"])
def test_a_model_of_no_known_family_is_refused_with_the_list(server, model):
    with pytest.raises(UsageError, match=model) as caught:
        policy(server, model=model)
    assert "ui-tars-1.5" in caught.value.hint and "model.family" in caught.value.hint


@pytest.mark.parametrize(("finish", "kind"), [("stop", act.Click), ("length", act.Invalid)])
def test_a_reply_that_an_endpoint_cut_off_is_not_mended(server, finish, kind):
    server.answers = [completion("## Code:\n```python\npyautogui.click(x=500, y=3", finish)]
    assert isinstance(opened(server, model="opencua-7b").act(SCREEN).actions[0], kind)


def test_a_busy_endpoint_is_asked_again(server):
    server.answers = [(503, {}), (429, {}), completion("Action: wait()")]
    assert opened(server).act(SCREEN).actions == (act.Wait(),)
    assert len(server.requests) == 3


def test_an_endpoint_that_stays_down_voids_the_attempt(server):
    server.answers = [(500, {})] * 5
    with pytest.raises(InfrastructureError) as caught:
        opened(server).act(SCREEN)
    assert caught.value.component == "endpoint"
    assert len(server.requests) == 3


@pytest.mark.parametrize("answer", [b"{not json", b"<html>", b"[1]", {"choices": []}, {"choices": [{"message": None}]}], ids=str)
def test_a_reply_that_is_none_is_the_endpoints_failure(server, answer):
    server.answers = [(200, answer), completion("Action: wait()")]
    assert opened(server).act(SCREEN).actions == (act.Wait(),)
    server.answers = [(200, answer)] * 3
    with pytest.raises(InfrastructureError, match="not a chat completion"):
        opened(server).act(SCREEN)


def test_nobody_listens():
    session = load_policy("openai:m", family="ui-tars-1", base_url="http://127.0.0.1:9/v1", tries=2, max_wait_s=0.0).open(
        TASK, seed=0
    )
    session.begin("x")
    with pytest.raises(InfrastructureError):
        session.act(SCREEN)


def test_a_refused_request_is_not_repeated(server):
    server.answers = [(401, {"error": {"message": "bad key"}})]
    with pytest.raises(PolicyError, match="bad key"):
        opened(server).act(SCREEN)
    assert len(server.requests) == 1


def test_weights_are_out_of_reach(server):
    from synthetic import weights_of

    with pytest.raises(UsageError, match="out of reach"):
        policy(server).open(TASK, seed=0, adapt=weights_of("rosa"))
    assert not policy(server).adaptable


def test_bad_options(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(SetupError, match="key"):
        load_policy("openai:ui-tars-7b-dpo")
    with pytest.raises(UsageError, match="name of a model"):
        load_policy("openai:")
    with pytest.raises(UsageError, match="timeout"):
        policy(server, timeout=3)
    with pytest.raises(UsageError, match="api_key_env"):
        policy(server, api_key="sk-written-down")


def test_a_reply_that_is_no_action_is_asked_for_again_as_often_and_as_warm_as_the_user_says(server):
    server.answers = [
        completion("I do not know."),
        completion("Hm."),
        completion("Action: finished()"),
        completion("I do not know."),
    ]
    session = opened(server, reask=2, reask_temperature=0.9)
    decision = session.act(SCREEN)
    assert decision.actions == (act.Finished(),) and (decision.redrawn, decision.redrawn_unparsable, decision.tokens) == (2, 2, 21)
    assert [body["temperature"] for _, _, body in server.requests] == [0.5, 0.9, 0.9]
    assert len({body["seed"] for _, _, body in server.requests}) == 3 and session.history[0][1] == "Action: finished()"
    (invalid,) = opened(server).act(SCREEN).actions  # by itself it is not asked again
    assert isinstance(invalid, act.Invalid)


def test_recipes_ask_again_as_the_official_runners_do():
    again = {name: recipe.model for name, recipe in recipes().items() if "reask" in recipe.model}
    assert again["ui-tars-1.5-7b@osworld"] == {"reask": 2, "reask_temperature": 1.0}
    assert again["openai:opencua-7b@osworld-verified"] == {"reask": 4, "reask_temperature": 0.2}


def test_fara_1_5_is_asked_not_to_think_first(server):
    server.answers = [completion('Hm.\n<tool_call>\n{"name": "computer_use", "arguments": {"action": "wait"}}\n</tool_call>')]
    opened(server, model="Fara1.5-9B").act(SCREEN)
    ((_, _, body),) = server.requests
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert body["messages"][0]["content"].startswith("You are Fara, a computer use agent")
