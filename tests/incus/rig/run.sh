#!/bin/bash
# usage: run.sh DISK NAME PROGRAM...
#
# Process 1 of a daemon's namespaces: mounts the disk, starts the daemon, and ends when its standard
# input does, and everything in here with it. A line on its standard input is a command to it:
# `kill` kills the daemon alone, `start` starts it again; `stop` lets it stand still, and `go` go on.
set -u
disk=$1 name=$2
# Cgroups of its own, so that what the containers leave behind can be found and removed.
for tree in /sys/fs/cgroup/*/ /sys/fs/cgroup/; do
  [ -e "$tree/cgroup.procs" ] || continue
  mkdir -p "$tree/$name" 2>/dev/null || continue
  for file in cpuset.cpus cpuset.mems; do
    [ -e "$tree/$name/$file" ] && cat "$tree/$file" >"$tree/$name/$file" 2>/dev/null
  done
  echo 1 >"$tree/$name/cgroup.procs" 2>/dev/null || echo $$ >"$tree/$name/cgroup.procs" 2>/dev/null
done
mount -t proc proc /proc
# The daemon looks in there for the interfaces of its network namespace, which may be another one than the machine's.
mount --rbind /sys/fs/cgroup /mnt && mount -t sysfs sysfs /sys && mount --rbind /mnt /sys/fs/cgroup && umount -l /mnt
# In memory where there is enough: the daemon waits for the disk at each of its steps.
available=$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)
if [ "${available:-0}" -gt 6000000 ] && mount -t tmpfs -o size=5g,mode=700 none /mnt; then
  cp --sparse=always "$disk" /mnt/disk && disk=/mnt/disk
fi
mount -o loop,noatime,discard,commit=1 "$disk" /mnt || exit 1
# The daemon's folder has a name of its own: containers are found by sockets that are named after
# it, and those are the whole machine's.
mv /mnt/daemon "/mnt/$name"
mount --bind "/mnt/$name" "/mnt/$name"
mount --make-shared "/mnt/$name"
export INCUS_DIR=/mnt/$name
start() { /usr/libexec/incus/incusd --group root >>/mnt/incusd.log 2>&1 & daemon=$!; }
start
echo ready
while read -r word; do
  case $word in
    kill) kill -9 "$daemon"; wait "$daemon" 2>/dev/null; echo killed ;;
    start) start; echo started ;;
    stop) kill -STOP "$daemon"; echo stopped ;;
    go) kill -CONT "$daemon"; echo going ;;
  esac
done
exit 0
