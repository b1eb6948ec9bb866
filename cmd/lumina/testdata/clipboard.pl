# What an agent of a guest's clipboard says, as much of it as a test needs (spice-protocol,
# spice/vd_agent.h): it takes what is pasted, and offers that with a word of its own.
use strict;
use warnings;
$| = 1;
my ($name) = grep { my $n = `cat $_`; $n =~ /^com\.redhat\.spice\.0/ } glob("/sys/class/virtio-ports/*/name");
$name =~ s{.*/(vport[^/]*)/name}{/dev/$1};
open(my $port, "+<:raw", $name) or die "$name: $!";

sub send_message {
	my ($type, $data) = @_;
	my $m = pack("VVQ<V", 1, $type, 0, length $data) . $data;
	syswrite $port, pack("VV", 1, length $m) . $m;
}

sub receive {
	my ($size, $got) = (shift, "");
	while (length $got < $size) {
		sysread($port, $got, $size - length $got, length $got) or select undef, undef, undef, 0.1;
	}
	return $got;
}

send_message(6, pack("VV", 1, 1 << 5));    # it has the clipboard, by demand
print "ready\n";
my $text;
while (1) {
	my (undef, $size) = unpack "VV", receive(8);
	my $m = receive($size);
	my (undef, $type) = unpack "VV", $m;
	if ($type == 7) { send_message(8, pack "V", 1); }    # another one has a text: ask for it
	elsif ($type == 4) {                                 # here it is
		$text = substr $m, 24;
		send_message(7, pack "V", 1);                    # this one has a text, too
	}
	elsif ($type == 8) {                                 # it is asked for
		send_message(4, pack("V", 1) . "the guest got $text");
		exit 0;
	}
}
