#!/bin/bash
# usage: golden.sh ROOTFS.tar DISK INIT
#
# Builds the disk that daemons start from, in a mount and process namespace of its own: the state of
# a daemon (`/mnt/daemon`), the folder of its btrfs pool (`/mnt/pool`), the image debian/12, and the
# same with another init as `small`.
set -eu
tar=$1 disk=$2 init=$3
mount -t proc proc /proc
truncate -s 12G "$disk"
mkfs.btrfs -q -f -m single "$disk"
mount -o loop,noatime,discard "$disk" /mnt
# Simple quotas where the kernel has them (6.7): the full ones take seconds for each of many snapshots.
perl -e 'open my $disk, "<", "/mnt" or exit 1; my $args = pack "QQ", 4, 0; exit !ioctl $disk, 0xC0109428, $args' ||
  btrfs -q quota enable /mnt
btrfs -q subvolume create /mnt/pool
mkdir -p /mnt/golden/guest /mnt/golden/meta/templates

guest=/mnt/golden/guest
tar -x -f "$tar" -C $guest --exclude './dev/*' --numeric-owner
printf 'auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n' >$guest/etc/network/interfaces
rm -f $guest/etc/ssh/ssh_host_* $guest/etc/resolv.conf $guest/etc/profile.d/*
: >$guest/etc/machine-id
# What a test does not look at need not boot.
for unit in e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer systemd-timesyncd.service \
  ssh.service dnsmasq.service nftables.service dpkg-db-backup.timer fstrim.timer \
  systemd-journal-flush.service systemd-update-utmp.service systemd-update-utmp-runlevel.service \
  systemd-logind.service getty@tty1.service console-getty.service e2scrub_reap.service \
  systemd-tmpfiles-clean.timer systemd-random-seed.service; do
  ln -sf /dev/null "$guest/etc/systemd/system/$unit"
done
rm -rf $guest/var/cache/apt/*.bin $guest/var/lib/apt/lists/* $guest/usr/share/doc $guest/usr/share/locale
rm -rf $guest/root/.[a-z]*
cat >/mnt/golden/meta/metadata.yaml <<'END'
architecture: x86_64
creation_date: 1785571200
properties: {architecture: amd64, description: Debian bookworm amd64, os: Debian, release: bookworm}
templates:
  /etc/hostname: {when: [create, copy], template: hostname.tpl}
END
printf '{{ container.name }}\n' >/mnt/golden/meta/templates/hostname.tpl
tar -c -f /mnt/golden/meta.tar -C /mnt/golden/meta metadata.yaml templates
tar -c -f /mnt/golden/rootfs.tar --numeric-owner -C $guest .
rm $guest/sbin/init
printf '%s\n' "$init" >$guest/sbin/init
chmod 755 $guest/sbin/init
tar -c -f /mnt/golden/small.tar --numeric-owner -C $guest .

export INCUS_DIR=/mnt/daemon
mkdir $INCUS_DIR
/usr/libexec/incus/incusd --group root >/mnt/golden/log 2>&1 &
daemon=$!
for _ in $(seq 400); do incus query /1.0 >/dev/null 2>&1 && break; sleep 0.05; done
incus admin init --preseed <<END
storage_pools:
- name: default
  driver: btrfs
  config: {source: /mnt/pool}
profiles:
- name: default
  devices:
    root: {type: disk, path: /, pool: default}
END
incus config set images.auto_update_interval 0
incus image import /mnt/golden/meta.tar /mnt/golden/rootfs.tar --alias debian/12 >/dev/null
incus image import /mnt/golden/meta.tar /mnt/golden/small.tar --alias small >/dev/null
# The first container unpacks the image into the pool.
for image in debian/12 small; do
  incus create $image warm </dev/null >/dev/null
  incus delete warm
done
incus admin shutdown
wait $daemon || true
rm -rf /mnt/golden
sync
fstrim /mnt || true
umount -R $INCUS_DIR 2>/dev/null || true
umount -l /mnt
