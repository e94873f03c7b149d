"""The stand-in phone as an emulator that Debian's own adb finds: adbd's protocol on the odd port, the console on the even one.

    python -m standin.adbd @AVD -ports 5570,5571 [-snapshot NAME] ...      the command line of the SDK's emulator; the rest is ignored

The disk is ``$ANDROID_AVD_HOME/AVD.avd``.  Protocol: packages/modules/adb/protocol.txt, SYNC.TXT and the shell protocol of AOSP.
"""

from __future__ import annotations

import io
import os
import shlex
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from standin.world import CommandError, World

CNXN, OPEN, OKAY, CLSE, WRTE = (int.from_bytes(name, "little") for name in (b"CNXN", b"OPEN", b"OKAY", b"CLSE", b"WRTE"))
VERSION, LARGEST = 0x01000001, 256 * 1024
BANNER = b"device::ro.product.name=standin;ro.product.model=Pixel_6;ro.product.device=emu;features=shell_v2,cmd\0"
STDOUT, STDERR, EXIT = 1, 2, 3
PIECE = 64 * 1024


def receive(peer: socket.socket, size: int) -> bytes:
    """Exactly ``size`` bytes; EOFError where the peer has gone."""
    data = b""
    while len(data) < size:
        more = peer.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


class Stream:
    """One stream of a connection: what arrives is read, what is written waits until the other side has taken the piece before."""

    def __init__(self, send: Callable[[int, bytes], None]) -> None:
        self._send = send
        self._buffer, self._arrived, self._ended = b"", threading.Condition(), False
        self.taken = threading.Semaphore(1)

    def feed(self, data: bytes | None) -> None:
        with self._arrived:
            self._buffer += data or b""
            self._ended |= data is None
            self._arrived.notify_all()
        if data is None:
            self.taken.release()

    def read(self, size: int) -> bytes:
        with self._arrived:
            while len(self._buffer) < size:
                if self._ended:
                    raise EOFError
                self._arrived.wait(60)
            data, self._buffer = self._buffer[:size], self._buffer[size:]
            return data

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE):
            self.taken.acquire(timeout=60)
            self._send(WRTE, data[start : start + PIECE])


class Connection(threading.Thread):
    """One connection of an adb server."""

    def __init__(self, peer: socket.socket, world: World) -> None:
        super().__init__(daemon=True)
        self._peer, self._world, self._lock = peer, world, threading.Lock()
        self._streams: dict[int, Stream] = {}

    def _send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        head = struct.pack("<6I", command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF)
        with self._lock:
            self._peer.sendall(head + data)

    def run(self) -> None:
        try:
            while True:
                command, first, second, size, _, _ = struct.unpack("<6I", receive(self._peer, 24))
                self._take(command, first, second, receive(self._peer, size))
        except (EOFError, OSError):
            for stream in self._streams.values():
                stream.feed(None)

    def _take(self, command: int, theirs: int, mine: int, data: bytes) -> None:
        if command == CNXN:
            self._send(CNXN, VERSION, LARGEST, BANNER)
        elif command == OPEN:
            self._open(theirs, data.rstrip(b"\0").decode())
        elif (stream := self._streams.get(mine)) is None:
            return
        elif command == OKAY:
            stream.taken.release()
        elif command == WRTE:
            self._send(OKAY, mine, theirs)
            stream.feed(data)
        elif command == CLSE:
            stream.feed(None)

    def _open(self, theirs: int, service: str) -> None:
        mine = len(self._streams) + 1

        def send(command: int, data: bytes) -> None:
            self._send(command, mine, theirs, data)

        stream = self._streams[mine] = Stream(send)
        self._send(OKAY, mine, theirs)

        def work() -> None:
            try:
                serve(service, stream, self._world)
                stream.taken.acquire(timeout=60)  # what was written last has been taken
                send(CLSE, b"")
            except (EOFError, OSError):
                return

        threading.Thread(target=work, daemon=True).start()


def serve(service: str, stream: Stream, world: World) -> None:
    """Do what a service of adbd does, and return when it is over."""
    kind, _, argument = service.partition(":")
    name, *flags = kind.split(",")
    if name in ("shell", "exec"):
        output, code = shell(argument, world)
        if "v2" not in flags:
            stream.write(output)
            return
        stream.write(struct.pack("<BI", STDERR if code else STDOUT, len(output)) + output if output else b"")
        stream.write(struct.pack("<BIB", EXIT, 1, code))
    elif name == "root":
        stream.write(b"adbd is already running as root\n")
    elif name == "sync":
        sync(stream, world)


def shell(command: str, world: World) -> tuple[bytes, int]:
    """(output, exit code)."""
    try:
        if shlex.split(command) == ["screencap", "-p"]:
            from PIL import Image

            buffer = io.BytesIO()
            Image.fromarray(world.picture()).save(buffer, "PNG")
            return buffer.getvalue(), 0
        return world.execute(["shell", command]).encode(), 0
    except CommandError as error:
        return f"{error}\n".encode(), 1


