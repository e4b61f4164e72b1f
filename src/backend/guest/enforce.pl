# Hands a policy to the guard in this guest, asks it, or wakes the network. The request is a frame as in the
# other programs: a verb and what it needs.
use strict;
use Fcntl;
my $here = '/etc/sandscript';
sub bytes {
    my ($want, $got) = ($_[0], '');
    while (length $got < $want) {
        my $count = sysread STDIN, $got, $want - length $got, length $got;
        next if !defined $count && $!{EINTR};
        exit 125 unless $count;
    }
    return $got;
}
sub answer {
    my $body = pack '(N/a*)*', @_;
    my $all = pack('N', length $body) . $body;
    while (length $all) { my $count = syswrite STDOUT, $all or exit 125; substr($all, 0, $count) = '' }
    exit 0;
}
sub failed { answer('e', $! + 0, $_[0] // '') }
sub slurp { open my $file, '<', $_[0] or return ''; local $/; my $text = <$file>; return $text // '' }
# Replaces a file, and follows no link.
sub spit {
    my ($path, $text, $mode) = @_;
    return 1 if !-l $path && -f _ && slurp($path) eq $text;
    unlink "$path.new";
    sysopen my $file, "$path.new", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, $mode or failed($path);
    chmod $mode, $file;
    print $file $text or failed($path);
    close $file or failed($path);
    rename "$path.new", $path or failed($path);
    return 0;
}
# Waits a little, and longer the next time.
sub pause {
    $_[0] = !$_[0] ? 0.02 : $_[0] < 0.2 ? $_[0] * 1.5 : $_[0];
    select undef, undef, undef, $_[0];
}
sub quietly { return system("$_[0] >/dev/null 2>&1 </dev/null") == 0 }

# What the guard says to a word; nothing where there is none.
sub guard {
    my $word = shift;
    socket my $socket, 1, 1, 0 or return;
    connect $socket, pack 'S a*', 1, "$here/socket" or return;
    setsockopt $socket, 1, 20, pack 'l! l!', 20, 0;
    syswrite $socket, "$word\n";
    my $said = '';
    1 while sysread $socket, $said, 65_536, length $said;
    $said =~ s/\n\z//;
    return $said;
}

# Has the guard started before the network at each boot, and no network without it.
my @units = qw(networking.service systemd-networkd.service NetworkManager.service dhcpcd.service ifup@.service);
sub at_boot {
    my $etc = '/etc/systemd/system';
    if (-d $etc && (readlink('/proc/1/exe') // '') =~ /systemd/) {
        my $unit = "[Unit]\nDescription=Egress rules of this machine\nDefaultDependencies=no\nAfter=systemd-remount-fs.service\n"
            . "Before=network-pre.target sysinit.target @units\nWants=network-pre.target\n[Service]\nType=forking\n"
            . "ExecStart=$^X $here/guard start\nRemainAfterExit=yes\nGuessMainPID=no\nKillMode=process\n[Install]\nWantedBy=sysinit.target\n";
        my $same = spit("$etc/sandscript-guard.service", $unit, 0644);
        mkdir "$etc/sysinit.target.wants", 0755;
        symlink '../sandscript-guard.service', "$etc/sysinit.target.wants/sandscript-guard.service";
        for (@units) {
            mkdir "$etc/$_.d", 0755;
            spit("$etc/$_.d/sandscript.conf", "[Unit]\nRequires=sandscript-guard.service\nAfter=sandscript-guard.service\n", 0644);
        }
        my ($until, $pause) = time + 30;
        until ($same || quietly('systemctl daemon-reload')) {
            last if time > $until;
            pause($pause);
        }
        return 1;
    }
    if (-x '/sbin/openrc-run' && -d '/etc/init.d') {
        spit('/etc/init.d/sandscript-guard', "#!/sbin/openrc-run\ndepend() {\n\tbefore net networking\n}\nstart() {\n\tebegin 'Egress rules'\n\t$^X $here/guard start >/dev/null\n\teend \$?\n}\n", 0755);
        mkdir '/etc/runlevels/boot', 0755;
        symlink '/etc/init.d/sandscript-guard', '/etc/runlevels/boot/sandscript-guard';
        my $conf = slurp('/etc/conf.d/networking');
        mkdir '/etc/conf.d', 0755;
        spit('/etc/conf.d/networking', "$conf\nrc_need=\"sandscript-guard\"\n", 0644) unless $conf =~ /sandscript-guard/;
        return 1;
    }
    return 0;
}

# Puts a policy in force. `boot` is who starts the guard: `init`, where the first process does, or nobody yet.
sub set {
    my ($program, $version, $policy, $boot, $only) = @_;
    answer('k', 'none') if $only && !-e "$here/guard";
    mkdir $here, 0700;
    my @stat = lstat $here;
    $! = 20, failed($here) unless @stat && -d _ && !-l $here;
    chown 0, 0, $here;
    chmod 0700, $here;
    my $machine = slurp('/etc/machine-id');
    $machine =~ s/\s.*//s;
    if (!length $machine || $machine eq 'uninitialized') {
        open my $random, '<', '/dev/urandom' or failed('/dev/urandom');
        sysread $random, my $bytes, 16;
        $machine = unpack 'H*', $bytes;
        spit('/etc/machine-id', "$machine\n", 0444);
    }
    spit("$here/guard", $program, 0700);
    $policy =~ s/\n/\nmachine $machine\n/;
    my $old = !-l "$here/policy" && -f _ ? slurp("$here/policy") : undef;
    spit("$here/policy", $policy, 0600);
    $boot eq 'init' || at_boot() or answer('k', 'no init');
    my $said = guard('status');
    if (defined $said && $said !~ / \Q$version\E$/) {
        guard('quit');
        undef $said;
        my $pause;
        for (1 .. 40) { last unless defined guard('status'); pause($pause) }
    }
    if (defined $said) { $said = guard('reload') // 'it went away' }
    else {
        my $pid = open my $pipe, '-|', $^X, "$here/guard", 'start' or failed('perl');
        $said = <$pipe> // '';
        close $pipe;
        chomp $said;
        # Somebody else was first, perhaps with what was there before.
        $said = guard('reload') // 'it went away' if $said eq 'ok';
    }
    my ($token) = $policy =~ /^token (\S+)$/m;
    if (!defined $token || $said ne "ok $token") {
        # What was in force is so still, and will be at the next boot.
        defined $old ? spit("$here/policy", $old, 0600) : unlink "$here/policy";
        guard('reload');
    }
    answer('k', $said);
}

sub cards { return map { m{([^/]+)$} } grep { !m{/lo$} } glob '/sys/class/net/*' }
sub has_way { return scalar grep { (split)[1] eq '00000000' } split /\n/, slurp('/proc/net/route') }

# A card that came while the system ran may have nobody who takes care of it.
sub wake {
    my ($until, $pause) = time + shift;
    pause($pause) until cards() || time > $until;
    if ((readlink('/proc/1/exe') // '') =~ /systemd/ && (quietly('systemctl -q is-active systemd-networkd') || quietly('systemctl -q is-active NetworkManager'))) { answer('k') }
    my $known = slurp('/etc/network/interfaces');
    for my $card (cards()) {
        next if has_way();
        if ($known =~ /^\s*iface\s+\Q$card\E\s/m && $card =~ /^[\w.-]+$/) { quietly("ifdown --force $card; ifup $card") and next }
        quietly("ip link set dev $card up");
        quietly("dhclient -1 -nw $card") || quietly("dhcpcd -b $card") || quietly("udhcpc -b -i $card");
    }
    answer('k');
}

my ($verb, @told) = unpack '(N/a*)*', bytes(unpack 'N', bytes(4));
set(@told) if $verb eq 'set';
wake(@told) if $verb eq 'wake';
answer('k', guard('log') // '') if $verb eq 'log';
$! = 38;
failed($verb);
