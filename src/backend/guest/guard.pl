#!/usr/bin/perl
# Keeps to the egress policy of this very machine: as `boot COMMAND...` before its first process, as `start`
# before its network or when the policy is set. Without a policy that is written for this machine all is closed.
#
# The kernel refuses what no rule lets through. This program answers every question for a name: only allowed
# names, and what it tells is what the kernel lets through. It holds no policy that the file does not.
use strict;
my $here = '/etc/sandscript';
my ($version, $port, $mark) = ('@VERSION@', @PORT@, @MARK@);
my $closed = pack 'H*', '@CLOSED@';
my ($most_told, $most_refused, $most_pending, $most_at_once) = (8192, 1000, 512, 100_000);
my $inet = pack 'C C n', 1, 0, 0;
$0 = 'sandscript-guard';

# Netlink.
sub padded { my $bytes = shift; return $bytes . "\0" x (-length($bytes) % 4) }
sub attr { my ($kind, $value) = @_; return padded(pack('S S', 4 + length $value, $kind) . $value) }
sub nest { return attr($_[0] | 0x8000, $_[1]) }
sub message { my ($kind, $flags, $rest) = @_; return padded(pack('L S S L L', 16 + length $rest, $kind, $flags | 1, 1, 0) . $rest) }
sub netlink {
    my $protocol = shift;
    socket my $socket, 16, 3, $protocol or return;
    setsockopt $socket, 1, 7, pack 'i', 1 << 20;
    setsockopt $socket, 1, 8, pack 'i', 1 << 20;
    setsockopt $socket, 1, 20, pack 'l! l!', 5, 0;
    return $socket;
}

# Carries messages out, all or none of them: 0, or the error's number.
sub carry_out {
    my $body = shift;
    my $socket = netlink(12) or return $! + 0;
    my $edge = pack 'C C n', 0, 0, 10;
    # The last one asks for an answer.
    my $last = message(0xA00, 0x404, $inet . attr(1, "sandscript\0"));
    my $batch = message(0x10, 0, $edge) . $body . $last . message(0x11, 0, $edge);
    defined send $socket, $batch, 0 or return $! + 0;
    my ($first, $answered);
    for (1 .. 10_000) {
        defined recv $socket, my $said, 1 << 16, $answered ? 0x40 : 0 or last;
        last unless length $said;
        while (length $said >= 20) {
            my ($length, $kind) = unpack 'L S', $said;
            last if $length < 20 || $length > length $said;
            if ($kind == 2) {
                my $code = -unpack 'l', substr $said, 16, 4;
                $first = $code if $code && !$first;
                $answered = 1;
            }
            $said = substr $said, ($length + 3) & ~3;
        }
    }
    return $first || ($answered ? 0 : 110);
}

sub set_of { my ($group, $address) = @_; return (length $address == 4 ? 'g' : 'h') . $group }
sub element {
    my ($verb, $set, $address, $seconds) = @_;
    my $key = nest(1, attr(1, $address));
    $key .= attr(4, pack 'N N', int($seconds * 1000 / 4294967296), $seconds * 1000 % 4294967296) if $seconds;
    return message(0xA00 | $verb, 0x400, $inet . attr(1, "sandscript\0") . attr(2, "$set\0") . nest(3, nest(1, $key)));
}

