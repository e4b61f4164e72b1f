#!/bin/bash
# usage: golden.sh ROOTFS.tar DISK POOL
#
# Builds a disk that simulators start from, in a mount and process namespace of its own: the host's
# root (`/mnt/host`), the pool of an Incus daemon (`/mnt/incus`), and in that the image debian/12.
set -eu
tar=$1 disk=$2 pool=$3
mount -t proc proc /proc
truncate -s 8G "$disk"
mkfs.btrfs -q -f -m single "$disk"
mount -o loop,noatime,discard "$disk" /mnt
# Simple quotas where the kernel has them (6.7): as with ZFS, what a container shares with its image is not its own.
perl -e 'open my $disk, "<", "/mnt" or exit 1; my $args = pack "QQ", 4, 0; exit !ioctl $disk, 0xC0109428, $args' || true
btrfs -q subvolume create /mnt/host
btrfs -q subvolume create /mnt/incus
mkdir /mnt/kept /mnt/golden
# The datasets above the containers', of 25.x and of 26.
mkdir /mnt/parents
for part in .ix-virt .truenas_containers; do
  btrfs -q subvolume create "/mnt/parents/$part"
  for child in containers images custom; do
    btrfs -q subvolume create "/mnt/parents/$part/$child"
  done
done
tar -x -f "$tar" -C /mnt/host --exclude './dev/*' --numeric-owner
cd /mnt/host
rm -f etc/resolv.conf etc/ssh/ssh_host_*
printf 'nameserver 127.0.0.1\n' >etc/resolv.conf
printf 'truenas\n' >etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 truenas\n' >etc/hosts
mkdir -p root/.config/incus
printf 'default-remote: local\n' >root/.config/incus/config.yml
mkdir -p "mnt/.truenas_containers/$pool/containers" run var/lib/incus var/log/jobs usr/local/lib/nas-sim
chmod 700 mnt/.truenas_containers
btrfs -q subvolume create "mnt/$pool"

# What the guests add to the root file system.
guest=/mnt/golden/guest
mkdir -p $guest
tar -x -f "$tar" -C $guest --numeric-owner
printf 'auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n' >$guest/etc/network/interfaces
mkdir -p $guest/etc/dhcp
printf 'timeout 300;\nretry 1;\nbackoff-cutoff 1;\ninitial-interval 1;\n%s\n' \
  'send host-name = gethostname();' \
  'request subnet-mask, broadcast-address, routers, domain-name, domain-name-servers;' \
  >$guest/etc/dhcp/dhclient.conf
rm -f $guest/etc/ssh/ssh_host_* $guest/etc/resolv.conf
: >$guest/etc/machine-id
mkdir -p $guest/etc/systemd/system/ssh.service.d
# Host keys are made at the first boot, those that are made quickly; sshd can be made to start late.
cat >$guest/etc/systemd/system/ssh.service.d/first.conf <<'END'
[Service]
ExecStartPre=
ExecStartPre=/bin/sh -c 'if [ -s /etc/sshd-delay ]; then sleep $(cat /etc/sshd-delay); fi'
ExecStartPre=/bin/sh -c 'for t in ed25519 ecdsa; do f=/etc/ssh/ssh_host_$${t}_key; [ -e $f ] || ssh-keygen -q -t $t -N "" -f $f; done'
ExecStartPre=/usr/sbin/sshd -t
TimeoutStartSec=infinity
END
for unit in e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer systemd-timesyncd.service; do
  ln -sf /dev/null "$guest/etc/systemd/system/$unit"
done
mkdir /mnt/golden/meta
cat >/mnt/golden/meta/metadata.yaml <<'END'
architecture: x86_64
creation_date: 1785571200
properties:
  architecture: amd64
  description: Debian bookworm amd64 (20260801_05:24)
  os: Debian
  release: bookworm
  serial: "20260801_05:24"
  type: squashfs
  variant: default
templates:
  /etc/hostname:
    when: [create, copy]
    template: hostname.tpl
  /etc/hosts:
    when: [create, copy]
    template: hosts.tpl
END
mkdir /mnt/golden/meta/templates
printf '{{ container.name }}\n' >/mnt/golden/meta/templates/hostname.tpl
printf '127.0.0.1\tlocalhost\n127.0.1.1\t{{ container.name }}\n' >/mnt/golden/meta/templates/hosts.tpl
tar -c -f /mnt/golden/meta.tar -C /mnt/golden/meta metadata.yaml templates
tar -c -f /mnt/golden/rootfs.tar --numeric-owner -C $guest .

export INCUS_DIR=/mnt/daemon
mkdir $INCUS_DIR
/usr/libexec/incus/incusd --group root >/mnt/golden/log 2>&1 &
daemon=$!
for i in $(seq 400); do incus query /1.0 >/dev/null 2>&1 && break; sleep 0.05; done
incus admin init --preseed <<END
storage_pools:
- name: $pool
  driver: btrfs
  config: {source: /mnt/incus}
profiles:
- name: default
  devices:
    root: {type: disk, path: /, pool: $pool}
END
incus config set images.auto_update_interval 0
incus image import /mnt/golden/meta.tar /mnt/golden/rootfs.tar --alias debian/12 >/dev/null
# The first container unpacks the image into the pool.
incus create debian/12 warm -n '' 2>/dev/null >/dev/null || incus create debian/12 warm >/dev/null
incus delete warm
incus admin shutdown
wait $daemon || true
rm -rf /mnt/golden/*
sync
fstrim /mnt || true
umount -R $INCUS_DIR 2>/dev/null || true
umount -l /mnt
