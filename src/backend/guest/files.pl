# Works on the guest's files, from inside. Requests come on standard input, answers go to standard
# output: each a length, then fields with a length each. An answer begins with 'k', or with 'e', the
# error's number and what it is about. Streams are chunks with a length each; an empty one ends them.
use strict;
use Fcntl qw(:DEFAULT :flock :mode);
$SIG{PIPE} = 'IGNORE';
umask 022;

sub bytes {
    my ($want, $got) = ($_[0], '');
    while (length($got) < $want) {
        my $count = sysread(STDIN, $got, $want - length($got), length($got));
        next if !defined $count && $!{EINTR};
        gone() unless $count;
    }
    return $got;
}

# What is half written when the other side goes.
my $part;
sub gone { unlink $part if defined $part; exit 0 }
$SIG{TERM} = \&gone;
$SIG{HUP} = \&gone;

sub frame { return bytes(unpack 'N', bytes(4)) }

sub put {
    my $text = shift;
    while (length $text) {
        my $count = syswrite(STDOUT, $text, 1 << 18);
        next if !defined $count && $!{EINTR};
        gone() unless $count;
        substr($text, 0, $count) = '';
    }
}

sub answer { my $body = pack('(N/a*)*', @_); put(pack('N', length $body) . $body) }
sub failed { answer('e', $! + 0, @_ ? $_[0] : '') }

# Waits a little, and longer the next time.
sub pause {
    $_[0] = !$_[0] ? 0.02 : $_[0] < 0.2 ? $_[0] * 1.5 : $_[0];
    select undef, undef, undef, $_[0];
}

sub ids {
    my ($name, $group) = split /:/, $_[0], 2;
    $name = '' unless defined $name;
    my $number = $name =~ /^\d{1,10}$/ && $name < 4294967295;
    my @found = $number ? getpwuid($name) : length $name ? getpwnam($name) : ();
    return unless @found || $number;
    my ($uid, $gid) = @found ? @found[2, 3] : ($name + 0, $name + 0);
    $gid = $group =~ /^\d{1,10}$/ ? $group + 0 : length $group ? getgrnam($group) : undef if defined $group;
    return unless defined $gid;
    return ($uid, $gid);
}

# Makes a directory and those above it; whether the last one was made, or undef.
sub mkdirs {
    my $path = shift;
    return 0 if -d $path;
    if ($path =~ m{^(.*[^/])/+[^/]+/*$}s) { defined mkdirs($1) or return undef }
    return 1 if mkdir $path, 0755;
    return -d $path ? 0 : undef;
}

# Where a path leads that may be a link: the place of what is written to it.
sub place {
    my $path = shift;
    for (1 .. 40) {
        return $path unless -l $path;
        my $target = readlink $path;
        my ($folder) = $path =~ m{^(.*/)[^/]*$}s;
        $path = $target =~ m{^/} ? $target : $folder . $target;
    }
    $! = 40;
    return undef;
}

sub entry {
    my ($name, $path) = @_;
    my @stat = lstat $path or return ();
    my $kind = S_ISDIR($stat[2]) ? 'd' : S_ISREG($stat[2]) ? 'f' : S_ISLNK($stat[2]) ? 'l' : 'o';
    my $target = $kind eq 'l' ? readlink($path) : '';
    return ($name, $kind, $stat[7], $stat[2] & 07777, $stat[4], $stat[5], $stat[9], $target);
}

sub remove_tree {
    my $path = shift;
    my @stat = lstat $path or return 0;
    return unlink $path unless S_ISDIR($stat[2]);
    opendir my $folder, $path or return 0;
    for my $name (grep { $_ ne '.' && $_ ne '..' } readdir $folder) {
        remove_tree("$path/$name") or $!{ENOENT} or return 0;
    }
    closedir $folder;
    return rmdir $path;
}

# What all files here take on btrfs: small ones lie in the tree itself, beside what is known of each.
sub size {
    my ($sum, %seen) = (0);
    my $device = (lstat '/')[0];
    my @todo = ('');
    while (defined(my $path = shift @todo)) {
        my @stat = lstat($path eq '' ? '/' : $path) or next;
        next if $stat[0] != $device || $seen{$stat[1]}++;
        $sum += 600 + ($stat[7] > 2048 ? $stat[12] * 512 : $stat[7]);
        S_ISDIR($stat[2]) && opendir my $folder, $path eq '' ? '/' : $path or next;
        push @todo, map { "$path/$_" } grep { $_ ne '.' && $_ ne '..' } readdir $folder;
    }
    return $sum;
}

