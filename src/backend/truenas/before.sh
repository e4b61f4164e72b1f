# usage: sh -c TEXT sh NAME [ROOT]
# Keeps a machine that has never run off the network until it is told what may be reached. Units that bring one up
# have a condition; what is in the image stays. By the daemon that has its files, or by the folder that they are in.
# What does not boot with systemd stays as it is.
set -e
units='networking.service systemd-networkd.service systemd-networkd.socket NetworkManager.service dhcpcd.service ifup@.service'
if [ -n "${2-}" ]; then
  for folder in "$2/etc" "$2/etc/systemd" "$2/etc/systemd/system"; do
    [ -L "$folder" ] && exit 0
    [ -d "$folder" ] || [ "$folder" = "$2/etc" ] || exit 0
    [ -d "$folder" ] || { echo "there is no $folder" >&2; exit 1; }
  done
else
  incus query "/1.0/instances/$1/files?path=/etc" >/dev/null
  incus query "/1.0/instances/$1/files?path=/etc/systemd/system" >/dev/null 2>&1 || exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
own=$work/systemd/system
mkdir -p "$own/sysinit.target.wants"
for unit in $units; do
  mkdir "$own/$unit.d"
  printf '[Unit]\nConditionPathExists=!/etc/.sandscript-offline\n' >"$own/$unit.d/sandscript-offline.conf"
done
cat >"$own/sandscript-offline.service" <<'END'
[Unit]
DefaultDependencies=no
Before=network-pre.target sysinit.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'for card in /sys/class/net/*; do case $$card in */lo) ;; *) ip link set dev $${card##*/} down ;; esac; done'
[Install]
WantedBy=sysinit.target
END
ln -s ../sandscript-offline.service "$own/sysinit.target.wants/sandscript-offline.service"
: >"$work/.sandscript-offline"
# The mark comes first: half of it all is closed, and is taken away with it.
if [ -z "${2-}" ]; then
  incus file push --quiet "$work/.sandscript-offline" "$1/etc/.sandscript-offline"
  incus file push --quiet --recursive --create-dirs "$work/systemd" "$1/etc"
  exit
fi
# As if its root had written it. No link of an image's is followed.
chown -Rh --reference="$2/etc" "$work"
cp -aT --remove-destination "$work/.sandscript-offline" "$2/etc/.sandscript-offline"
cp -a --remove-destination "$own/." "$2/etc/systemd/system/"
