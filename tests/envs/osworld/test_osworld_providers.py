"""Where guests come from, without a container: addresses, and what the official machine needs."""

import pytest
from standin import SIZE, standin

from envs.base import TaskSpec
from envs.errors import InfrastructureError, SetupError, UsageError
from envs.osworld import needs, official
from envs.osworld.address import AddressProvider
from envs.osworld.client import GuestClient
from envs.osworld.env import OSWorldEnv
from envs.osworld.machinery import proxies_of
from envs.osworld.needs import lacking, remarks
from envs.osworld.official import OfficialProvider
from envs.osworld.providers import light_spec


def test_a_guest_that_is_not_at_rest_yet_is_waited_for():
    with standin() as guest:
        guest.fail["/agentlab/ready"] = [503, 503]
        provider = AddressProvider(guest.address)
        acquired = provider.acquire()
        assert acquired.client.address == guest.address and guest.asked.count("/agentlab/ready") == 3
        provider.release(acquired)

        guest.fail["/agentlab/ready"] = [503]
        hasty = AddressProvider(guest.address, patience=0.0)
        with pytest.raises(InfrastructureError, match="not usable") as caught:
            hasty.acquire()
        assert caught.value.component == "guest"
        hasty.release(hasty.acquire())  # it is free again, and by now usable


def test_a_question_that_changes_nothing_is_asked_again():
    """O6: one dropped connection voided the attempt."""
    with standin() as guest:
        client = GuestClient("127.0.0.1", guest.port)
        for route, ask in (
            ("/screenshot", client.screenshot), ("/screen_size", client.screen_size), ("/accessibility", client.accessibility_tree),
            ("/terminal", client.terminal), ("/file", lambda: client.download("/x")), ("/agentlab/rest", lambda: client.wait_for_rest(0.1)),
        ):  # fmt: skip
            guest.fail[route] = ["drop", 500]
            ask()
            guest.fail[route] = ["drop"] * 3
            with pytest.raises(InfrastructureError):
                ask()
            assert guest.asked.count(route) == 6, "and not for ever"
        guest.fail["/execute"] = ["drop"]
        with pytest.raises(InfrastructureError):
            client.execute(["do", "it"])
        assert guest.asked.count("/execute") == 1, "what acts is not done twice"
        client.close()


def test_hosts_are_given_to_browsers_by_number():
    """O3: a browser refuses to be debugged under a name, and 0 was scored."""
    assert AddressProvider("localhost:5000:9222").addresses == [("127.0.0.1", {5000: 5000, 9222: 9222})]
    with pytest.raises(SetupError, match="no host"):
        AddressProvider("nowhere.invalid:5000")


def browser_job(**more):
    return {"id": "x", "instruction": "x", "evaluator": {"func": "f", "result": {"type": "open_tabs_info"}}} | more


def test_a_port_that_a_task_is_graded_through_and_nobody_named_is_an_error_at_start():
    """O2: it was port 1, and 0 was scored."""
    vlc = {"id": "x", "instruction": "x", "evaluator": {"func": "f", "result": {"type": "vlc_playing_info"}}}
    opened = browser_job(
        config=[{"type": "chrome_open_tabs", "parameters": {"urls_to_open": []}}],
        evaluator={"func": "f", "result": {"type": "vm_file"}},
    )
    with standin() as guest:
        for job, lacks in ((browser_job(), "browser debugging"), (vlc, "VLC"), (opened, "browser debugging")):
            spec = TaskSpec("agentlab/osworld-v0", "a/b", 0, 5, options={"task": job})
            with pytest.raises(UsageError, match=f"through the port for {lacks}") as caught:
                list(remarks({"provider": f"address:{guest.address}"}, [spec]))
            assert "HOST:SERVER:CHROMIUM:VNC:VLC" in caught.value.hint
            env = OSWorldEnv(provider=f"address:{guest.address}", screen=SIZE)
            with pytest.raises(UsageError, match="port"):
                env.reset(options={"task": spec})
            env.close()
            assert list(remarks({"provider": f"address:{guest.address}:1:2:3"}, [spec]))


def test_the_light_desktops_have_limits():
    spec = light_spec()
    assert spec.memory == "3g" and spec.cpus == 2 and spec.pids <= 1024
    assert light_spec(ram="1G", cores=1).memory == "1g"


@pytest.mark.parametrize("usable", [True, False])
def test_what_kvm_means_for_the_virtual_machine(tmp_path, monkeypatch, usable):
    """O7, O9, O11: a person is told, the machine is told to emulate, and looks at it last as long as a slow one needs."""
    monkeypatch.setattr(official, "usable_kvm", lambda image: usable)
    monkeypatch.setattr(needs, "usable_kvm", lambda image: usable)
    monkeypatch.setattr(official.ContainerProvider, "__init__", lambda self, *_, **options: self.__dict__.update(options))
    disk = tmp_path / "Ubuntu.qcow2"
    disk.touch()
    machine = OfficialProvider(disk, spares=1)
    assert machine.spares == 1, "O8"
    assert any("emulated: it boots in minutes" in line for line in remarks({"provider": "official"}, [])) != usable
    spec = machine.spec()
    if usable:
        assert "KVM" not in spec.environment and spec.devices == ("/dev/kvm",)
        assert machine.look_seconds() >= 10 and machine.patience == 1
    else:
        assert spec.environment["KVM"] == "N" and spec.devices == ()
        assert machine.look_seconds() >= 60 and machine.patience > 1
    assert spec.memory == "6144m" and spec.cpus == 5


def test_a_guest_whose_screen_takes_six_seconds_becomes_ready():
    """O7: each look was given five."""
    with standin() as guest:
        guest.delay["/screenshot"] = 6.0
        guest.fail["/agentlab/ready"] = [404]
        client = GuestClient("127.0.0.1", guest.port)
        assert client.missing(OfficialProvider.look_seconds(Looks())) == ""
        client.close()


class Looks:
    """As long as with KVM."""

    def boot_seconds(self):
        return official.BOOT_SECONDS


def test_tasks_that_ask_for_a_proxy_are_named_when_they_get_none(tmp_path):
    """O11."""
    specs = [TaskSpec("agentlab/osworld-v0", f"chrome/{n}", 0, 5, options={"task": browser_job(proxy=n == 1)}) for n in range(3)]
    said = "\n".join(remarks({"provider": "light"}, specs))
    assert "1 of these tasks ask for a proxy" in said and "chrome/1" in said and "chrome/2" not in said
    (tmp_path / "proxies.json").write_text("[]")
    assert "proxy" not in "\n".join(remarks({"provider": "light", "proxy": str(tmp_path / "proxies.json")}, specs))
    with pytest.raises(SetupError, match="no file of proxies"):
        proxies_of(str(tmp_path / "none"))


def test_without_its_disk_or_image_the_official_machine_says_how_to_get_them(tmp_path, monkeypatch):
    with pytest.raises(SetupError) as caught:
        OfficialProvider(tmp_path / "Ubuntu.qcow2")
    assert "agentlab fetch osworld --vm" in caught.value.hint
    monkeypatch.setenv("AGENTLAB_CACHE", str(tmp_path))
    hints = [error.hint for error in lacking("", {"provider": "official", "disk": str(tmp_path / "none")})]
    assert any("agentlab fetch osworld --vm" in hint for hint in hints)
