// An EFI program for the tests of desktops: it counts its starts in a variable of
// the firmware, says that, the machine's network address, whether it has a TPM 2.0 and
// whether Secure Boot is on, on the console, and powers off (UEFI 2.10: 3.3, 4.4, 4.5,
// 7.3, 8.2, 8.5, 24.1; TCG EFI Protocol Specification, 6.4).
typedef unsigned long long u64;
typedef unsigned short u16;
typedef unsigned char u8;
typedef u64 (__attribute__((ms_abi)) * call)();

struct guid { unsigned a; u16 b, c; u8 d[8]; };

static struct guid vendor = { 0x6c756d69, 0x6e61, 0x4000, { 0x80, 1, 2, 3, 4, 5, 6, 7 } };
static struct guid network = { 0xa19832b9, 0xac25, 0x11d3, { 0x9a, 0x2d, 0, 0x90, 0x27, 0x3f, 0xc1, 0x4d } };

static struct guid global = { 0x8be4df61, 0x93ca, 0x11d2, { 0xaa, 0x0d, 0, 0xe0, 0x98, 0x03, 0x2b, 0x8c } };
static struct guid tcg2 = { 0x607f766c, 0x7455, 0x42be, { 0x93, 0x0b, 0xe4, 0xd7, 0x6d, 0xb2, 0x72, 0x0f } };

u64 __attribute__((ms_abi)) efi_main(void *image, u64 **table)
{
	u64 *runtime = table[11], *boot = table[12], **out = (u64 **)table[8];
	u64 count = 0, size = sizeof count;
	u64 handles = 0, *all = 0, *nic = 0;
	u8 capability[64] = { sizeof capability }, secure = 0;
	u64 *tpm = 0, one = 1;
	u16 text[] = u"starts: 0 mac: 000000000000 tpm: 0 secure: 0\r\n";

	(void)image;
	((call)runtime[9])(u"LuminaStarts", &vendor, (void *)0, &size, &count);
	count++;
	((call)runtime[11])(u"LuminaStarts", &vendor, 7ULL, sizeof count, &count);
	text[8] += count;
	/* The firmware has started no driver that it did not need to get here. */
	((call)boot[39])(0ULL, (void *)0, (void *)0, &handles, &all);
	for (u64 i = 0; i < handles; i++)
		((call)boot[33])(all[i], (void *)0, (void *)0, 1ULL);
	if (((call)boot[40])(&network, (void *)0, &nic) == 0) {
		u8 *mac = (u8 *)nic[15] + 10 * 4 + 16 * 32;
		for (int i = 0; i < 12; i++) {
			int digit = mac[i / 2] >> (i % 2 ? 0 : 4) & 15;
			text[15 + i] = digit + (digit < 10 ? '0' : 'a' - 10);
		}
	}
	if (((call)boot[40])(&tcg2, (void *)0, &tpm) == 0 && ((call)tpm[0])(tpm, capability) == 0)
		text[33] += capability[16]; /* it is present */
	((call)runtime[9])(u"SecureBoot", &global, (void *)0, &one, &secure);
	text[43] += secure;
	((call)out[1])(out, text);
	((call)runtime[13])(2ULL, 0ULL, 0ULL, (void *)0);
	return 0;
}
