# Carries the streams of many programs over one terminal. Frames in both directions: a letter, a
# channel, a length, the rest. Streams have windows: who sends more than was granted waits.
package Agent;
use strict;
# Reading a program takes longer than starting it: it is read once, in a package of its own, and run by each
# process that is to be it. Nothing of what follows is seen in there.
sub learn { return eval("package Agent::P$_[0];\nsub run {\n$_[1]\n}\n\\&run") || do { my $why = $@; sub { print STDERR $why } } }
our $is_here = 1;
use Fcntl;
my %prctl = (x86_64 => 157, i686 => 172, aarch64 => 167, riscv64 => 167, ppc64le => 171, s390x => 172);
my $kernel;
my $machine = open($kernel, '<', '/proc/sys/kernel/arch') ? <$kernel> : `uname -m`;
close $kernel if $kernel;
my %setsid = (x86_64 => 112, i686 => 66, aarch64 => 157, riscv64 => 157, ppc64le => 66, s390x => 66);
my $kind = ($machine || '') =~ /(\S+)/ ? $1 : '';
my ($prctl, $setsid) = ($prctl{$kind}, $setsid{$kind});
my $window = 1 << 18;
my ($in, $out, %programs, %channels) = ('', '');
pipe my $woken, my $waker or die "pipe: $!";
sub calm { my $file = shift; fcntl $file, F_SETFL, (fcntl($file, F_GETFL, 0) || 0) | O_NONBLOCK }
calm($_) for $woken, $waker, \*STDIN, \*STDOUT;
$SIG{$_} = 'IGNORE' for qw(PIPE INT QUIT TSTP TTIN TTOU);
$SIG{CHLD} = sub { syswrite $waker, '.' };
$SIG{HUP} = $SIG{TERM} = \&leave;

sub frame { my ($kind, $id, $rest) = @_; $out .= pack('a1 N N', $kind, $id, length $rest) . $rest }

# What is not to outlive this goes, with all that it started.
sub leave {
    $SIG{HUP} = $SIG{TERM} = 'IGNORE';
    kill 'TERM', $_->{pid} for grep { !$_->{detached} && !defined $_->{status} } values %channels;
    exit 0;
}

# A terminal of its own: this end, and the path of the other one.
sub terminal {
    sysopen my $ours, '/dev/ptmx', O_RDWR | O_NOCTTY or return;
    my ($unlocked, $number) = (pack('i', 0), pack 'i', 0);
    ioctl $ours, 0x40045431, $unlocked or return;
    ioctl $ours, 0x80045430, $number or return;
    return ($ours, '/dev/pts/' . unpack 'i', $number);
}
sub size { my ($file, $rows, $cols) = @_; my $size = pack 'S4', $rows, $cols, 0, 0; ioctl $file, 0x5414, $size }

sub begin {
    my ($id, $program, $flags, $rows, $cols) = @_;
    my ($tty, $detached) = ($flags & 1, $flags & 2);
    my (%channel, @theirs, $path);
    if ($tty) {
        (my $ours, $path) = terminal();
        return frame('X', $id, pack 'N', 0xffffffff) unless $ours;
        size($ours, $rows, $cols);
        %channel = (in => $ours, 1 => $ours);
    } else {
        pipe my $r0, my $w0 and pipe my $r1, my $w1 and pipe my $r2, my $w2
            or return frame('X', $id, pack 'N', 0xffffffff);
        %channel = (in => $w0, 1 => $r1, 2 => $r2);
        @theirs = ($r0, $w1, $w2);
    }
    my $parent = $$;
    my $pid = fork;
    return frame('X', $id, pack 'N', 0xffffffff) unless defined $pid;
    if (!$pid) {
        $SIG{$_} = 'DEFAULT' for qw(PIPE INT QUIT TSTP TTIN TTOU CHLD HUP TERM);
        # POSIX knows it everywhere, but reading it takes longer than all the rest of the start.
        if ($setsid) { syscall $setsid } else { require POSIX; POSIX::setsid() }
        unless ($detached) {
            syscall $prctl, 1, 15, 0, 0, 0 if $prctl;
            exit 125 if getppid != $parent;
        }
        if ($tty) { sysopen my $slave, $path, O_RDWR or exit 125; @theirs = ($slave) x 3 }
        # These keep their numbers.
        open STDIN, '<&', $theirs[0] and open STDOUT, '>&', $theirs[1] and open STDERR, '>&', $theirs[2]
            or exit 125;
        for my $other (values %channels, \%channel) { close $_ for grep { $_ } @$other{qw(in 1 2)} }
        close $_ for @theirs, $woken, $waker;
        @ARGV = ();
        ($in, $out, %channels) = ('', '');
        my $run = $programs{$program};
        %programs = ();
        eval { $run->() };
        print STDERR $@ if $@;
        exit 125;
    }
    calm($_) for grep { ref } values %channel;
    $channels{$id} = { %channel, pid => $pid, detached => $detached, todo => '', done => 0, tty => $tty,
        room => { 1 => $window, 2 => $window } };
}

sub close_in {
    my $channel = shift;
    delete $channel->{in};
}

sub closed {
    my ($id, $channel, $stream) = @_;
    return unless delete $channel->{$stream};
    delete $channel->{in} if $channel->{tty};
    frame('e', $id, chr $stream);
}

