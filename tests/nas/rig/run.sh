#!/bin/bash
# usage: run.sh DISK NAME PROGRAM RELEASE
#
# Process 1 of a simulator's namespaces: mounts the disk, starts the daemon, and ends when its
# standard input does, and everything in here with it.
set -u
disk=$1 name=$2 program=$3 release=$4
# Cgroups of its own, so that what the containers leave behind can be found and removed.
for tree in /sys/fs/cgroup/*/ /sys/fs/cgroup/; do
  [ -e "$tree/cgroup.procs" ] || continue
  mkdir -p "$tree/$name" 2>/dev/null || continue
  for file in cpuset.cpus cpuset.mems; do
    [ -e "$tree/$name/$file" ] && cat "$tree/$file" >"$tree/$name/$file" 2>/dev/null
  done
  echo 1 >"$tree/$name/cgroup.procs" 2>/dev/null || echo $$ >"$tree/$name/cgroup.procs" 2>/dev/null
done
hostname truenas
mount -t proc proc /proc
# Which network interfaces there are is seen in a sysfs of the network namespace that this runs in.
mount --rbind /sys/fs/cgroup /mnt && mount -t sysfs sysfs /sys && mount --rbind /mnt /sys/fs/cgroup && umount -l /mnt
mount -o loop,noatime "$disk" /mnt || exit 1
root=/mnt/host
mount -t proc proc $root/proc
mount --rbind /sys $root/sys
mount --rbind /dev $root/dev
mount -t tmpfs -o mode=755 tmpfs $root/run
mkdir -p $root/run/nas-sim
bind() { mkdir -p "$(dirname "$2")"; : >>"$2"; mount --bind "$1" "$2"; }
bind /usr/bin/incus $root/usr/local/lib/nas-sim/incus
bind "$program" $root/usr/local/lib/nas-sim/nas-sim
for tool in zfs mount.zfs midclt; do ln -sf /usr/local/lib/nas-sim/nas-sim $root/usr/local/bin/$tool; done
ln -sf /usr/local/lib/nas-sim/nas-sim $root/sbin/mount.zfs
case $release in
  25.*) ln -sf /usr/local/lib/nas-sim/incus $root/usr/local/bin/incus ;;
  26*) ln -sf /usr/local/lib/nas-sim/nas-sim $root/usr/local/bin/truenas-nsexec ;;
esac
mkdir -p /mnt/incus/loose /mnt/parents
# The daemon's folder has a name of its own: containers are found by sockets that are named after
# it, and those are the whole machine's. The host's root shows the same, with what is mounted later.
mv /mnt/daemon "/mnt/$name"
mount --bind "/mnt/$name" "/mnt/$name"
mount --make-shared "/mnt/$name"
mount --rbind "/mnt/$name" $root/var/lib/incus
export INCUS_DIR=/mnt/$name
/usr/libexec/incus/incusd --group root >/mnt/golden/incusd.log 2>&1 &
echo ready
read -r _
exit 0
