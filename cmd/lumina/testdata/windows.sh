#!/bin/sh
# The init of a guest that looks at what Windows 11's installer looks at, says it on the
# console, and plays a tone for ever.
PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
for m in $(busybox cat /modules/order); do
	busybox insmod "/modules/$m" || echo "check: module=$m is not loaded"
done
busybox mount -t efivarfs efivarfs /sys/firmware/efi/efivars
say() { echo "check: $1"; }
# Four bytes of attributes are before the variable (the kernel's efivarfs.rst).
say "secure boot=$(busybox tail -c 1 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c | busybox od -An -tu1)"
# TPM2_GetCapability of one property, TPM_PT_FAMILY_INDICATOR (TPM 2.0 Library, parts 2 and 3).
exec 3<>/dev/tpm0
printf '\200\001\000\000\000\026\000\000\001\172\000\000\000\006\000\000\001\000\000\000\000\001' >&3
say "tpm=$(busybox dd bs=4096 count=1 <&3 2>/dev/null | busybox tail -c 4 | busybox tr -d '\000')"
say "measured=$(busybox cat /sys/class/tpm/tpm0/pcr-sha256/7)"
say "cpus=$(busybox nproc)"
say "flags=$(busybox grep -m1 '^flags' /proc/cpuinfo)"
# The size of a memory device in MB (SMBIOS 3, 7.18).
say "memory=$(busybox od -An -tu2 -j12 -N2 /sys/firmware/dmi/entries/17-0/raw)"
i=0
until [ -e /sys/block/nvme0n1/size ] || [ $i = 100 ]; do i=$((i + 1)); busybox sleep 0.1; done
say "disk=$(busybox cat /sys/block/nvme0n1/size)"
i=0
until [ -e /dev/snd/pcmC0D0p ] || [ $i = 300 ]; do i=$((i + 1)); busybox sleep 0.1; done
say "sound=$(busybox sed -n 's/.*]: //p' /proc/asound/cards)"
amixer -q -c 0 sset Master 100% unmute 2>&1
say done
while aplay -q -D plughw:0,0 /tone.wav; do :; done
say "aplay=failed"
while :; do busybox sleep 60; done