# Reads what there is of a stream; whether there is nothing more at the moment.
sub draw {
    my ($id, $channel, $stream) = @_;
    my $file = $channel->{$stream} or return 1;
    my $room = $channel->{room}{$stream};
    return 0 if $room <= 0;
    my $count = sysread $file, my $data, $room < 32768 ? $room : 32768;
    if (!defined $count) {
        return 1 if $!{EAGAIN} || $!{EINTR};
        $count = 0;
    }
    if (!$count) { closed($id, $channel, $stream); return 1 }
    $channel->{room}{$stream} -= $count;
    frame($stream, $id, $data);
    return 0;
}

sub feed {
    my ($id, $channel) = @_;
    my $file = $channel->{in} or return;
    while (length $channel->{todo}) {
        my $count = syswrite $file, $channel->{todo}, 32768;
        if (!defined $count) {
            return if $!{EAGAIN} || $!{EINTR};
            $channel->{todo} = '';
            delete $channel->{in};
            return;
        }
        substr($channel->{todo}, 0, $count) = '';
        frame('w', $id, pack 'N', $count);
    }
    delete $channel->{in} if $channel->{done} && !$channel->{tty};
}

my %orders = (
    P => sub { my ($id, $text) = @_; $programs{$id} = learn($id, $text) },
    O => sub { my ($id, $rest) = @_; begin($id, unpack 'C C n n', $rest) },
    I => sub { my ($id, $data) = @_; my $c = $channels{$id} or return; return unless $c->{in}; $c->{todo} .= $data; feed($id, $c) },
    E => sub { my ($id) = @_; my $c = $channels{$id} or return; $c->{done} = 1; feed($id, $c) },
    W => sub { my ($id, $rest) = @_; my $c = $channels{$id} or return; my ($stream, $more) = unpack 'C N', $rest; $c->{room}{$stream} += $more },
    C => sub { my ($id, $rest) = @_; my $c = $channels{$id} or return; closed($id, $c, ord $rest) },
    S => sub { my ($id, $rest) = @_; my $c = $channels{$id} or return; kill unpack('N', $rest), $c->{pid} unless defined $c->{status} },
    R => sub { my ($id, $rest) = @_; my $c = $channels{$id} or return; size($c->{in}, unpack 'n n', $rest) if $c->{tty} && $c->{in} },
    F => sub {
        my ($id, $name) = @_;
        my $path = "/run/.sandscript.$name";
        open my $file, '<', $path or return frame('f', $id, '');
        my $text = do { local $/; <$file> };
        close $file;
        unlink $path;
        frame('f', $id, defined $text ? $text : '');
    },
);

sub take_orders {
    my $at = 0;
    while (length($in) - $at >= 9) {
        my ($kind, $id, $length) = unpack 'a1 N N', substr $in, $at, 9;
        last if length($in) - $at - 9 < $length;
        my $order = $orders{$kind} or leave();
        $order->($id, substr $in, $at + 9, $length);
        $at += 9 + $length;
    }
    substr($in, 0, $at) = '' if $at;
}

sub reap {
    while ((my $pid = waitpid -1, 1) > 0) {
        my $status = $?;
        for my $channel (values %channels) {
            next unless $channel->{pid} == $pid;
            $channel->{status} = $status & 127 ? 128 + ($status & 127) : $status >> 8;
            $channel->{ended} = time;
        }
    }
}

frame('H', 0, '');
while (1) {
    my ($read, $write, $names) = ('', '', 0);
    my $busy = length $out > 1 << 20;
    vec($read, 0, 1) = 1;
    vec($read, fileno $woken, 1) = 1;
    vec($write, 1, 1) = 1 if length $out;
    my ($soon, %files);
    for my $id (keys %channels) {
        my $channel = $channels{$id};
        for my $stream (1, 2) {
            my $file = $channel->{$stream} or next;
            vec($read, fileno $file, 1) = 1 if !$busy && $channel->{room}{$stream} > 0;
        }
        vec($write, fileno $channel->{in}, 1) = 1 if $channel->{in} && length $channel->{todo};
        $soon = 1 if defined $channel->{status} && !$channel->{told};
    }
    select $read, $write, undef, $soon ? 0.2 : undef;
    # After a signal the sets say nothing; every file is calm, so a look at each does no harm.
    1 while sysread $woken, my $drop, 512;
    while (1) {
        my $count = sysread STDIN, $in, 65536, length $in;
        leave() if defined $count && !$count || !defined $count && !$!{EAGAIN} && !$!{EINTR};
        last if !defined $count || $count < 4096;
    }
    take_orders();
    reap();
    for my $id (keys %channels) {
        my $channel = $channels{$id};
        feed($id, $channel) if length $channel->{todo};
        unless ($busy) {
            my $idle = 1;
            for my $stream (1, 2) { $idle = 0 unless draw($id, $channel, $stream) }
            # What it wrote before its end is told before it, as far as somebody takes it.
            if (defined $channel->{status} && !$channel->{told} && ($idle || time - $channel->{ended} >= 2)) {
                $channel->{told} = 1;
                frame('X', $id, pack 'N', $channel->{status});
            }
        }
        delete $channels{$id} if $channel->{told} && !$channel->{1} && !$channel->{2};
    }
    while (length $out) {
        my $count = syswrite STDOUT, $out, 32768;
        leave() if !defined $count && !$!{EAGAIN} && !$!{EINTR};
        last unless $count;
        substr($out, 0, $count) = '';
    }
}