# Which quotas the file system of / has, if it is btrfs.
sub quotas {
    open my $mounts, '<', '/proc/self/mountinfo' or return '';
    my ($line) = grep { (split)[4] eq '/' } <$mounts>;
    return '' unless defined $line && $line =~ m{ - btrfs /dev/(\S+)};
    (my $name = $1) =~ s{.*/}{};
    for my $folder (glob '/sys/fs/btrfs/*') {
        next unless -e "$folder/devices/$name" && open my $file, '<', "$folder/qgroups/mode";
        return (<$file> // '') =~ /^(\w+)/ ? $1 : '';
    }
    return '';
}

my $kept = '/etc/.sandscript-offline';
my $count = 0;
my %verbs = (
    stat => sub {
        my $path = shift;
        $path =~ s{(?<=.)/+$}{}s;
        my @entry = entry($path =~ m{([^/]+)$}s ? $1 : '/', $path) or return failed();
        answer('k', @entry);
    },
    list => sub {
        my $path = shift;
        opendir my $folder, $path or return failed();
        answer('k', map { entry($_, "$path/$_") } grep { $_ ne '.' && $_ ne '..' } readdir $folder);
    },
    read => sub {
        my ($path, $offset, $length) = @_;
        sysopen my $file, $path, O_RDONLY | O_NONBLOCK | O_NOCTTY or return failed();
        my @stat = stat $file or return failed();
        $! = 21, return failed() if S_ISDIR($stat[2]);
        $! = 6, return failed() unless S_ISREG($stat[2]);
        sysseek $file, $offset, 0 or return failed() if $offset;
        answer('k');
        while ($length eq '' || $length > 0) {
            my $want = $length eq '' || $length > 1 << 18 ? 1 << 18 : $length;
            my $read = sysread $file, my $data, $want;
            next if !defined $read && $!{EINTR};
            return put(pack 'NN', 0xffffffff, $! + 0) unless defined $read;
            last unless $read;
            put(pack('N', $read) . $data);
            $length -= $read unless $length eq '';
        }
        put(pack 'N', 0);
    },
    write => sub {
        my ($path, $mode, $owner, $parents) = @_;
        my ($uid, $gid);
        if (length $owner) { ($uid, $gid) = ids($owner) or return failed('user') }
        $path =~ s{(?<=.)/+$}{}s;
        if ($parents && $path =~ m{^(.+)/[^/]+$}s) { defined mkdirs($1) or return failed() }
        defined($path = place($path)) or return failed();
        my @old = lstat $path;
        return failed() if !@old && !$!{ENOENT};
        $! = 21, return failed() if @old && S_ISDIR($old[2]);
        $! = 6, return failed() if @old && !S_ISREG($old[2]);
        my ($folder) = $path =~ m{^(.*/)[^/]+$}s or do { $! = 21; return failed() };
        my $temporary = "$folder.sandscript.$$." . $count++;
        sysopen my $file, $temporary, O_WRONLY | O_CREAT | O_EXCL, 0600 or return failed();
        $part = $temporary;
        answer('k');
        my ($wrong, $end) = 0;
        while (1) {
            my $size = unpack 'N', bytes(4);
            $end = $size, last if $size == 0 || $size == 0xffffffff;
            my $data = bytes($size);
            while (!$wrong && length $data) {
                my $written = syswrite $file, $data;
                if (defined $written) { substr($data, 0, $written) = '' }
                else { $wrong = $! + 0 unless $!{EINTR} }
            }
        }
        ($uid, $gid) = @old ? @old[4, 5] : (0, 0) unless defined $uid;
        $mode = @old ? $old[2] & 07777 : 0644 if $mode eq '';
        unless ($end || $wrong) {
            $wrong = $! + 0 unless chown($uid, $gid, $file) && chmod($mode, $file) && close($file)
                && rename($temporary, $path);
        }
        unlink $temporary if $end || $wrong;
        undef $part;
        $! = $wrong;
        $wrong ? failed() : answer('k');
    },
    remove => sub {
        my ($path, $recursive) = @_;
        $path =~ s{/+$}{}s;
        $! = 16, return failed() if $path eq '' || $path =~ m{/\.\.?$};
        my @stat = lstat $path or return failed();
        my $done = !S_ISDIR($stat[2]) ? unlink $path : $recursive ? remove_tree($path) : rmdir $path;
        $done ? answer('k') : failed();
    },
    mkdir => sub {
        my ($path, $mode, $owner) = @_;
        my @ids;
        if (length $owner) { @ids = ids($owner) or return failed('user') }
        my $made = mkdirs($path);
        return failed() unless defined $made;
        if ($made) {
            chown @ids, $path or return failed() if @ids;
            chmod $mode, $path or return failed() if length $mode;
        }
        answer('k');
    },
    unpack => \&unpack_tree,
    offline => \&offline,
    online => \&online,
    user => sub { my @ids = ids(shift); @ids ? answer('k') : failed('user') },
    identity => \&identity,
    still => \&stand_still,
    size => sub { answer('k', size(), quotas()) },
    network => \&network,
    addresses => sub { answer('k', addresses()) },
    ssh => \&ssh,
    ports => sub { answer('k', ssh_ports()) },
    setup => \&setup,
    address => \&address,
);

sub addresses {
    return map { /^\d+: (?!lo )\S+\s+inet6? ([^\s\/]+)/ ? $1 : () } `ip -o addr show scope global 2>/dev/null`;
}

# The ports that an SSH server is to listen on.
sub ssh_ports {
    my @ports;
    for my $path ('/etc/ssh/sshd_config', glob '/etc/ssh/sshd_config.d/*.conf') {
        open my $file, '<', $path or next;
        push @ports, map { /^\s*Port[\s=]+(\d{1,5})\s*$/i && $1 > 0 && $1 < 65536 ? $1 : () } <$file>;
    }
    return @ports ? @ports : 22;
}

# The one that it listens on for others than this machine.
sub ssh_port {
    my %open;
    for my $path ('/proc/net/tcp', '/proc/net/tcp6') {
        open my $file, '<', $path or next;
        /^\s*\d+: ([0-9A-F]+):([0-9A-F]{4}) \S+ 0A / && $1 !~ /7F$|^0+1000000$/ && $open{ hex $2 }++ for <$file>;
    }
    return (grep { $open{$_} } ssh_ports())[0] || 0;
}

# How one comes in by SSH: the port, whether there is a server at all, its keys, the addresses. Waits so
# long for what is not there yet. A key that is told is let in as root. A word is written for whoever comes in
# and reads it: so it is known that it was this machine.
sub ssh {
    my ($key, $seconds, $proof, $word) = @_;
    my $until = time + $seconds;
    my $there = grep({ -x "$_/sshd" } qw(/usr/sbin /usr/local/sbin /sbin /usr/bin)) ? 1 : 0;
    my ($port, $pause, @addresses);
    while (1) {
        ($port, @addresses) = (ssh_port(), addresses());
        last if $port && @addresses || !$there || time >= $until;
        pause($pause);
    }
    let_in('root', $key) or return failed('authorized_keys') if $there && length $key;
    prove($proof, $word) or return failed('/run') if $there && defined $proof;
    my @keys;
    for my $path (glob '/etc/ssh/ssh_host_*_key.pub') {
        open my $file, '<', $path or next;
        push @keys, <$file>;
    }
    answer('k', $port, $there, join('', @keys), @addresses);
}

# Writes a word that only root reads. Those that nobody came for go.
sub prove {
    my ($path, $word) = @_;
    for my $old (glob '/run/.sandscript-met.*') {
        my @stat = lstat $old;
        unlink $old if @stat && time - $stat[9] > 600;
    }
    sysopen my $file, $path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600 or return 0;
    return print({$file} $word) && close $file;
}

# Lets a key in as a user.
sub let_in {
    my ($user, $key) = @_;
    my ($uid, $gid, $home) = (getpwnam $user)[2, 3, 7];
    $! = 2, return 0 unless defined $home;
    my $folder = "$home/.ssh";
    my $path = "$folder/authorized_keys";
    my $old = '';
    if (open my $file, '<', $path) { local $/; $old = <$file> // '' }
    my $data = (split ' ', $key)[1];
    return 1 if grep { !/^\s*#/ && grep { $_ eq $data } split } split /\n/, $old;
    if (mkdir $folder, 0700) { chown $uid, $gid, $folder }
    $old .= "\n" if length $old && $old !~ /\n\z/;
    my $part = "$path.sandscript.$$";
    sysopen my $file, $part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600 or return 0;
    my $done = chown($uid, $gid, $file) && print({$file} "$old$key\n") && close($file) && rename $part, $path;
    unlink $part unless $done;
    return $done;
}

my ($setup_log, $setup_done) = ('/var/log/sandscript-setup.log', '/var/lib/sandscript-setup');
my $setup_lock = '/run/.sandscript-setup';
sub note {
    open my $file, '>>', $setup_log or return;
    print $file map { "$_\n" } map { split /\n/ } @_;
}

# Runs a program, whose output is noted: why it failed, or nothing.
sub run_noted {
    my @argv = @_;
    # A file, not a pipe: what was begun goes on to its end when this is cut off.
    open my $out, '+>', undef or return "$argv[0]: $!";
    my $pid = fork // return "$argv[0]: $!";
    if (!$pid) {
        $SIG{$_} = 'DEFAULT' for qw(PIPE HUP TERM);
        $ENV{DEBIAN_FRONTEND} = 'noninteractive';
        open STDIN, '<', '/dev/null';
        open STDOUT, '>&', $out;
        open STDERR, '>&', \*STDOUT;
        no warnings;
        # Keeps the lock of a setup to the program's end: what that leaves in the background does not have it.
        my $own = fork // do { print "$!\n"; exit 127 };
        if ($own) {
            waitpid $own, 0;
            exit($? ? 1 : 0);
        }
        exec { $argv[0] } @argv;
        print "$!\n";
        exit 127;
    }
    waitpid $pid, 0;
    my $failed = $?;
    seek $out, 0, 0;
    my @said = <$out>;
    note(join '', @said);
    return unless $failed;
    my ($why) = ((grep { /^(E:|Err|error)/i } @said), reverse grep { /\S/ } @said);
    chomp($why = defined $why ? $why : 'it failed');
    return "$argv[0]: $why";
}

my %steps = (
    user => sub {
        my $name = shift;
        return if defined getpwnam $name;
        my $shell = -x '/bin/bash' ? '/bin/bash' : '/bin/sh';
        return run_noted('useradd', '-m', '-s', $shell, $name) if grep { -x "$_/useradd" } split /:/, $ENV{PATH};
        return run_noted('adduser', '-D', '-s', $shell, $name);
    },
    key => sub {
        my ($user, $key) = split ' ', $_[0], 2;
        return let_in($user, $key) ? undef : "$!";
    },
    dns => sub {
        my @servers = split ' ', $_[0];
        if (-d '/run/systemd/resolve') {
            mkdir '/etc/systemd/resolved.conf.d', 0755;
            spit('/etc/systemd/resolved.conf.d/sandscript.conf', "[Resolve]\nDNS=@servers\nDomains=~.\n") or return "resolved: $!";
            return run_noted('systemctl', 'restart', 'systemd-resolved.service');
        }
        my $dhcp = '/etc/dhcp/dhclient.conf';
        if (-e $dhcp) {
            my @kept = grep { !/# sandscript$/ } slurp($dhcp) =~ /.*\n/g;
            my @four = grep { !/:/ } @servers;
            my $line = @four ? 'supersede domain-name-servers ' . join(', ', @four) . "; # sandscript\n" : '';
            spit($dhcp, join '', @kept, $line) or return "$dhcp: $!";
        }
        unlink '/etc/resolv.conf' if -l '/etc/resolv.conf';
        spit('/etc/resolv.conf', join '', map { "nameserver $_\n" } @servers) or return "/etc/resolv.conf: $!";
        return;
    },
    tools => sub {
        my @tools = split ' ', $_[0];
        my $has = sub { my $program = shift; scalar grep { -x "$_/$program" } split /:/, $ENV{PATH} };
        if ($has->('apt-get')) {
            my @missing = grep {
                my ($name, $version) = /^([^=:]+)[^=]*(?:=(.*))?/;
                my ($there, $is) = split /\n/, `dpkg-query -W -f='\${Status}\n\${Version}' $name 2>/dev/null`;
                ($there // '') ne 'install ok installed' || defined $version && ($is // '') ne $version;
            } @tools;
            return unless @missing;
            my $why = run_noted('apt-get', 'update', '-q');
            return $why if defined $why;
            return run_noted('apt-get', 'install', '-y', '-q', '--no-install-recommends', '--', @missing);
        }
        return run_noted('apk', 'add', '--no-progress', @tools) if $has->('apk');
        return run_noted('dnf', 'install', '-y', '-q', @tools) if $has->('dnf');
        return 'there is no apt-get, apk or dnf in its image';
    },
);

# Puts into a new guest what it is asked for, step by step. What is done is noted, and not done again.
sub setup {
    my ($name, @todo) = @_;
    # Of one that was cut off the last step may still go on, and who waits for its end holds this, too.
    sysopen my $lock, $setup_lock, O_RDWR | O_CREAT | O_NOFOLLOW, 0600 or return failed($setup_lock);
    until (flock $lock, LOCK_EX) { return failed($setup_lock) unless $!{EINTR} }
    my %done = map { $_ => 1 } split /\n/, slurp($setup_done);
    while (my ($what, $of) = splice @todo, 0, 2) {
        my $line = "$what $of";
        next if $done{$line};
        note("$what: " . substr $of, 0, 200);
        my $why = $steps{$what} ? $steps{$what}->($of) : 'it is not known';
        if (defined $why) {
            note("failed: $why");
            return answer('k', 'failed', "$what " . substr($of, 0, 60), $why);
        }
        open my $file, '>>', $setup_done or return failed($setup_done);
        print $file "$line\n";
        close $file or return failed($setup_done);
    }
    answer('k', 'done');
}

# Gives the card an address that it always has, whoever brings the network up. It is this machine's and no
# clone's. With one of IPv6 those of IPv4 come as before.
my ($interfaces, $networkd, $mapper) = ('/etc/network/interfaces', '/etc/systemd/network/00-sandscript.network', '/etc/network/sandscript-own');
sub address {
    my ($address, $gateway) = @_;
    my $six = $address =~ /:/;
    my $machine = machine();
    if (-e $interfaces) {
        my $text = slurp($interfaces);
        # Only Debian's knows mappings.
        my $mapped = -e '/etc/debian_version';
        my $card = $mapped ? 'eth0-own' : 'eth0';
        my $own = $six ? "iface $card inet6 static\n    address $address\n    accept_ra 1\n" . ($mapped ? "iface $card inet dhcp\n" : '')
            : "iface $card inet static\n    address $address\n" . (length $gateway ? "    gateway $gateway\n" : '');
        $own = "mapping eth0\n    script $mapper\n    map $machine\n$own" if $mapped;
        if (index($text, $own) < 0) {
            my $old = $mapped ? qr/^mapping\s+eth0\b|^iface\s+eth0-own\s/ : $six ? qr/^iface\s+eth0\s+inet6\s/ : qr/^iface\s+eth0\s/;
            my @blocks = grep { !/$old/ } split /^(?=auto|allow-|iface|mapping|source)/m, $text;
            $blocks[-1] .= "\n" if @blocks && $blocks[-1] !~ /\n\z/;
            push @blocks, "auto eth0\n" unless grep { /^(auto|allow-hotplug)\s+eth0\b/ } @blocks;
            # What asks for a lease must not come back later.
            quietly('systemctl stop networking.service');
            quietly('ifdown --force eth0');
            for my $path (glob '/proc/[0-9]*/comm') {
                kill 'KILL', $path =~ /(\d+)/ if slurp($path) =~ /^(dhclient|dhcpcd|udhcpc)$/;
            }
            if ($mapped) {
                spit($mapper, "#!/bin/sh\nread own\n[ \"\$own\" = \"\$(cat /etc/machine-id)\" ] && echo eth0-own || echo eth0\n") && chmod 0755, $mapper
                    or return failed($mapper);
            }
            spit($interfaces, join '', @blocks, $own) or return failed($interfaces);
            quietly("ip -" . ($six ? 6 : 4) . " addr flush dev eth0 scope global");
            quietly('systemctl start networking.service') || quietly('ifup --force eth0') unless -e $kept;
        }
    } elsif (-d '/etc/systemd/network') {
        my $own = "[Match]\nName=eth0\nHost=$machine\n[Network]\nAddress=$address\n" . (length $gateway ? "Gateway=$gateway\nDNS=$gateway\n" : '')
            . ($six ? "DHCP=ipv4\nIPv6AcceptRA=yes\n" : '');
        if (slurp($networkd) ne $own) {
            spit($networkd, $own) or return failed($networkd);
            quietly('networkctl reload && networkctl reconfigure eth0') unless -e $kept;
        }
    } else {
        $! = 95;
        return failed('address');
    }
    my $names = slurp('/etc/resolv.conf');
    if ($names !~ /^\s*nameserver\s/m && length $gateway) {
        unlink '/etc/resolv.conf';
        spit('/etc/resolv.conf', "nameserver $gateway\n") or return failed('/etc/resolv.conf');
    }
    answer('k');
}

sub machine { (my $own = slurp('/etc/machine-id')) =~ s/\s+$//; return $own }

# Whether this machine always has an address of IPv6: then its way out may be by that alone.
sub has_six {
    my $own = machine();
    my $text = slurp($interfaces);
    return 1 if $text =~ /^iface\s+eth0-own\s+inet6\s+static/m && $text =~ /^\s+map \Q$own\E$/m;
    return 1 if $text =~ /^iface\s+eth0\s+inet6\s+static/m;
    my $other = slurp($networkd);
    return $other =~ /^Host=\Q$own\E$/m && $other =~ /^Address=[^\n]*:/m;
}

sub slurp { open my $file, '<', $_[0] or return ''; local $/; my $text = <$file>; return $text // '' }
sub spit { open my $file, '>', $_[0] or return 0; return print({$file} $_[1]) && close $file }

# Waits until there is a way out and somebody to ask for names.
sub network {
    my $until = time + shift;
    my $six = has_six();
    my $pause;
    while (1) {
        my ($route, $names);
        if (open my $file, '<', '/proc/net/route') { $route = grep { (split)[1] eq '00000000' } <$file> }
        if (open my $file, '<', '/etc/resolv.conf') { $names = grep { /^\s*nameserver\s/ } <$file> }
        return answer('k', 'up') if $route && $names;
        if ($six && open my $file, '<', '/proc/net/ipv6_route') {
            return answer('k', 'up') if grep { /^0{32} 00 / && !/\blo$/ } <$file>;
        }
        return answer('k', 'down') if time > $until;
        pause($pause);
    }
}

# Writes what is told of a tree: 'd' and 'f' with mode, time and name, 'c' for a file's bytes, 'l' and
# 'h' with target and name. A link on the way to a name is not followed.
sub unpack_tree {
    my ($base, $owner) = @_;
    my @ids = (0, 0);
    if (length $owner) { @ids = ids($owner) or return failed('user') }
    my $made = mkdirs($base);
    return failed() unless defined $made;
    chown @ids, $base if $made;
    answer('k');
    my (%known, @folders, $file, $current, $wrong, $where, $end);
    my $folder;
    $folder = sub {
        my $name = shift;
        return 1 if $name eq '' || $known{$name};
        $folder->($name =~ m{^(.+)/[^/]+$}s ? $1 : '') or return 0;
        my @stat = lstat "$base/$name";
        if (!@stat) {
            mkdir "$base/$name", 0755 or return 0;
            chown @ids, "$base/$name";
        } elsif (!S_ISDIR($stat[2])) {
            $! = 20;
            return 0;
        }
        return $known{$name} = 1;
    };
    my $clear = sub {
        my $name = shift;
        $folder->($name =~ m{^(.+)/[^/]+$}s ? $1 : '') or return 0;
        my @stat = lstat "$base/$name" or return 1;
        %known = () if S_ISDIR($stat[2]);
        return S_ISDIR($stat[2]) ? rmdir "$base/$name" : unlink "$base/$name";
    };
    my $close = sub {
        return 1 unless $file;
        my ($mode, $time, $path) = @$current;
        my $done = chown(@ids, $file) && chmod($mode, $file) && close($file) && utime($time, $time, $path);
        undef $file;
        return $done;
    };
    my %kinds = (
        d => sub {
            my ($mode, $time, $name) = @_;
            if ($name ne '') {
                my @stat = lstat "$base/$name";
                if (@stat && !S_ISDIR($stat[2])) { unlink "$base/$name" or return 0 }
                $folder->($name) or return 0;
                push @folders, [$mode, $time, "$base/$name"];
            }
            return 1;
        },
        f => sub {
            my ($mode, $time, $name) = @_;
            $clear->($name) or return 0;
            sysopen $file, "$base/$name", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600 or return 0;
            $current = [$mode, $time, "$base/$name"];
            return 1;
        },
        c => sub {
            my $data = shift;
            while (length $data) {
                my $written = syswrite $file, $data;
                if (defined $written) { substr($data, 0, $written) = '' }
                else { return 0 unless $!{EINTR} }
            }
            return 1;
        },
        l => sub {
            my ($target, $name) = @_;
            $clear->($name) && symlink $target, "$base/$name" or return 0;
            return system_lchown(@ids, "$base/$name");
        },
        h => sub {
            my ($target, $name) = @_;
            $folder->($target =~ m{^(.+)/[^/]+$}s ? $1 : '') or return 0;
            my @stat = lstat "$base/$target" or return 0;
            $! = 22, return 0 if S_ISDIR($stat[2]);
            return 1 if $target eq $name;
            return $clear->($name) && link "$base/$target", "$base/$name";
        },
    );
    while (1) {
        my ($kind, @told) = unpack '(N/a*)*', frame();
        $end = $kind, last if $kind eq '.' || $kind eq '!';
        next if defined $wrong;
        my $done = ($kind eq 'c' || $close->()) && $kinds{$kind}->(@told);
        ($wrong, $where) = ($! + 0 || 5, $kind eq 'c' ? $current->[2] : "$base/$told[-1]") unless $done;
    }
    ($wrong, $where) = ($! + 0, $current->[2]) if !defined $wrong && !$close->();
    for my $row (sort { length $b->[2] <=> length $a->[2] } @folders) {
        my ($mode, $time, $path) = @$row;
        next if -l $path || !-d $path;
        my $done = chown(@ids, $path) && chmod($mode, $path) && utime($time, $time, $path);
        ($wrong, $where) = ($! + 0, $path) unless $done || defined $wrong;
    }
    $! = $wrong || 0;
    defined $wrong ? failed($where) : answer('k');
}

# Lets every other process stand still until the next request. Should this process be killed
# meanwhile, another one lets them go on.
sub stand_still {
    my (%seen, @stopped);
    my $pause = 0.0002;
    for my $round (1 .. 100) {
        my $moving = 0;
        opendir my $folder, '/proc' or return failed();
        for my $process (grep { /^\d+$/ && $_ != 1 && $_ != $$ && $_ != getppid } readdir $folder) {
            open my $file, '<', "/proc/$process/stat" or next;
            my $line = do { local $/; <$file> };
            my ($state) = defined $line && $line =~ /^.*\) (\S) /s or next;
            next if $state =~ /[ZX]/;
            if (!defined $seen{$process}) {
                # One that somebody has stopped stays so.
                $seen{$process} = $state eq 'T' ? 0 : kill 'STOP', $process;
                push @stopped, $process if $seen{$process};
                $moving = 1;
            } elsif ($state ne 'T' && $state ne 't') {
                # One that waits for the kernel to do something does nothing else.
                $moving = 1 if $state ne 'D' || $round < 10;
            }
        }
        last unless $moving;
        select undef, undef, undef, $pause;
        $pause *= 1.4 if $pause < 0.01;
    }
    pipe(my $told, my $tell) or return failed();
    my $watcher = fork // return failed();
    if (!$watcher) {
        close $tell;
        sysread $told, my $nothing, 1;
        kill 'CONT', @stopped;
        kill 'KILL', $$;
    }
    close $told;
    answer('k');
    frame();
    close $tell;
    waitpid $watcher, 0;
    answer('k');
}

# What brings a network up, and where it says which of it was kept from that.
my @units = qw(networking.service systemd-networkd.service systemd-networkd.socket NetworkManager.service dhcpcd.service);
my ($etc, $unit) = ('/etc/systemd/system', 'sandscript-offline.service');
sub cards { return map { m{([^/]+)$} } grep { !m{/lo$} } glob '/sys/class/net/*' }
sub is_up {
    open my $file, '<', "/sys/class/net/$_[0]/flags" or return 0;
    my $flags = <$file>;
    return defined $flags && hex($flags) & 1;
}
sub quietly { return system("$_[0] >/dev/null 2>&1 </dev/null") == 0 }

# Takes the network away, now and before it comes up at each boot.
sub offline {
    my $until = time + shift;
    my $boots = -d $etc && readlink('/proc/1/exe') =~ /systemd/;
    my @new;
    if ($boots) {
        @new = grep { symlink '/dev/null', "$etc/$_" } @units;
        if (!-e "$etc/$unit" || @new) {
            my $down = 'for card in /sys/class/net/*; do case $card in */lo) ;; *) ip link set dev ${card##*/} down ;; esac; done';
            open my $file, '>', "$etc/$unit" or return failed();
            print $file "[Unit]\nDefaultDependencies=no\nBefore=network-pre.target sysinit.target\n[Service]\n",
                "Type=oneshot\nExecStart=/bin/sh -c '", $down =~ s/\$/\$\$/gr, "'\n[Install]\nWantedBy=sysinit.target\n";
            close $file or return failed();
            mkdir "$etc/sysinit.target.wants", 0755;
            symlink "../$unit", "$etc/sysinit.target.wants/$unit";
            open my $list, '>>', $kept or return failed();
            print $list "$_\n" for @new;
            close $list;
        }
    }
    my ($stopped, $pause) = !@new;
    while (1) {
        # Early in its boot the system takes no orders yet.
        $stopped ||= quietly('systemctl daemon-reload') && (quietly("systemctl stop @new") || 1);
        for my $card (grep { is_up($_) } cards()) { quietly("ip link set dev $card down") }
        quietly("ip addr flush dev $_") for cards();
        return answer('k', 'down') if $stopped && !grep { is_up($_) } cards();
        return answer('k', 'up') if time > $until;
        pause($pause);
    }
}

# Gives it back, and waits for it.
sub online {
    my $seconds = shift;
    if (-e $kept) {
        open my $file, '<', $kept or return failed();
        my @mine = grep { (readlink("$etc/$_") // '') eq '/dev/null' } map { split } <$file>;
        unlink "$etc/$_" for @mine, $unit, "sysinit.target.wants/$unit";
        # Those that were there before the first boot.
        for my $one (@units, 'ifup@.service') {
            unlink "$etc/$one.d/sandscript-offline.conf" or next;
            rmdir "$etc/$one.d";
            push @mine, $one unless $one =~ /@/ || grep { $_ eq $one } @mine;
        }
        unlink $kept;
        my ($until, $pause) = time + $seconds;
        until (quietly('systemctl daemon-reload')) {
            return answer('k', 'down') if time > $until;
            pause($pause);
        }
        # Stopped while it was masked, ifupdown takes its cards for configured still.
        quietly("ifdown --force $_") for grep { /^[\w.-]+$/ } cards();
        quietly("ip link set dev $_ up") for cards();
        for my $one (grep { quietly("systemctl is-enabled $_") } @mine) { quietly("systemctl restart --no-block $one") }
    }
    network($seconds);
}

sub system_lchown {
    my ($uid, $gid, $path) = @_;
    return 1 if $uid == 0 && $gid == 0;
    return system('chown', '-h', '--', "$uid:$gid", $path) == 0;
}

# Makes the guest this machine and no other: its name, and keys for SSH that only it has.
# At each boot systemd empties /tmp: what is written there earlier would go.
sub emptied {
    my $service = 'systemd-tmpfiles-setup.service';
    return unless readlink('/proc/1/exe') =~ /systemd/ && grep { -e "$_/$service" } '/lib/systemd/system', '/usr/lib/systemd/system';
    my ($until, $pause) = time + 15;
    while (time < $until) {
        my $is = `systemctl show -p ActiveState -p UnitFileState -p Job $service 2>/dev/null`;
        return if $is =~ /^ActiveState=(?:active|failed)$/m || $is =~ /^UnitFileState=masked/m;
        # It is about to begin, unless it is not wanted.
        return if $is =~ /^ActiveState=inactive$/m && $is !~ /^Job=\d/m && -e '/run/systemd/units/invocation:systemd-journald.service'
            && `systemctl is-active sysinit.target 2>/dev/null` =~ /^active/;
        pause($pause);
    }
}

sub identity {
    my ($hostname, $server, @env) = @_;
    emptied();
    my ($slurp, $spit) = (\&slurp, \&spit);
    (my $now = $slurp->('/proc/sys/kernel/hostname')) =~ s/\s+$//;
    if ($now ne $hostname) {
        $spit->('/proc/sys/kernel/hostname', "$hostname\n") or system 'hostname', $hostname;
    }
    (my $old = $slurp->('/etc/hostname')) =~ s/\s+$//;
    if ($old ne $hostname) {
        $spit->('/etc/hostname', "$hostname\n") or return failed();
        my $hosts = $slurp->('/etc/hosts');
        $spit->('/etc/hosts', $hosts) if length $old && $hosts =~ s/(?<![\w.-])\Q$old\E(?![\w.-])/$hostname/g;
    }
    (my $machine = $slurp->('/etc/machine-id')) =~ s/\s+$//;
    my $stamp = '/etc/ssh/.machine';
    my @keys = glob '/etc/ssh/ssh_host_*_key';
    if (@keys && $slurp->($stamp) ne $machine) {
        unlink $_, "$_.pub" for @keys;
        for my $key (@keys) {
            my ($kind) = $key =~ /ssh_host_(\w+)_key$/;
            system("ssh-keygen -q -t $kind -N '' -f $key </dev/null >/dev/null 2>&1");
        }
        $spit->($stamp, $machine);
        system '(systemctl try-restart ssh.service sshd.service || true) >/dev/null 2>&1';
    }
    # Of a resolver of the guest's own nobody knows whom it asks; any other server will do.
    if (length($server // '') && $slurp->('/etc/resolv.conf') !~ /^\s*nameserver\s+(?!127\.|::1\b)\S/m) {
        unlink '/etc/resolv.conf';
        $spit->('/etc/resolv.conf', "nameserver $server\n") or return failed();
    }
    # Logins have the environment that commands have.
    my $all = $slurp->('/etc/environment');
    my ($begin, $end) = ("# begin sandscript\n", "# end sandscript\n");
    (my $rest = $all) =~ s/\Q$begin\E.*?\Q$end\E//s;
    my $own = '';
    while (my ($key, $value) = splice @env, 0, 2) {
        # That file has no way to write these.
        next if $value =~ /["\n\\]/;
        $own .= "$key=\"$value\"\n";
    }
    $rest .= "\n" if length $own && length $rest && $rest !~ /\n\z/;
    my $new = length $own ? "$rest$begin$own$end" : $rest;
    if ($new ne $all) { $spit->('/etc/environment', $new) or return failed('/etc/environment') }
    answer('k', $machine);
}

answer('k');
while (1) {
    my ($verb, @told) = unpack '(N/a*)*', frame();
    my $work = $verbs{$verb};
    $! = 38, failed(), next unless $work;
    $work->(@told);
}
