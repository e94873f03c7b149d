#!/bin/bash
# Boots /System.qcow2, as often as it is started in the state that it was made in, with what the official image's variables say.
set -eu
accelerator=tcg,thread=multi processor=max
if [ -e /dev/kvm ] && [ "${KVM:-Y}" != N ]; then accelerator=kvm processor=host; fi
mkdir -p /storage
qemu-img create -q -f qcow2 -b /System.qcow2 -F qcow2 /storage/boot.qcow2 "${DISK_SIZE:-32G}"
forwards=
for port in 5000 8080 9222; do forwards+=",hostfwd=tcp:0.0.0.0:$port-:$port"; done
websockify --web /usr/share/novnc 8006 127.0.0.1:5900 >/dev/null 2>&1 &
exec qemu-system-x86_64 -accel "$accelerator" -cpu "$processor" -m "${RAM_SIZE:-4G}" -smp "${CPU_CORES:-4}" \
  -nodefaults -no-reboot -display none -vga std -vnc 127.0.0.1:0 -serial stdio \
  -kernel /guest/vmlinuz -initrd /guest/initrd -append "root=/dev/vda rw console=ttyS0 quiet mitigations=off" \
  -drive file=/storage/boot.qcow2,if=virtio,cache=unsafe -netdev "user,id=net$forwards" -device virtio-net-pci,netdev=net \
  -device virtio-rng-pci
