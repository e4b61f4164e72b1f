# Runs one command in the guest, and knows how it ended. What it runs comes on standard input, so
# that nothing of it is in an argument list: a length, then fields with a length each.
#
# On standard output it says one byte when it listens, then the command's process id in twelve bytes;
# all after that is the command's. Signal n for the command arrives as signal 33 + n; SIGTERM kills
# the whole tree. How it ended, where the exit code does not tell, is in the file named by the id.
use strict;
my %prctl = (x86_64 => 157, i686 => 172, aarch64 => 167, riscv64 => 167, armv7l => 172, armv8l => 172,
    ppc64le => 171, s390x => 172, loongarch64 => 167);
my $kernel;
my $machine = open($kernel, '<', '/proc/sys/kernel/arch') ? <$kernel> : `uname -m`;
my $prctl = $prctl{ ($machine || '') =~ /(\S+)/ ? $1 : '' };
sub control { syscall($prctl, $_[0], $_[1] + 0, 0, 0, 0) if $prctl }

sub bytes {
    my ($want, $got) = ($_[0], '');
    while (length($got) < $want) {
        my $count = sysread(STDIN, $got, $want - length($got), length($got));
        next if !defined $count && $!{EINTR};
        exit 125 unless $count;
    }
    return $got;
}

sub say_all {
    my $text = shift;
    while (length $text) {
        my $count = syswrite(STDOUT, $text);
        next if !defined $count && $!{EINTR};
        return unless $count;
        substr($text, 0, $count) = '';
    }
}

my $terminal = -t STDIN;
my $settings;
if ($terminal) {
    require POSIX;
    $settings = POSIX::Termios->new;
    $settings->getattr(0);
    my $raw = POSIX::Termios->new;
    $raw->getattr(0);
    $raw->setlflag(0);
    $raw->setiflag(0);
    $raw->setoflag(0);
    $raw->setcc(POSIX::VMIN(), 1);
    $raw->setattr(0, POSIX::TCSANOW());
}
$SIG{$_} = sub { } for qw(INT QUIT TSTP TTIN TTOU HUP PIPE);
say_all("\1");
my ($id, $user, $cwd, $detached, $pairs, @rest) = unpack('(N/a*)*', bytes(unpack 'N', bytes(4)));
$settings->setattr(0, POSIX::TCSANOW()) if $terminal;
my @pairs = splice @rest, 0, 2 * $pairs;

sub end {
    my ($word, $code) = @_;
    if (open my $file, '>', "/run/.sandscript.$id") {
        print $file $word;
        close $file;
    }
    exit $code;
}

# The names of signals, by number. Config would know them; reading it takes a third of the start.
my %signals = (15 => 'TERM', 34 => 'RTMIN', 64 => 'RTMAX', map { ($_ => "NUM$_") } 35 .. 63);

# Passes these signals on to the process that `$$to` names, less so much; those that come before there is one
# wait for it.
my @early;
sub forward {
    my ($to, $less, @numbers) = @_;
    for my $number (@numbers) {
        my $name = $signals{$number};
        $SIG{$name} = sub { $$to ? kill($number - $less, $$to) : push @early, $number - $less };
    }
}

# The keeper outlives what the server kills: when this process goes, it ends the tree.
# An agent is what the server kills, and this process is the keeper.
my $parent = getppid;
unless ($Agent::is_here) {
    my $keeper;
    forward(\$keeper, 0, 15, 34 .. 64);
    $keeper = fork // end("start " . ($! + 0), 125);
    if ($keeper) {
        kill $_, $keeper for splice @early;
        1 while waitpid($keeper, 0) < 0 && $!{EINTR};
        exit($? & 127 ? 128 + ($? & 127) : $? >> 8);
    }
    @early = ();
    $parent = getppid;
}

$SIG{TERM} = 'DEFAULT';
control(36, 1);
control(1, 15) unless $detached;

