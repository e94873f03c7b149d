"""What every family is asked equals the official text and the official order, byte for byte.

``TEXTS`` are the SHA-256 of the texts in the official repositories (named in each family's ``sources``), with only the places that a
program fills in left open.  ``CONVERSATIONS`` are the SHA-256 of whole conversations that the official agents' own code built for the
history below: the text of every message, the place of every screenshot.
"""

import hashlib
import json
from pathlib import Path

import pytest

import policies.families
from policies.families.base import Turn
from policies.families.registry import families

TEXTS = {
    "evocua/s2_computer.txt": "708ec379c991d5e982a043d7463cea630ffe0dcd74ed311dcf25a407e848cfea",
    "fara/computer.txt": "99900081f6a4ed8b449e8308dbc0a0893d4bac089f003438747109fdef76bf1f",
    "fara/v15_computer.txt": "74c9b10b72cc7aba1ff989cdf7bd039abddedc926d34216151426b1de1497751",
    "gui_owl/v15_computer.txt": "a4253555747365f4e15de842d400247132f4d0c2601416212483b0354aedbd1b",
    "gui_owl/v15_mobile.txt": "a7b494381939614cb2e463b9380631bb249c79fd712e2cac5f1327b1a3faaa99",
    "gui_owl/v1_computer.txt": "b33214fa6453b46a6612d1f671e2edf81966da67cc98562596dc4d403e00598d",
    "gui_owl/v1_mobile.txt": "cc309d4eba3ec3739ec0f1f3e89912dc3be99e0168b46880b3a1d0d221147348",
    "mai_ui/mobile.txt": "86b907c1e936b8c92bde65e943d31a5f92379209b2ce4f31d5f3ceadd1a3edf2",
    "opencua/v1_computer.txt": "e2f338f604aef084f19a56f5618048f05f65b9dc2a4af5a03249ea9015781032",
    "opencua/v2_computer.txt": "b311f22e60b52b009a58956a85bcfa2b00619b3e869284994ff9e072f9f8632c",
    "qwen3_vl/computer.txt": "f0aa74a3eb2b6a2f3caf83882e2e07c62b5087835adff04f9c7b6c4c2621795b",
    "qwen3_vl/mobile.txt": "9d060af15f62acb31b9fb197649ec001d4096491d7fb102de929316944b3e26d",
    "ui_tars/doubao_computer.txt": "0fd4d14c3890f672de26132b5a8dccf602f413a6187e92b9b182333c7e6bd49b",
    "ui_tars/doubao_mobile.txt": "4c6da47a4608edb035dbbf35a6562fc9d18afdd41aeb374089e30ac4d0a6c47f",
    "ui_tars/v15_computer.txt": "712a055fb0a304768a86ba8da592a97c9ed758e281e34991229341bf50d3e622",
    "ui_tars/v15_mobile.txt": "2367ade469667c65cc6c7f2a85cab969a2a6192ccc0bd5bda24a88253832c6e7",
    "ui_tars/v15_readme_computer.txt": "5363caa4e115ab3da862dd7a0cf8bf2859c7611ac8551e0336901bb0776ddd34",
    "ui_tars/v1_computer.txt": "e8d593a36f24ce7b6b4636ad5f0ce83219e0ce7bd16cccc928d04c614ce205c8",
    "ui_tars/v1_mobile.txt": "362f2d5717fa9387ee951629f27ef685a245cfa082cb5d7d4b73570d19de59c2",
}

CONVERSATIONS = {
    "ui-tars-1/computer": "8261404c3059533c6f140df50c09f1714ce12db362a32b0d519a608068c38191",
    "ui-tars-1.5/computer": "d7d43aa464b469e77efd257c099cb2bc1944a69e933ae2201eff3c0ae8956bfb",
    "evocua/computer": "c7d7ead89a79988e5728ef5f4504416538870810ac9587354d39e44036b3970e",
    "evocua/computer/0": "457ed2df5e214c8ab4f954338a9828aae044a8c98b765100fbf97a9864767deb",
    "evocua-s1/computer": "038e2e545a0f6fe2122a3a60fc22c00cce44d88da01f7fa14b1e144add458e0f",
    "qwen3-vl/computer": "b5575cdb011143187849043cfa577b0dc0cb857e5d57f69984a757684d91e3da",
    "qwen3-vl/mobile": "38c90d823eda99ed3caf50decc923cc2046e6597ac270d6052763bd0f6d041c6",
    "gui-owl-1.5/computer": "64c13e21f8012403bce371c9e9db9755aa7abf2a49ed17a6c1590e6b5edbfbd1",
    "gui-owl-1.5/mobile/2": "69111d9d2b2ed0699260b1050362edb7a9e25b932a6e728838641f72d3e941aa",
    "gui-owl-1.5/mobile": "2e9940fd58acd17eb6f0cca8d1c8faa60f524ccc8d78932dbbbd61c40407aa2e",
    "gui-owl/computer": "433af4808acc968950d00b322ff1aca04b2c8bb85efdcce4ec69c7007182e806",
    "gui-owl/mobile": "2042d621d33aeb10256c41e8dc43c2e9b0ab0a9e94b511fc9d9cc0a731eff094",
    "fara/computer": "e4691b70ebf7647b27bd219e09874fcee1cadb8cb8cc3f8abf281f6d240c0db8",
    "fara-1.5/computer": "7ee676dade34bff30b1dc56265dd5fe66fae3d0d9b75f5e0e23410af58bec89a",
    "mai-ui/mobile": "c7752f667b51a7a05e91962521cdbec66c96bbd3c139f3df73dee5f8d45d0b79",
    "opencua/computer": "038e2e545a0f6fe2122a3a60fc22c00cce44d88da01f7fa14b1e144add458e0f",
    **dict.fromkeys(
        ("opencua-v1/computer", "opencua-relative/computer"), "49c7c36b9f4c449259d4200d6c35bf3a68dc330755012e4496c4e19dddfe5b0d"
    ),
    "ui-venus-1.5/mobile": "76029286c2e080aae0e6efdd58c415300c62b35a2e42dce3d0a34e8dc6cae954",
}

