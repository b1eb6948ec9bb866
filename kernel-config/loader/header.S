/*
 * The PE header of the loader, written out as the kernels' own are: no linker that knows PE is needed. One section, read
 * and executed, that may be anywhere. Microsoft's "PE Format" names the fields.
 */
#ifdef __x86_64__
#define MACHINE 0x8664
#else
#define MACHINE 0xaa64
#endif
	.section .head, "a"
	.ascii	"MZ"
	.zero	58
	.long	64			/* of the PE header */
	.ascii	"PE\0\0"
	.short	MACHINE
	.short	1			/* sections */
	.long	0, 0, 0			/* time, symbols */
	.short	optional_end - optional
	.short	0x206			/* executable, without line numbers and debug information */
optional:
	.short	0x20b			/* PE32+ */
	.byte	0, 0
	.long	_end - 4096, 0, 0	/* sizes of code and data */
	.long	efi_main
	.long	4096			/* base of code */
	.quad	0			/* preferred base: any */
	.long	4096, 4096		/* alignment in memory and file */
	.short	0, 0, 0, 0, 0, 0
	.long	0
	.long	_end, 4096		/* sizes of image and headers */
	.long	0
	.short	10			/* EFI application */
	.short	0x100			/* no execution of data */
	.quad	0, 0, 0, 0
	.long	0, 6
	.quad	0, 0, 0, 0, 0, 0	/* no directories, relocations among them */
optional_end:
	.ascii	".text\0\0\0"
	.long	_end - 4096, 4096	/* in memory */
	.long	_end - 4096, 4096	/* in the file */
	.long	0, 0
	.short	0, 0
	.long	0x60000020		/* code, read, executed */
	.section .note.GNU-stack, "", %progbits