my ($name, $group) = split /:/, $user, 2;
$name = '' unless defined $name;
my $number = $name =~ /^\d{1,10}$/ && $name < 4294967295;
my @found = $number ? getpwuid($name) : length $name ? getpwnam($name) : ();
end('user', 125) unless @found || $number;
my ($account, $uid, $gid, $home, $shell) =
    @found ? @found[0, 2, 3, 7, 8] : ($name, $name + 0, $name + 0, '/', '/bin/sh');
my @groups;
if (defined $group) {
    $gid = $group =~ /^\d{1,10}$/ ? $group + 0 : length $group ? getgrnam($group) : undef;
    end('user', 125) unless defined $gid;
} elsif (@found) {
    setgrent;
    while (my @row = getgrent) {
        push @groups, $row[2] if grep { $_ eq $account } split ' ', $row[3];
    }
    endgrent;
}

pipe(my $told, my $tell) or end("start " . ($! + 0), 125);
my $child;
forward(\$child, 33, 34 .. 64);
$child = fork // end("start " . ($! + 0), 125);
if (!$child) {
    my $fail = sub { syswrite $tell, "$_[0] " . ($! + 0); kill 'KILL', $$ };
    $SIG{$_} = 'DEFAULT' for grep { $_ ne 'FPE' && defined $SIG{$_} } keys %SIG;
    close $told;
    setpgrp(0, 0) unless $terminal;
    umask 022;
    $( = $gid;
    $) = join ' ', $gid, $gid, @groups;
    $< = $uid;
    $> = $uid;
    $! = 1;
    $fail->('user') if $< != $uid || $> != $uid;
    control(1, 9) unless $detached;
    my $term = $ENV{TERM};
    %ENV = (
        PATH => '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
        HOME => $home, USER => $account, LOGNAME => $account, SHELL => $shell || '/bin/sh',
        LANG => 'C.UTF-8', container => 'sandscript', @pairs);
    $ENV{TERM} = $term || 'xterm' if $terminal && !defined $ENV{TERM};
    if (length $cwd) { chdir $cwd or $fail->('cwd') }
    else { chdir $home or chdir '/' }
    say_all(sprintf "%012d", $$);
    no warnings;
    exec { $rest[0] } @rest;
    $fail->('exec');
}
close $tell;
kill $_, $child for splice @early;

# Every process below this one, but those that have ended.
sub below {
    my (%children, @found);
    opendir my $folder, '/proc' or return;
    for my $process (grep { /^\d+$/ } readdir $folder) {
        open my $file, '<', "/proc/$process/stat" or next;
        my $line = do { local $/; <$file> };
        push @{ $children{$2} }, [$process, $1] if defined $line && $line =~ /^.*\) (\S) (\d+)/s;
    }
    my @todo = ($$);
    while (defined(my $next = shift @todo)) {
        for my $row (@{ $children{$next} || [] }) {
            push @todo, $row->[0];
            push @found, $row->[0] if $row->[1] ne 'Z';
        }
    }
    return @found;
}

my $slay = sub {
    my $pause = 0.001;
    for (1 .. 1000) {
        my @all = below() or last;
        kill 'KILL', @all;
        select undef, undef, undef, $pause;
        $pause *= 1.5 if $pause < 0.1;
    }
};
$SIG{TERM} = $slay;
$slay->() if !$detached && getppid != $parent;
my $why = '';
1 while (sysread($told, $why, 100, length $why) // ($!{EINTR} ? 1 : 0)) > 0;
my $status = -1;
while ($status < 0) {
    my $ended = wait;
    $status = $? if $ended == $child;
    last if $ended < 0 && !$!{EINTR};
}
end($why, 125) if length $why;
end('signal ' . ($status & 127), 128 + ($status & 127)) if $status & 127;
my $code = $status >> 8;
# The server takes the first two for its own failures; without a word, the others say that this
# process was killed.
end("code $code", 125) if $code == 126 || $code == 127;
end("code $code", $code) if $code > 128;
exit $code;