INSTRUCTION = 'Rename the folder "A b" to C, then {close} it.'


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name):
    path = Path(policies.families.__file__).parent / name
    assert hashlib.sha256(path.read_bytes()).hexdigest() == TEXTS[name]


def test_no_text_is_without_a_digest():
    folder = Path(policies.families.__file__).parent
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.txt")} == set(TEXTS)


def call(name, i, action="left_click"):
    arguments = f'{{"action": "{action}", "coordinate": [{100 + i}, {200 + i}]}}'
    return f'Action: Press button {i}.\n<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def computer(i):
    return call("computer_use", i)


def mobile(i):
    return call("mobile_use", i, "click")


def code(i):
    return (
        f"# Step {i + 1}:\n## Thought:\nI think {i}.\nMore.\n\n## Action:\nClick item {i}.\n\n"
        f"## Code:\n```python\npyautogui.click(x={10 + i}, y=20)\n```"
    )


def concluded(i):
    arguments = f'{{"action": "click", "coordinate": [{100 + i}, 200]}}'
    return (
        f'<thinking>\nHm {i}\n</thinking>\n<tool_call>\n{{"name": "computer_use", "arguments": {arguments}}}\n</tool_call>\n'
        f'<conclusion>\nClicked {i} "x".\n</conclusion>'
    )


def tars(i):
    return f"Thought: t{i}\nAction: click(start_box='({i},{i + 1})')"


def venus(i):
    return f"<think>T{i}</think>\n<action>Click(box=({i},5))</action>\n<conclusion>c</conclusion>"


def mai(i):
    arguments = f'{{"action": "click", "coordinate": [{447 + i}, {81 + i}]}}'
    thought = f"Think {i}"
    if i == 3:
        arguments, thought = '{"action": "drag", "start_coordinate": [100, 200], "end_coordinate": [300, 401]}', "Drag."
    return f'<thinking>\n{thought}\n</thinking>\n<tool_call>\n{{"name": "mobile_use", "arguments": {arguments}}}\n</tool_call>'


HISTORIES = {
    "ui-tars-1/computer": (tars, 7),
    "ui-tars-1.5/computer": (tars, 7),
    "evocua/computer": (computer, 7),
    "evocua/computer/0": (computer, 0),
    "evocua-s1/computer": (code, 7),
    "qwen3-vl/computer": (computer, 7),
    "qwen3-vl/mobile": (mobile, 3),
    "gui-owl-1.5/computer": (computer, 7),
    "gui-owl-1.5/mobile/2": (mobile, 2),
    "gui-owl-1.5/mobile": (mobile, 7),
    "gui-owl/computer": (concluded, 4),
    "gui-owl/mobile": (concluded, 3),
    "fara/computer": (computer, 5),
    "fara-1.5/computer": (computer, 5),
    "mai-ui/mobile": (mai, 5),
    "opencua/computer": (code, 7),
    "opencua-v1/computer": (code, 7),
    "opencua-relative/computer": (code, 7),
    "ui-venus-1.5/mobile": (venus, 7),
}


class Screen(int):
    """Stands for a screenshot: its number."""


def flat(messages):
    """[role, parts], texts that follow each other joined, as every chat template joins them."""
    found = []
    for one in messages:
        parts = []
        for part in one["content"]:
            text = part["text"] if part["type"] == "text" else f"<image {int(part['image'])}>"
            if parts and not text.startswith("<image") and not parts[-1].startswith("<image"):
                parts[-1] += text
            else:
                parts.append(text)
        found.append([one["role"], parts])
    return found


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversations(name, tmp_path):
    family, platform, *_ = name.split("/")
    reply, steps = HISTORIES[name]
    settings = families()[family].defaults
    if family == "ui-venus-1.5":  # its text is the user's: see the family
        (tmp_path / "prompt.txt").write_text("TASK {user_task} PREV {previous_actions}")
        settings = settings.model_copy(update={"prompt_file": str(tmp_path / "prompt.txt")})
    history = [(Screen(i), reply(i)) for i in range(steps)]
    turn = Turn(INSTRUCTION, "", history, Screen(steps), (1932, 1092), settings, platform)
    written = json.dumps(flat(families()[family].messages(turn)), ensure_ascii=False)
    assert hashlib.sha256(written.encode()).hexdigest() == CONVERSATIONS[name]


def test_a_prompt_of_ui_venus_that_is_not_the_official_one_is_named_in_the_log(tmp_path, caplog):
    (tmp_path / "p.txt").write_text("TASK {user_task} PREV {previous_actions}", encoding="utf-8-sig")
    settings = families()["ui-venus-1.5"].defaults.model_copy(update={"prompt_file": str(tmp_path / "p.txt")})
    asked = families()["ui-venus-1.5"].messages(Turn(INSTRUCTION, "", [], Screen(0), (32, 32), settings, "mobile"))
    assert "\N{ZERO WIDTH NO-BREAK SPACE}" not in str(asked).encode().decode("unicode_escape")  # the mark before a text of Windows
    assert "is not MOBILE_USER_PROMPT of inclusionAI/UI-Venus" in caplog.text


def test_every_family_with_a_text_of_its_own_has_a_conversation():
    asked = {name.split("/")[0] for name in CONVERSATIONS}
    assert asked == set(families()) - {"plain", "ui-tars-doubao"}  # Doubao's is UI-TARS's order under another text: see test_prompt