# The policy.
my %policy;
sub packed {
    my $text = shift;
    if ($text =~ /^(\d+)\.(\d+)\.(\d+)\.(\d+)$/) { return pack 'C4', $1, $2, $3, $4 }
    my ($head, $tail) = split /::/, $text, 2;
    my @head = split /:/, $head // '';
    my @tail;
    if (defined $tail) {
        @tail = split /:/, $tail;
        if (@tail && $tail[-1] =~ /\./) { my $four = pop @tail; push @tail, map { sprintf '%x', $_ } unpack 'n2', packed($four) }
    }
    return pack 'n8', map { hex } @head, (0) x (8 - @head - @tail), @tail;
}
sub readable {
    my $address = shift;
    return join '.', unpack 'C4', $address if length $address == 4;
    return join ':', map { sprintf '%x', $_ } unpack 'n8', $address;
}
sub network { my ($address, $prefix) = split m{/}, $_[0]; my $bytes = packed($address); return [$bytes, $prefix // 8 * length $bytes] }
sub lies_in {
    my ($address, $network) = @_;
    my ($start, $prefix) = @$network;
    return length $address == length $start && substr(unpack('B*', $address), 0, $prefix) eq substr(unpack('B*', $start), 0, $prefix);
}
sub slurp { open my $file, '<', $_[0] or return ''; local $/; my $text = <$file>; return $text // '' }
sub first_line { my $text = slurp($_[0]); $text =~ s/\s.*//s; return $text }

sub how {
    my ($kind, $rest, $which) = split /=/, $_[0];
    return { kind => $kind, net => defined $rest ? network($rest) : undef, which => $which };
}

# What the file says, if it is whole and of this machine.
sub read_policy {
    my %new = (kind => 'closed', names => [], steps => [], special => [], hosts => [], servers => [], token => '-', body => $closed);
    my $text = slurp("$here/policy");
    return { %new, why => 'there is none' } unless $text =~ /^sandscript-egress 1\n.*^body [0-9a-f]+\n\z/ms;
    my (@own, $machine);
    for (split /\n/, $text) {
        my ($word, @rest) = split / /;
        if ($word eq 'name') { push @own, $rest[0] }
        elsif ($word eq 'machine') { $machine = $rest[0] }
        elsif ($word eq 'kind' || $word eq 'token') { $new{$word} = $rest[0] }
        elsif ($word eq 'server') { push @{ $new{servers} }, [packed($rest[0]), $rest[1]] }
        elsif ($word eq 'F') { my $name = shift @rest; $new{fixed}{$name} = [map { packed($_) } @rest] }
        elsif ($word eq 'inbound') { $new{inbound}{$rest[0]} = 1 }
        elsif ($word eq 'S') { push @{ $new{special} }, network($rest[0]) }
        elsif ($word eq 'H') { push @{ $new{hosts} }, network($rest[0])->[0] }
        elsif ($word eq 'N' || $word eq 'K') {
            my ($action, $whole, $group, $pattern, $how) = @rest;
            push @{ $new{names} }, { asked => $word eq 'N', action => $action, whole => $whole, group => $group, pattern => $pattern, how => how($how) };
        } elsif ($word eq 'T') {
            my ($action, $first, $last, $hit) = @rest;
            my $step = { action => $action, first => $first, last => $last };
            if ($hit =~ /^g=(\d+)/) { $step->{group} = $1 } else { $step->{how} = how($hit) }
            push @{ $new{steps} }, $step;
        } elsif ($word eq 'body') { $new{body} = pack 'H*', $rest[0] }
    }
    my $name = first_line('/proc/sys/kernel/hostname');
    my $own = first_line('/etc/machine-id');
    my $why = !length $own || ($machine // '') ne $own ? 'it is of another machine' : !grep({ $_ eq $name } @own) ? "it is not of '$name'" : undef;
    return { kind => 'closed', names => [], steps => [], special => [], hosts => [], servers => [], token => '-', body => $closed, why => $why } if $why;
    return \%new;
}

sub is_host { my $address = shift; return scalar grep { $_ eq $address } @{ $policy{hosts} } }
sub is_special { my $address = shift; return is_host($address) || scalar grep { lies_in($address, $_) } @{ $policy{special} } }
# Whether a rule that lets something through does so for this address.
sub opens {
    my ($how, $address) = @_;
    my $kind = $how->{kind};
    return !is_special($address) || $kind eq 'w' && lies_in($address, $how->{net}) if $kind eq 'p' || $kind eq 'w';
    return 1 if $kind eq 'x';
    return 0 unless lies_in($address, $how->{net});
    return $how->{which} eq 'x' || ($how->{which} eq 'f' ? !is_host($address) : !is_special($address));
}
sub is_named {
    my ($pattern, $name) = @_;
    return 1 if $pattern eq '*' || $pattern eq $name;
    return 0 unless $pattern =~ /^\*(\..+)$/;
    my $end = $1;
    return length $name > length $end && substr($name, -length $end) eq $end;
}
sub may_ask {
    my $name = shift;
    for my $rule (grep { $_->{asked} && is_named($_->{pattern}, $name) } @{ $policy{names} }) {
        return 1 if $rule->{action} eq 'a';
        return 0 if $rule->{whole};
    }
    return 0;
}
# The groups that an address goes into when it is told for a name; nothing when no rule lets it be told.
sub groups_of {
    my ($name, $address) = @_;
    my ($open, @groups);
    for my $rule (grep { is_named($_->{pattern}, $name) } @{ $policy{names} }) {
        my $deny = $rule->{action} eq 'd';
        next unless $deny ? $rule->{how}{kind} ne 'n' : opens($rule->{how}, $address);
        $open = 1 unless $deny;
        push @groups, $rule->{group} if $rule->{group} ne '-';
        last if $deny && $rule->{whole} && $rule->{asked};
    }
    return $open ? ('-', @groups) : ();
}

# What was told: by name, each address and until when; for connections that are open also what has run out.
my (%told, $told);
$told = 0;
sub remember {
    my ($name, $address, $until) = @_;
    if (!defined $told{$name}{$address}) {
        if (++$told > $most_told) {
            my $now = time;
            for my $one (keys %told) {
                delete $told{$one}{$_} for grep { $told{$one}{$_} < $now } keys %{ $told{$one} };
                delete $told{$one} unless %{ $told{$one} };
            }
            %told = () if ($told = map { keys %$_ } values %told) > $most_told / 2;
            $told = 1 + map { keys %$_ } values %told;
        }
    }
    my $known = $told{$name}{$address} // 0;
    $told{$name}{$address} = $until if $until > $known;
    return $known;
}
sub name_of { my $address = shift; for (keys %told) { return $_ if defined $told{$_}{$address} } return }

# Refusals.
my (%refused, $more, %counted, $unsaved);
$more = 0;
sub refuse {
    my ($count, @what) = @_;
    my $key = join ' ', @what;
    my $row = $refused{$key};
    if (!$row) {
        if (keys %refused >= $most_refused) { $more += $count; $unsaved = 1; return }
        $row = $refused{$key} = [0, time, 0];
    }
    $row->[0] += $count;
    $row->[2] = time;
    $unsaved = 1;
}
# Takes over what the kernel has counted.
sub count_refusals {
    return unless $policy{kind} eq 'rules';
    for my $set ('refused4', 'refused6') {
        my $socket = netlink(12) or return;
        send $socket, message(0xA0D, 0x300, $inet . attr(1, "sandscript\0") . attr(2, "$set\0")), 0;
        my $width = $set eq 'refused4' ? 4 : 16;
        DUMP: while (defined recv $socket, my $said, 1 << 16, 0) {
            last unless length $said;
            while (length $said >= 16) {
                my ($length, $kind) = unpack 'L S', $said;
                last DUMP if $kind == 3 || $kind == 2 || $length < 16 || $length > length $said;
                my %list = attributes(substr $said, 20, $length - 20);
                for my $row (each_attribute($list{3} // '')) {
                    my %row = attributes($row);
                    my %key = attributes($row{1} // '');
                    my $key = $key{1} // next;
                    my %expression = attributes($row{7} // (each_attribute($row{17} // ''))[0] // '');
                    my %counter = attributes($expression{2} // '');
                    my ($high, $low) = unpack 'N N', $counter{2} // next;
                    my $count = $high * 4294967296 + $low;
                    my $new = $count - ($counted{$key} // 0);
                    $counted{$key} = $count;
                    next if $new <= 0;
                    my $address = substr $key, 0, $width;
                    my $protocol = ord(substr $key, $width, 1) == 17 ? 'udp' : 'tcp';
                    my $at = unpack 'n', substr $key, $width + 4, 2;
                    my $name = name_of($address);
                    my $why = is_special($address) ? 'private' : 'not-allowed';
                    refuse($new, $protocol, $at, readable($address), $name // '-', $why);
                }
                $said = substr $said, ($length + 3) & ~3;
            }
        }
    }
}
sub each_attribute {
    my ($bytes, @all) = shift;
    while (length $bytes >= 4) {
        my ($length, $kind) = unpack 'S S', $bytes;
        last if $length < 4 || $length > length $bytes;
        push @all, substr $bytes, 4, $length - 4;
        last if ($length + 3 & ~3) > length $bytes;
        $bytes = substr $bytes, ($length + 3) & ~3;
    }
    return @all;
}
sub attributes {
    my ($bytes, %all) = shift;
    while (length $bytes >= 4) {
        my ($length, $kind) = unpack 'S S', $bytes;
        last if $length < 4 || $length > length $bytes;
        $all{ $kind & 0x3fff } = substr $bytes, 4, $length - 4;
        last if ($length + 3 & ~3) > length $bytes;
        $bytes = substr $bytes, ($length + 3) & ~3;
    }
    return %all;
}
sub log_text {
    my $text = "M $more\n";
    $text .= "D @{$refused{$_}} $_\n" for sort { $refused{$a}[1] <=> $refused{$b}[1] || $a cmp $b } keys %refused;
    return $text;
}
sub save {
    return unless $unsaved;
    $unsaved = 0;
    open my $file, '>', "$here/log.new" or return;
    chmod 0600, $file;
    print $file 'machine ', first_line('/etc/machine-id'), "\n", log_text();
    close $file and rename "$here/log.new", "$here/log";
}
sub recall {
    my @lines = split /\n/, slurp("$here/log");
    return unless ($lines[0] // '') eq 'machine ' . first_line('/etc/machine-id');
    for (@lines) {
        if (/^M (\d+)$/) { $more = $1 }
        elsif (/^D (\d+) (\d+) (\d+) (.+)$/) { $refused{$4} = [$1, $2, $3] }
    }
}

# Puts what the file says in force: nothing, or why not. Then all is as it was before.
sub load {
    my $new = read_policy();
    count_refusals();
    my %before = %policy;
    %policy = %$new;
    my ($error, $groups, $begun) = tell_kernel();
    if ($error && !$begun) { %policy = %before; return "error $error" }
    my $why = $error ? "error $error" : cut($groups);
    # Without rules nothing goes on in any case, or all may.
    return if !defined $why || $policy{kind} ne 'rules';
    %policy = %before ? %before : (%policy, kind => 'closed', names => [], steps => [], token => '-', body => $closed);
    # If not even that is possible, nothing goes at all.
    ($error) = tell_kernel();
    if ($error) { $policy{kind} = 'closed'; $policy{names} = []; carry_out($closed) }
    return $why;
}
# Hands the policy over: the error's number, the groups that each address is in, and whether some of it is
# in force. What was told may be too much for one message, and follows the rules then.
sub tell_kernel {
    my ($body, $now, $begun, %groups) = ($policy{body}, time);
    if ($policy{kind} eq 'rules') {
        # What was told is let through still, as far as the new rules do so.
        my %added;
        for my $name (keys %told) {
            next unless may_ask($name);
            for my $address (keys %{ $told{$name} }) {
                my (undef, @groups) = groups_of($name, $address);
                my $left = $told{$name}{$address} - $now;
                for my $group (@groups) {
                    $groups{$group}{$address} = 1;
                    next if $left <= 0 || $added{"$group $address"}++;
                    if (length $body > $most_at_once) {
                        my $error = carry_out($body);
                        return ($error, \%groups, $begun) if $error;
                        ($body, $begun, %counted) = ('', 1);
                    }
                    $body .= element(12, set_of($group, $address), $address, $left);
                }
            }
        }
    }
    my $error = carry_out($body);
    %counted = () unless $error || $begun;
    return ($error, \%groups, $begun);
}

# Whether a connection that is open may stay.
sub may_stay {
    my ($groups, $address, $at) = @_;
    return 1 if $policy{kind} eq 'open';
    for my $step (@{ $policy{steps} }) {
        next if $at < $step->{first} || $at > $step->{last};
        my $hit = defined $step->{group} ? $groups->{ $step->{group} }{$address} : opens($step->{how}, $address);
        return $step->{action} eq 'a' if $hit;
    }
    return 0;
}
# Ends connections by TCP that the policy does not let through: nothing, or why not.
my $states = 0xfff & ~(1 << 10 | 1 << 6 | 1 << 7);
sub cut {
    my $groups = shift;
    my $last = 5;
    for my $try (0 .. $last) {
        my ($why, $stay, @ends) = unwanted($groups);
        return $why if defined $why;
        return if $try && !$stay;
        return "$stay connections that are open can't be cut by this kernel: stop it, set the policy then, and start it" if $try == $last;
        my $end = netlink(4) or return "connections can't be cut: $!";
        for (@ends) {
            my ($family, $id) = @$_;
            send $end, message(21, 0, pack('C C C C L', $family, 6, 0, 0, $states) . $id), 0;
        }
        return unless @ends;
        select undef, undef, undef, 0.02 * $try if $try;
    }
}
# Connections by TCP that the policy does not let through, in every state but listening and those that are
# over: why they are not known, or how many of them carry something, and all.
sub unwanted {
    my $groups = shift;
    my ($stay, @ends) = (0);
    for my $family (2, 10) {
        my $socket = netlink(4) or return "connections can't be listed: $!";
        send $socket, message(20, 0x300, pack('C C C C L', $family, 6, 0, 0, $states) . "\0" x 48), 0;
        my $whole;
        DUMP: while (defined recv $socket, my $said, 1 << 16, 0) {
            last unless length $said;
            while (length $said >= 16) {
                my ($length, $kind) = unpack 'L S', $said;
                if ($kind == 2) {
                    my $code = $length >= 20 ? -unpack 'l', substr $said, 16, 4 : 0;
                    return "connections can't be listed by this kernel: error $code" if $code;
                }
                if ($kind == 3 || $kind == 2) { $whole = 1; last DUMP }
                last DUMP if $length < 88 || $length > length $said;
                my $id = substr $said, 20, 48;
                my ($own, $at) = unpack 'n n', $id;
                my ($from, $to) = (substr($id, 4, 16), substr $id, 20, 16);
                for ($from, $to) {
                    $_ = substr $_, 0, 4 if $family == 2;
                    $_ = substr $_, 12 if length $_ == 16 && substr($_, 0, 12) eq "\0" x 10 . "\xff\xff";
                }
                my $inner = $from eq $to || $to =~ /^\x7f/ && length $to == 4 || $to eq "\0" x 15 . "\1";
                if (!$inner && !$policy{inbound}{$own} && !may_stay($groups, $to, $at)) {
                    push @ends, [$family, $id];
                    # What begins is refused by its first packet; what nobody holds any more says nothing.
                    my ($state, $inode) = (ord(substr $said, 17, 1), unpack 'L', substr $said, 84, 4);
                    $stay++ unless $state == 2 || $state == 5 && !$inode;
                }
                $said = substr $said, ($length + 3) & ~3;
            }
        }
        return "connections can't be listed: it takes too long" unless $whole;
    }
    return (undef, $stay, @ends);
}

# Questions for names.
my (%pending, %cache, @later, %streams, @listening, $control);
sub calm { my $flags = fcntl $_[0], 3, 0; fcntl $_[0], 4, $flags | 0x800 }
sub sockaddr { my ($address, $at) = @_; return length $address == 4 ? pack 'S n a4 x8', 2, $at, $address : pack 'S n N a16 N', 10, $at, 0, $address, 0 }

# Whom this machine asks: what the policy says, else what it was given with its address.
my ($servers, $looked) = ([], 0);
sub servers {
    return @{ $policy{servers} } if @{ $policy{servers} };
    return @$servers if time - $looked < 5 && @$servers;
    $looked = time;
    my %seen;
    my @files = ('/etc/resolv.conf', '/run/systemd/resolve/resolv.conf', '/run/NetworkManager/no-stub-resolv.conf', '/run/resolvconf/resolv.conf', glob '/run/systemd/netif/leases/*');
    my @found = map { (/^\s*nameserver\s+([0-9a-fA-F.:]+)/ ? $1 : (), /^DNS=(.*)/ ? split(' ', $1) : ()) } map { split /\n/, slurp($_) } @files;
    for (split /\n/, slurp('/proc/net/route')) {
        my (undef, $to, $gateway) = split;
        push @found, join '.', reverse unpack 'C4', pack 'N', hex $gateway if $to eq '00000000' && $gateway ne '00000000';
    }
    $servers = [map { [packed($_), 53] } grep { !/^127\.|^0|^::1?$|^fe80/ && !$seen{$_}++ } @found];
    return @$servers;
}

sub question_of {
    my $packet = shift;
    return if length $packet < 17;
    my ($id, $flags, $count) = unpack 'n3', $packet;
    return if $flags & 0xf800 || $count != 1;
    my ($at, @labels) = (12);
    while (1) {
        return if $at >= length $packet;
        my $length = ord substr $packet, $at++, 1;
        last unless $length;
        return if $length > 63 || $at + $length >= length $packet;
        push @labels, lc substr $packet, $at, $length;
        $at += $length;
    }
    return if length $packet < $at + 4;
    my ($type, $class) = unpack 'n n', substr $packet, $at, 4;
    return { id => $id, asks => $flags & 0x100, name => join('.', @labels), type => $type, class => $class, bytes => substr($packet, 12, $at + 4 - 12),
        plain => !grep({ !/^[a-z0-9_-]+$/ } @labels) };
}
sub answer {
    my ($question, $code, $seconds, @addresses) = @_;
    my $reply = pack('n6', $question->{id}, 0x8080 | $question->{asks} | $code, 1, scalar @addresses, 0, 0) . $question->{bytes};
    $reply .= pack('n n n N n/a*', 0xc00c, $question->{type}, 1, $seconds, $_) for @addresses;
    return $reply;
}

# A name at a place in a packet, and where what follows it begins.
sub name_at {
    my ($packet, $at) = @_;
    my (@labels, $next);
    for (1 .. 130) {
        return if $at >= length $packet;
        my $length = ord substr $packet, $at, 1;
        if ($length >= 192) {
            return if $at + 2 > length $packet;
            $next //= $at + 2;
            $at = unpack('n', substr $packet, $at, 2) & 0x3fff;
            next;
        }
        $at++;
        return (join('.', @labels), $next // $at) unless $length;
        push @labels, lc substr $packet, $at, $length;
        $at += $length;
    }
    return;
}
# What a server answers: code, seconds and addresses; nothing when it is no answer to this.
sub read_answer {
    my ($packet, $question, $id) = @_;
    return if length $packet < 12;
    my ($own, $flags, $questions, $answers) = unpack 'n4', $packet;
    return if $own != $id || !($flags & 0x8000) || $questions != 1;
    my ($asked, $at) = name_at($packet, 12);
    return unless defined $asked && $asked eq $question->{name};
    return if unpack('n', substr $packet, $at, 2) != $question->{type};
    return ('cut') if $flags & 0x200;
    $at += 4;
    my (%alias, %found);
    for (1 .. $answers) {
        (my $owner, $at) = name_at($packet, $at) or last;
        last if !defined $at || $at + 10 > length $packet;
        my ($type, $class, $seconds, $length) = unpack 'n n N n', substr $packet, $at, 10;
        $at += 10;
        last if $at + $length > length $packet;
        if ($class == 1 && $type == 5) { my ($to) = name_at($packet, $at); $alias{$owner} = [$to, $seconds] if defined $to }
        elsif ($class == 1 && $type == $question->{type}) { push @{ $found{$owner} }, [substr($packet, $at, $length), $seconds] }
        $at += $length;
    }
    my ($name, $seconds, $code) = ($question->{name}, 3600, $flags & 15);
    for (1 .. 16) {
        last if $found{$name} || !$alias{$name};
        $seconds = $alias{$name}[1] if $alias{$name}[1] < $seconds;
        $name = $alias{$name}[0];
    }
    my @rows = @{ $found{$name} || [] };
    for (@rows) { $seconds = $_->[1] if $_->[1] < $seconds }
    my $width = $question->{type} == 1 ? 4 : 16;
    return ($code == 0 || $code == 3 ? $code : 2, @rows ? $seconds : 5, grep { length $_ == $width } map { $_->[0] } @rows);
}

# Answers a question, at once or later. `$reply` takes the answer.
sub ask {
    my ($packet, $reply) = @_;
    my $question = question_of($packet) or return;
    my ($name, $type) = @$question{qw(name type)};
    if (!$question->{plain} || !may_ask($name)) {
        refuse(1, 'udp', 53, '-', $question->{plain} && length $name ? $name : 'unknown', 'not-allowed');
        return $reply->(answer($question, 3, 0));
    }
    # Other records would hide the name of a later connection.
    return $reply->(answer($question, 0, 0)) if $type != 1 && $type != 28 || $question->{class} != 1;
    my $known = $cache{"$name $type"};
    if ($known && $known->{until} > time) {
        return $reply->(answer($question, $known->{code}, $known->{until} - time, @{ $known->{addresses} }));
    }
    if (my $fixed = $policy{fixed}{$name}) {
        my $width = $type == 1 ? 4 : 16;
        return pass_on({ work => { question => $question, reply => $reply }, code => 0, seconds => 30, addresses => [grep { length $_ == $width } @$fixed] });
    }
    return $reply->(answer($question, 2, 0)) if keys %pending >= $most_pending;
    try_server({ question => $question, reply => $reply, tries => 0 });
}
sub try_server {
    my ($work, $stream) = @_;
    my @all = servers();
    if (!@all || $work->{tries} >= 4) { return $work->{reply}->(answer($work->{question}, 2, 0)) }
    my $server = $all[$work->{tries}++ % @all];
    my $id = do { open my $random, '<', '/dev/urandom'; sysread $random, my $bytes, 2; unpack 'n', $bytes };
    my $packet = pack('n6', $id, 0x0100, 1, 0, 0, 0) . $work->{question}{bytes};
    socket my $socket, length $server->[0] == 4 ? 2 : 10, $stream ? 1 : 2, 0 or return $work->{reply}->(answer($work->{question}, 2, 0));
    calm($socket);
    setsockopt $socket, 1, 36, pack 'I', $mark;
    my $connected = connect($socket, sockaddr(@$server)) || $!{EINPROGRESS};
    my $todo = $stream ? pack 'n/a*', $packet : '';
    $connected &&= defined syswrite $socket, $packet unless $stream;
    # By another server, or a moment later.
    push @later, [time + 1, $work] and return unless $connected;
    $pending{ fileno $socket } = { %$work, socket => $socket, id => $id, until => time + 2 + ($stream ? 3 : 0), stream => $stream, out => $todo, in => '' };
}
sub heard {
    my $work = shift;
    my $said;
    if ($work->{stream}) {
        if (length $work->{out}) {
            my $count = syswrite $work->{socket}, $work->{out};
            substr($work->{out}, 0, $count) = '' if $count;
            return give_up($work) unless defined $count || $!{EAGAIN} || $!{EINPROGRESS} || $!{ENOTCONN};
            return;
        }
        my $count = sysread $work->{socket}, $work->{in}, 65_537, length $work->{in};
        return if !defined $count && $!{EAGAIN};
        return give_up($work) unless $count;
        return if length $work->{in} < 2 || length $work->{in} < 2 + unpack 'n', $work->{in};
        $said = substr $work->{in}, 2;
    } else {
        my $count = sysread $work->{socket}, $said, 65_536;
        return if !defined $count && $!{EAGAIN};
        return give_up($work) unless $count;
    }
    my ($code, $seconds, @addresses) = read_answer($said, $work->{question}, $work->{id});
    return unless defined $code;
    delete $pending{ fileno $work->{socket} };
    return try_server($work, 1) if $code eq 'cut';
    return { work => $work, code => $code, seconds => $seconds, addresses => \@addresses };
}
sub give_up { my $work = shift; delete $pending{ fileno $work->{socket} }; try_server($work); return }

# Lets the kernel know what is about to be told, and then tells it.
sub pass_on {
    my @answers = @_ or return;
    my ($now, @new) = (time);
    for my $answer (@answers) {
        my $question = $answer->{work}{question};
        my ($name, $most) = ($question->{name}, $question->{type} == 1 ? 24 : 12);
        my @kept;
        for my $address (@{ $answer->{addresses} }) {
            my ($open, @groups) = may_ask($name) ? groups_of($name, $address) : ();
            if (!$open) { refuse(1, 'tcp', 0, readable($address), $name, 'private'); next }
            last if @kept >= $most;
            push @kept, $address;
            # A moment more than it was told, for whoever is just about to connect.
            my $until = $now + $answer->{seconds} + 2;
            my $known = remember($name, $address, $until);
            push @new, [set_of($_, $address), $address, $until - $now, $known > $now] for @groups;
        }
        $answer->{kept} = \@kept;
    }
    if (@new && $policy{kind} eq 'rules') {
        # One that is there keeps its time, so it goes first; it may be just gone by itself.
        my $old = join '', map { element(14, @$_[0, 1]) } grep { $_->[3] } @new;
        my $all = join '', map { element(12, @$_[0 .. 2]) } @new;
        my $error = carry_out($old . $all);
        $error = carry_out($all) if $error && length $old;
        if ($error) { $_->{kept} = [], $_->{code} = 2 for grep { @{ $_->{kept} } } @answers }
    }
    for my $answer (@answers) {
        my ($work, $code, $seconds, $kept) = @$answer{qw(work code seconds kept)};
        my $question = $work->{question};
        if ($code != 2) {
            %cache = () if keys %cache > 4096;
            $cache{"$question->{name} $question->{type}"} = { until => $now + $seconds, code => $code, addresses => $kept };
        }
        $work->{reply}->(answer($question, $code, $seconds, @$kept));
    }
}

# The socket that this machine's root asks by.
sub listen_for_orders {
    unlink "$here/socket";
    socket my $socket, 1, 1, 0 or return;
    bind $socket, pack 'S a*', 1, "$here/socket" and listen $socket, 8 or return;
    chmod 0600, "$here/socket";
    calm($socket);
    return $socket;
}
sub obey {
    my $client = shift;
    setsockopt $client, 1, 20, pack 'l! l!', 2, 0;
    fcntl $client, 4, 0;
    my $line = '';
    while ($line !~ /\n/) { sysread $client, $line, 100, length $line or return }
    my $said;
    if ($line =~ /^reload/) { %cache = (); $said = load() // "ok $policy{token}" . (defined $policy{why} ? " $policy{why}" : '') }
    elsif ($line =~ /^status/) { $said = "ok $policy{token} $version" }
    elsif ($line =~ /^log/) { count_refusals(); save(); $said = log_text() . 'end' }
    elsif ($line =~ /^quit/) { save(); syswrite $client, "ok\n"; exit 9 }
    else { $said = 'what?' }
    $said .= "\n";
    while (length $said) { my $count = syswrite $client, $said or last; substr($said, 0, $count) = '' }
}

# Brings the loopback interface up, and takes the ports.
sub open_ports {
    socket my $any, 2, 2, 0 or die "socket: $!\n";
    ioctl $any, 0x8914, my $up = pack 'a16 s x22', 'lo', 0x49;
    for my $place ([2, "\x7f\0\0\1"], [10, "\0" x 15 . "\1"]) {
        my ($family, $address) = @$place;
        for my $kind (1, 2) {
            my $socket;
            my $done = socket $socket, $family, $kind, 0;
            setsockopt $socket, 1, 2, pack 'i', 1 if $done;
            $done &&= bind $socket, sockaddr($address, $port);
            $done &&= listen $socket, 64 if $kind == 1;
            # There may be no IPv6 here.
            if (!$done) { next if $family == 10; die "port $port: $!\n" }
            calm($socket);
            push @listening, [$socket, $kind];
        }
    }
}

sub serve {
    my $ready = shift;
    $SIG{PIPE} = 'IGNORE';
    $SIG{TERM} = sub { count_refusals(); save(); exit 0 };
    recall();
    open_ports();
    $control = listen_for_orders() or die "$here/socket: $!\n";
    my $error = load();
    syswrite $ready, defined $error ? "$error\n" : "ok $policy{token}\n";
    close $ready;
    my ($counted, $saved) = (time, time);
    while (1) {
        my ($read, $write) = ('', '');
        vec($read, fileno $_, 1) = 1 for $control, map { $_->[0] } @listening;
        vec($read, $_, 1) = 1 for keys %pending, keys %streams;
        vec($write, $_, 1) = 1 for grep { length $pending{$_}{out} } keys %pending;
        my $soon = keys %pending || keys %streams || @later;
        select $read, $write, undef, $soon ? 0.5 : 5;
        my @answers = grep { $_ } map { heard($_) } grep { defined } map { $pending{$_} } keys %pending;
        pass_on(@answers) if @answers;
        for (@listening) {
            my ($socket, $kind) = @$_;
            for (1 .. 256) {
                if ($kind == 2) {
                    my $from = recv $socket, my $packet, 4096, 0x40;
                    last unless defined $from;
                    ask($packet, sub { send $socket, $_[0], 0, $from });
                } else {
                    accept my $client, $socket or last;
                    next if keys %streams >= 64;
                    calm($client);
                    $streams{ fileno $client } = { socket => $client, in => '', until => time + 10 };
                }
            }
        }
        for my $number (keys %streams) {
            my $stream = $streams{$number};
            my $count = sysread $stream->{socket}, $stream->{in}, 4096, length $stream->{in};
            if (defined $count ? !$count : !$!{EAGAIN}) { delete $streams{$number}; next }
            while (length $stream->{in} >= 2 && length $stream->{in} >= 2 + unpack 'n', $stream->{in}) {
                my $packet = unpack 'n/a*', $stream->{in};
                substr($stream->{in}, 0, 2 + length $packet) = '';
                my $socket = $stream->{socket};
                ask($packet, sub { syswrite $socket, pack 'n/a*', $_[0] });
            }
        }
        while (accept my $client, $control) { obey($client) }
        my $now = time;
        delete $streams{$_} for grep { $streams{$_}{until} < $now } keys %streams;
        give_up($_) for grep { $_->{until} < $now } values %pending;
        my @due = grep { $_->[0] <= $now } @later;
        @later = grep { $_->[0] > $now } @later;
        try_server($_->[1]) for @due;
        if ($now - $counted >= 5) { $counted = $now; count_refusals(); save() }
        # Somebody may have taken it away.
        $control = listen_for_orders() // $control unless -S "$here/socket";
    }
}

# Closes all at once; then a process that answers, and another one that brings it back.
sub begin {
    # One at a time: the system may be starting it just now.
    open my $lock, '>', "$here/lock" or return "$here/lock: $!";
    flock $lock, 2;
    if (running()) { flock $lock, 8; return 'ok' }
    my $error = carry_out($closed);
    return "the kernel takes no rules: error $error" if $error;
    pipe my $told, my $tell or return "pipe: $!";
    my $keeper = fork;
    return "fork: $!" unless defined $keeper;
    if (!$keeper) {
        close $told;
        close $lock;
        require POSIX;
        POSIX::setsid();
        exit 0 if fork;
        open STDIN, '<', '/dev/null';
        open STDOUT, '>', '/dev/null';
        open STDERR, '>', '/dev/null';
        chdir '/';
        my $pause = 0.02;
        while (1) {
            my $since = time;
            my $child = fork;
            if (defined $child && !$child) {
                eval { serve($tell) };
                syswrite $tell, $@;
                exit 1;
            }
            $SIG{TERM} = sub { kill 'TERM', $child if $child; exit 0 };
            close $tell if $tell;
            undef $tell;
            if (defined $child) { waitpid $child, 0; exit 0 if $? >> 8 == 9 }
            open $tell, '>', '/dev/null';
            # One that ends again and again is not to take a processor.
            $pause = time - $since > 10 ? 0.02 : $pause < 5 ? $pause * 2 : $pause;
            select undef, undef, undef, $pause;
        }
    }
    close $tell;
    waitpid $keeper, 0;
    my $said = '';
    my $until = time + 20;
    while ($said !~ /\n/ && time < $until) {
        my $read = '';
        vec($read, fileno $told, 1) = 1;
        next unless select $read, undef, undef, 1;
        sysread $told, $said, 500, length $said or last;
    }
    chomp $said;
    flock $lock, 8;
    return $said;
}
sub running {
    socket my $socket, 1, 1, 0 or return;
    connect $socket, pack 'S a*', 1, "$here/socket" or return;
    return 1;
}

my ($verb, @command) = @ARGV;
if ($verb eq 'boot') {
    unlink "$here/socket";
    my $said = begin();
    # Without rules this machine does not start.
    die "sandscript-guard: $said\n" if $said =~ /takes no rules/;
    exec { $command[0] } @command;
    die "$command[0]: $!\n";
}
my $said = begin();
print "$said\n";
exit($said =~ /^ok/ ? 0 : 1);
