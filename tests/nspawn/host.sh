#!/bin/bash
# usage: host.sh TREE FOLDER DISK IMAGES PROGRAM NAME
#
# A host that systemd has booted, with the network of this machine. Its files are TREE below what it
# writes to DISK, which it has at /var/lib/sandscript. It has FOLDER as /srv, IMAGES as /opt, and PROGRAM as
# /usr/local/bin/suite. Prints the process id of its systemd when it is up, and ends it with all
# that runs there when standard input ends.
set -eu
name=$6
groups=()
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/{systemd,memory,pids,cpu,cpuacct,devices,unified}; do
  [ -e "$hierarchy/cgroup.procs" ] || continue
  mkdir -p "$hierarchy/$name"
  groups+=("$hierarchy/$name")
done

inside='
set -eu
tree=$1 folder=$2 disk=$3 images=$4 program=$5
mount --make-rprivate /
mkdir -p "$disk/host/upper" "$disk/host/work" "$folder/root"
root=$folder/root
mount -t overlay -o "lowerdir=$tree,upperdir=$disk/host/upper,workdir=$disk/host/work,index=off" overlay "$root"
mkdir -p "$root/var/lib/sandscript" "$root/srv" "$root/opt"
touch "$root/usr/local/bin/suite"
cat /etc/resolv.conf >"$root/etc/resolv.conf"
mount --bind "$disk" "$root/var/lib/sandscript"
mount --bind "$folder" "$root/srv"
mount --bind "$images" "$root/opt"
mount --bind "$program" "$root/usr/local/bin/suite"
mixed=no
[ -e /sys/fs/cgroup/cgroup.procs ] || mixed=yes
cd "$root"
mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o nosuid,nodev,noexec sysfs sys
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs run
mount -t tmpfs -o mode=755,nosuid tmpfs dev
for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "dev/${node%:*}" c 1 "${node#*:}"; done
mknod -m 666 dev/tty c 5 0
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,mode=620,ptmxmode=666,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs dev/shm
if [ $mixed = yes ]; then
  mount -t tmpfs -o mode=755,nosuid,nodev,noexec tmpfs sys/fs/cgroup
  for hierarchy in memory pids cpu cpuacct devices; do
    mkdir "sys/fs/cgroup/$hierarchy"
    mount -t cgroup -o "nosuid,nodev,noexec,$hierarchy" cgroup "sys/fs/cgroup/$hierarchy"
  done
  mkdir sys/fs/cgroup/systemd sys/fs/cgroup/unified
  mount -t cgroup -o nosuid,nodev,noexec,none,name=systemd cgroup sys/fs/cgroup/systemd
  mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup/unified
else
  mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup
fi
pivot_root . mnt
umount -l /mnt
exec env -i container=suite PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
'

(
  for group in "${groups[@]}"; do echo "$BASHPID" >"$group/cgroup.procs"; done
  exec unshare --mount --pid --cgroup --uts --ipc --fork --kill-child \
    bash -c "$inside" inside "$1" "$2" "$3" "$4" "$5"
) </dev/null >"$2/host.log" 2>&1 &
starter=$!

end() {
  set +e
  kill -9 "$starter" 2>/dev/null
  wait 2>/dev/null
  for group in "${groups[@]}"; do
    for _ in {1..100}; do
      find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null
      [ -e "$group" ] || break
      sleep 0.02
    done
  done
}
trap end EXIT

leader=''
for _ in {1..600}; do
  [ -n "$leader" ] || leader=$(tr -d ' ' <"/proc/$starter/task/$starter/children" 2>/dev/null || true)
  if [ -n "$leader" ]; then
    state=$(nsenter -t "$leader" -m -p -u -i -C systemctl is-system-running 2>/dev/null || true)
    case $state in running | degraded) break ;; esac
  fi
  kill -0 "$starter" 2>/dev/null || { tail -1 "$2/host.log" >&2; exit 1; }
  sleep 0.05
done
echo "$leader"
while read -r _; do :; done
