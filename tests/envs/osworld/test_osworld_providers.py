"""Where guests come from, without a container: addresses, and what the official machine needs."""

import pytest
from standin import standin

from envs.errors import InfrastructureError, SetupError
from envs.osworld import providers
from envs.osworld.needs import lacking, remarks
from envs.osworld.providers import AddressProvider, OfficialProvider


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


def test_without_kvm_a_person_is_told_what_that_means_and_the_machine_is_told_to_emulate(tmp_path, monkeypatch):
    monkeypatch.setattr(providers, "KVM", tmp_path / "kvm")
    assert any("emulated: it boots in minutes" in line for line in remarks({"provider": "official"}, []))
    machine = OfficialProvider.__new__(OfficialProvider)
    machine.disk, machine.ram, machine.cores = tmp_path / "Ubuntu.qcow2", "4G", 4
    assert machine.spec().environment["KVM"] == "N" and machine.spec().devices == ()
    (tmp_path / "kvm").touch()
    assert not list(remarks({"provider": "official"}, []))
    assert "KVM" not in machine.spec().environment and machine.spec().devices == (str(tmp_path / "kvm"),)


def test_without_its_disk_or_image_the_official_machine_says_how_to_get_them(tmp_path, monkeypatch):
    with pytest.raises(SetupError) as caught:
        OfficialProvider(tmp_path / "Ubuntu.qcow2")
    assert "agentlab fetch osworld --vm" in caught.value.hint
    monkeypatch.setenv("AGENTLAB_CACHE", str(tmp_path))
    hints = [error.hint for error in lacking("", {"provider": "official", "disk": str(tmp_path / "none")})]
    assert any("agentlab fetch osworld --vm" in hint for hint in hints)
