#!/bin/bash
# usage: image.sh ROOTFS.tar IMAGE.tar
#
# Makes the image that machines start from in tests: what no test looks at is not booted.
set -eu
tar=$1 image=$2
guest=$(mktemp -d "$(dirname "$image")/image.XXXXXX")
trap 'rm -rf "$guest"' EXIT
tar -x -f "$tar" -C "$guest" --exclude './dev/*' --numeric-owner
rm -f "$guest"/etc/ssh/ssh_host_* "$guest"/etc/resolv.conf "$guest"/etc/profile.d/*
for unit in e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer systemd-timesyncd.service \
  ssh.service dnsmasq.service nftables.service networking.service dpkg-db-backup.timer fstrim.timer \
  systemd-journal-flush.service systemd-update-utmp.service systemd-update-utmp-runlevel.service \
  systemd-logind.service getty@tty1.service console-getty.service e2scrub_reap.service \
  systemd-tmpfiles-clean.timer systemd-random-seed.service; do
  ln -sf /dev/null "$guest/etc/systemd/system/$unit"
done
rm -rf "$guest"/var/cache/apt/*.bin "$guest"/var/lib/apt/lists/* "$guest"/usr/share/doc "$guest"/usr/share/locale
rm -rf "$guest"/root/.[a-z]*
# It makes a folder in the home of root at each start.
ln -sf /dev/null "$guest/etc/tmpfiles.d/provision.conf"
tar -c -f "$image" --numeric-owner -C "$guest" .
