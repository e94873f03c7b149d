"""Whether KVM runs a guest here: not that the device is there or opens, but that a machine of a few bytes starts and halts.

    python3 -m guest.kvm          exit code 0 and a line, or 1 and the reason

Linux's KVM interface (Documentation/virt/kvm/api.rst).  The guest adds two numbers in real mode, writes the sum to a port,
reads the time-stamp counter and halts.  Needs nothing but Python's standard library.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import sys
from pathlib import Path

KVM_GET_API_VERSION, KVM_CREATE_VM, KVM_CREATE_VCPU, KVM_GET_VCPU_MMAP_SIZE = 0xAE00, 0xAE01, 0xAE41, 0xAE04
KVM_SET_USER_MEMORY_REGION, KVM_RUN, KVM_GET_SREGS, KVM_SET_SREGS, KVM_SET_REGS = (
    0x4020AE46, 0xAE80, 0x8138AE83, 0x4138AE84, 0x4090AE82,
)  # fmt: skip
API = 12
EXIT_IO, EXIT_HLT = 2, 5
CODE = bytes([0xBA, 0xF8, 0x03, 0x00, 0xD8, 0x04, 0x30, 0xEE, 0x0F, 0x31, 0xF4])
"""mov $0x3f8,%dx; add %bl,%al; add $'0',%al; out %al,(%dx); rdtsc; hlt."""
ORIGIN = 0x1000


def runs(device: Path = Path("/dev/kvm"), processor: Path = Path("/proc/cpuinfo")) -> str:
    """Why no guest runs, or an empty string.

    A processor without vmx or svm, in a sandbox that offers the device all the same, runs this guest and hangs in an ordinary one.
    """
    try:
        flags = processor.read_text()
        if "vmx" not in flags and "svm" not in flags:
            return f"{device} is there, but the processor has neither vmx nor svm: an Android guest would not boot"
        with device.open("r+b", buffering=0) as kvm:
            return _run(kvm.fileno())
    except OSError as error:
        return f"{device}: {error.strerror or error}"


def _run(kvm: int) -> str:
    if fcntl.ioctl(kvm, KVM_GET_API_VERSION) != API:
        return "its interface is another one"
    vm = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
    vcpu = -1
    try:
        with mmap.mmap(-1, 0x1000) as memory:
            memory[: len(CODE)] = CODE
            view = (ctypes.c_char * 0x1000).from_buffer(memory)
            region = struct.pack("<IIQQQ", 0, 0, ORIGIN, 0x1000, ctypes.addressof(view))
            fcntl.ioctl(vm, KVM_SET_USER_MEMORY_REGION, region)
            vcpu = fcntl.ioctl(vm, KVM_CREATE_VCPU, 0)
            try:
                return _halted(kvm, vcpu)
            finally:
                del view
    finally:
        for one in (vcpu, vm):
            if one >= 0:
                os.close(one)


def _halted(kvm: int, vcpu: int) -> str:
    sregs = bytearray(fcntl.ioctl(vcpu, KVM_GET_SREGS, bytes(312)))
    sregs[0:8], sregs[12:14] = bytes(8), bytes(2)  # base and selector of the code segment
    fcntl.ioctl(vcpu, KVM_SET_SREGS, bytes(sregs))
    rax, rbx, rip, flags = 2, 2, ORIGIN, 2
    fcntl.ioctl(vcpu, KVM_SET_REGS, struct.pack("<18Q", rax, rbx, *([0] * 14), rip, flags))
    with mmap.mmap(vcpu, fcntl.ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0)) as state:
        written = b""
        for _ in range(16):
            fcntl.ioctl(vcpu, KVM_RUN, 0)
            reason = struct.unpack_from("<I", state, 8)[0]
            if reason == EXIT_HLT:
                return "" if written == b"4" else f"a guest of {len(CODE)} bytes wrote {written!r}, not 4"
            if reason != EXIT_IO:
                return f"a guest of {len(CODE)} bytes did not run (exit reason {reason})"
            offset = struct.unpack_from("<Q", state, 32 + 8)[0]
            written += state[offset : offset + 1]
        return "a guest of a few bytes did not halt"


if __name__ == "__main__":
    problem = runs(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("/dev/kvm"))
    print(problem or "a guest runs")
    raise SystemExit(bool(problem))
