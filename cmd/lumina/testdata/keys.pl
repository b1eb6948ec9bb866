# Prints the keys that are pressed, by their numbers in linux/input-event-codes.h, and has
# nobody else in the guest see them.
use strict;
use warnings;
$| = 1;
my ($bits, %devices) = ("");
for (glob "/dev/input/event*") {
	open(my $f, "<:raw", $_) or next;
	ioctl($f, 0x40044590, 1) or die "EVIOCGRAB: $!";
	$devices{fileno $f} = $f;
	vec($bits, fileno $f, 1) = 1;
}
print "ready\n";
while (select(my $ready = $bits, undef, undef, undef)) {
	for my $n (grep { vec $ready, $_, 1 } keys %devices) {
		sysread $devices{$n}, my $events, 24 * 64;
		for (unpack "(a24)*", $events) {
			my (undef, undef, $type, $code, $value) = unpack "qqSSl", $_;
			print "$code\n" if $type == 1 && $value == 1;
		}
	}
}