def sync(stream: Stream, world: World) -> None:
    """Push, pull, and what adb asks of a file before it does."""
    while True:
        verb, size = struct.unpack("<4sI", stream.read(8))
        if verb == b"QUIT":
            return
        text = stream.read(size).decode()
        path = world.adb._path(text.rpartition(",")[0] if verb == b"SEND" else text)
        if verb == b"STAT":
            mode = 0 if not path.exists() else 0o40755 if path.is_dir() else 0o100644
            stream.write(struct.pack("<4s3I", b"STAT", mode, path.stat().st_size if mode else 0, 0))
        elif verb == b"LIST":
            for entry in sorted(path.iterdir()) if path.is_dir() else []:
                name, mode = entry.name.encode(), 0o40755 if entry.is_dir() else 0o100644
                stream.write(struct.pack("<4s4I", b"DENT", mode, entry.stat().st_size, 0, len(name)) + name)
            stream.write(struct.pack("<4s4I", b"DONE", 0, 0, 0, 0))
        elif verb == b"SEND":
            _take_file(stream, path)
        elif verb == b"RECV":
            _give_file(stream, path)


def _take_file(stream: Stream, path: Path) -> None:
    data = b""
    while True:
        verb, size = struct.unpack("<4sI", stream.read(8))
        if verb == b"DONE":
            break
        data += stream.read(size)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    stream.write(struct.pack("<4sI", b"OKAY", 0))


def _give_file(stream: Stream, path: Path) -> None:
    if not path.is_file():
        reason = b"No such file or directory"
        stream.write(struct.pack("<4sI", b"FAIL", len(reason)) + reason)
        return
    data = path.read_bytes()
    for start in range(0, len(data), PIECE):
        piece = data[start : start + PIECE]
        stream.write(struct.pack("<4sI", b"DATA", len(piece)) + piece)
    stream.write(struct.pack("<4sI", b"DONE", 0))


def console(peer: socket.socket, world: World) -> None:
    """The emulator's console: ``avd snapshot list|save|load``, ``kill``, after the user's token."""
    with peer, peer.makefile("r", encoding="utf-8") as lines:

        def say(*texts: str) -> None:
            peer.sendall("".join(f"{text}\r\n" for text in texts).encode())

        say("Android Console: Authentication required", "Android Console: type 'auth <auth_token>' to authenticate", "OK")
        token, known = (Path.home() / ".emulator_console_auth_token").read_text().strip(), False
        for line in lines:
            words = line.split()
            if words[:1] == ["auth"]:
                known = words[1:] == [token]
                say(
                    "Android Console: type 'help' for a list of commands",
                    "OK" if known else "KO: authentication token does not match",
                )
            elif words == ["quit"]:
                return
            elif not known:
                say("KO: unknown command, try 'help'")
            elif words == ["kill"]:
                say("OK: killing emulator, bye bye")
                os._exit(0)
            else:
                say(*snapshot(words, world))


def snapshot(words: list[str], world: World) -> list[str]:
    """The lines of an answer to ``avd snapshot ...``."""
    if words == ["avd", "snapshot", "list"]:
        head = [
            "List of snapshots present on all disks:",
            "ID        TAG                 VM SIZE                DATE       VM CLOCK",
        ]
        rows = [f"--        {name:19}    310M 2026-11-21 10:10:10   00:03:40.105" for name in world.phone.snapshots()]
        return [*(head if rows else ["There is no snapshot available."]), *rows, "OK"]
    if words[:3] == ["avd", "snapshot", "save"]:
        world.phone.save(words[3])
        return ["OK"]
    if words[:3] == ["avd", "snapshot", "load"]:
        if words[3] not in world.phone.snapshots():
            return [f"KO: Device 'cache' does not have the requested snapshot '{words[3]}'"]
        world.phone.load(words[3])
        return ["OK"]
    return ["KO: unknown command, try 'help'"]


def listen(port: int, accepted: Callable[[socket.socket], None]) -> None:
    """Hand every connection to ``accepted``, for ever."""
    listener = socket.create_server(("127.0.0.1", port))

    def loop() -> None:
        while True:
            accepted(listener.accept()[0])

    threading.Thread(target=loop, daemon=True).start()


def tell_adb(port: int) -> None:
    """As the SDK's emulator does: the adb server of this machine, where there is one, is told of the new device."""
    server = int(os.environ.get("ANDROID_ADB_SERVER_PORT", "5037"))
    message = f"host:emulator:{port}"
    try:
        with socket.create_connection(("127.0.0.1", server), timeout=2) as peer:
            peer.sendall(f"{len(message):04x}{message}".encode())
    except OSError:
        return  # it finds the device when it starts


def main(given: list[str]) -> int:
    """Serve until killed."""
    avd = Path(os.environ["ANDROID_AVD_HOME"]) / f"{given[0].removeprefix('@')}.avd"
    console_port, adb_port = (int(port) for port in given[given.index("-ports") + 1].split(","))
    world = World(avd / "phone", 180, 400)
    world.phone.kept_in = avd / "snapshots"
    if "-snapshot" in given:
        world.phone.load(given[given.index("-snapshot") + 1])
    time.sleep(float(os.environ.get("STANDIN_BOOT_S", "0")))
    listen(console_port, lambda peer: threading.Thread(target=console, args=(peer, world), daemon=True).start())
    listen(adb_port, lambda peer: Connection(peer, world).start())
    while True:
        tell_adb(adb_port)
        if world.control().get("gone"):
            return 1
        time.sleep(0.5)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
