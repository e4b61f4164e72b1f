#!/bin/bash
# usage: cluster.sh DISK NAME
#
# Process 1 of the namespaces of a cluster of two members, `a` and `b`: each in a network namespace of
# its own, joined by a cable, on one disk with a pool each. Only `a` has the images. It ends when its
# standard input does, and everything in here with it. A line on its standard input is a command to it:
# `kill a`, `start b`.
set -u
disk=$1 name=$2
for tree in /sys/fs/cgroup/*/ /sys/fs/cgroup/; do
  [ -e "$tree/cgroup.procs" ] || continue
  mkdir -p "$tree/$name" 2>/dev/null || continue
  for file in cpuset.cpus cpuset.mems; do
    [ -e "$tree/$name/$file" ] && cat "$tree/$file" >"$tree/$name/$file" 2>/dev/null
  done
  echo 1 >"$tree/$name/cgroup.procs" 2>/dev/null || echo $$ >"$tree/$name/cgroup.procs" 2>/dev/null
done
mount -t proc proc /proc
mount -o loop,noatime,commit=1 "$disk" /mnt || exit 1
# A network namespace's interfaces are in a sysfs of its own, and that one has no cgroups.
mkdir /mnt/cgroup
mount --rbind /sys/fs/cgroup /mnt/cgroup
mount -t sysfs sysfs /sys
mount --rbind /mnt/cgroup /sys/fs/cgroup
# Containers are found by sockets that are named after the daemon's folder.
mv /mnt/daemon "/mnt/$name-a"
mkdir "/mnt/$name-b"
btrfs -q subvolume create /mnt/pool-b
for member in a b; do
  mount --bind "/mnt/$name-$member" "/mnt/$name-$member"
  mount --make-shared "/mnt/$name-$member"
done
mkfifo /mnt/up
unshare --net --mount --propagation unchanged bash -c '
  mount -t sysfs sysfs /sys
  mount --rbind /mnt/cgroup /sys/fs/cgroup
  ip link set lo up
  echo up
  exec sleep infinity' >/mnt/up &
other=$!
read -r _ </mnt/up
there() { nsenter --target $other --net --mount "$@"; }
ip link set lo up
ip link add cable-a type veth peer name cable-b netns $other
ip address add 10.99.0.1/24 dev cable-a
ip link set cable-a up
there ip address add 10.99.0.2/24 dev cable-b
there ip link set cable-b up
declare -A daemon
start() {
  # Not by the function: what is killed has to be the daemon.
  local enter=''
  [ "$1" = b ] && enter="nsenter --target $other --net --mount"
  INCUS_DIR=/mnt/$name-$1 $enter /usr/libexec/incus/incusd --group root >>"/mnt/incusd-$1.log" 2>&1 &
  daemon[$1]=$!
}
# Some of its verbs read their standard input to the end.
a() { INCUS_SOCKET=/mnt/$name-a/unix.socket incus "$@" </dev/null; }
b() { INCUS_SOCKET=/mnt/$name-b/unix.socket there incus "$@"; }
start a
start b
for member in a b; do
  for _ in $(seq 600); do $member query /1.0 >/dev/null 2>&1 && break; sleep 0.05; done
done
export INCUS_CONF=/mnt/client
{
  a config set core.https_address 10.99.0.1:8443
  a cluster enable a
  # As soon as a cluster may have it.
  a config set cluster.offline_threshold 11
  a cluster group create blue
  a cluster group assign a default,blue
  token=$(a cluster add b | tail -n 1)
  b admin init --preseed <<END
cluster:
  enabled: true
  server_name: b
  server_address: 10.99.0.2:8443
  cluster_token: $token
  member_config:
  - {entity: storage-pool, name: default, key: source, value: /mnt/pool-b}
END
} >/mnt/cluster.log 2>&1
echo ready
while read -r word member; do
  case $word in
    kill) kill -9 "${daemon[$member]}"; wait "${daemon[$member]}" 2>/dev/null; echo killed ;;
    start) start "$member"; echo started ;;
  esac
done
exit 0
