#!/usr/bin/perl
# An init for tests: it starts in no time, reaps, brings up the network, and lets all end when told.
use strict;
$SIG{CHLD} = 'IGNORE';
sub down {
    kill 'TERM', -1;
    for (1 .. 1000) {
        my @others = grep { $_ > 1 && -e "/proc/$_/exe" } map { m{/(\d+)$} } glob '/proc/[0-9]*';
        last unless @others;
        select undef, undef, undef, 0.02;
    }
    exit 0;
}
$SIG{PWR} = \&down;
if (!-s '/etc/machine-id') {
    open my $random, '<', '/dev/urandom';
    sysread $random, my $bytes, 16;
    open my $file, '>', '/etc/machine-id';
    print $file unpack('H*', $bytes), "\n";
}
if (!fork) { exec '/bin/sh', '-c', 'exec </dev/null >/dev/null 2>&1; ip link set lo up; if [ -e /sys/class/net/eth0 ]; then exec dhclient -1 -nw eth0; fi' }
while (1) { sleep 1000 }
