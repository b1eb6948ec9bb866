/*
 * The first program of an exported disk: EFI firmware starts \EFI\BOOT\BOOT*.EFI without arguments, and the kernel's own
 * EFI stub takes its command line, which names the initramfs, only as arguments. This starts the kernel with them:
 *
 *	\lumina\kernel     what to start, on the partition that this was started from
 *	\lumina\cmdline    its arguments, ASCII, at most MAX_ARGUMENTS bytes
 *
 * Types and numbers are those of the UEFI specification 2.10. Nothing here needs relocation: no pointer is initialised.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef u64 status;
typedef void *handle;

#ifdef __x86_64__
#define EFIAPI __attribute__((ms_abi))
#else
#define EFIAPI
#endif

#define ERROR(n) ((1ul << 63) | (n))
#define LOAD_ERROR ERROR(1)
#define OUT_OF_RESOURCES ERROR(9)
#define MAX_ARGUMENTS 2047
#define MAX_PATH 1024 /* of a device path, bytes */

struct guid {
	u32 a;
	u16 b, c;
	u8 d[8];
};

struct node { /* of a device path */
	u8 type, subtype, length[2];
};

struct file {
	u64 revision;
	status(EFIAPI *open)(struct file *, struct file **, const u16 *, u64 mode, u64 attributes);
	status(EFIAPI *close)(struct file *);
	void *delete;
	status(EFIAPI *read)(struct file *, u64 *, void *);
};

struct file_system {
	u64 revision;
	status(EFIAPI *open_volume)(struct file_system *, struct file **);
};

struct loaded_image {
	u32 revision;
	handle parent;
	void *system;
	handle device;
	struct node *path;
	void *reserved;
	u32 options_size; /* bytes */
	void *options;
};

struct text {
	void *reset;
	status(EFIAPI *output)(struct text *, const u16 *);
};

struct boot_services {
	u8 header[24];
	void *before_handle_protocol[16];
	status(EFIAPI *handle_protocol)(handle, const struct guid *, void *);
	void *before_load_image[5];
	status(EFIAPI *load_image)(u8 policy, handle parent, struct node *, void *source, u64 size, handle *);
	status(EFIAPI *start_image)(handle, u64 *, u16 **);
};

struct system_table {
	u8 header[24];
	u16 *vendor;
	u32 revision;
	handle in_handle;
	void *in;
	handle out_handle;
	struct text *out;
	handle err_handle;
	struct text *err;
	void *runtime;
	struct boot_services *boot;
};

static const struct guid loaded_image_guid = {0x5b1b31a1, 0x9562, 0x11d2, {0x8e, 0x3f, 0, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
static const struct guid file_system_guid = {0x964e5b22, 0x6459, 0x11d2, {0x8e, 0x39, 0, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
static const struct guid device_path_guid = {0x09576e91, 0x6d3f, 0x11d2, {0x8e, 0x39, 0, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
static const u16 kernel_name[] = u"\\lumina\\kernel", arguments_name[] = u"\\lumina\\cmdline";

/* memcpy is what the compiler calls for copies that it finds; volatile, so that it does not find this one. */
void *memcpy(void *to, const void *from, u64 n)
{
	volatile u8 *t = to;
	const u8 *f = from;
	while (n--)
		*t++ = *f++;
	return to;
}

/* append copies and returns what is behind the copy. */
static u8 *append(u8 *to, const void *from, u64 n)
{
	memcpy(to, from, n);
	return to + n;
}

/* kernel_path: the path of the kernel on the device of the path from. */
static status kernel_path(const struct node *from, u8 *to)
{
	const struct node *n = from;
	u64 size, length = 4 + sizeof kernel_name;
	while (n->type != 0x7f) {
		u64 step = n->length[0] | n->length[1] << 8;
		if (step < 4 || (const u8 *)n - (const u8 *)from + step > MAX_PATH - 128)
			return OUT_OF_RESOURCES;
		n = (const struct node *)((const u8 *)n + step);
	}
	size = (const u8 *)n - (const u8 *)from;
	to = append(to, from, size);
	to = append(to, (u8[]){4, 4, length, 0}, 4); /* media: a file's path */
	to = append(to, kernel_name, sizeof kernel_name);
	append(to, (u8[]){0x7f, 0xff, 4, 0}, 4);
	return 0;
}

/* read_arguments: sets the arguments, as the UTF-16 that the kernel expects, and their length in characters. */
static status read_arguments(struct boot_services *boot, handle device, u16 *arguments, u64 *length)
{
	struct file_system *fs;
	struct file *root, *f;
	u8 text[MAX_ARGUMENTS];
	u64 i, n = sizeof text;
	status s;
	if ((s = boot->handle_protocol(device, &file_system_guid, &fs)) || (s = fs->open_volume(fs, &root)) ||
	    (s = root->open(root, &f, arguments_name, 1, 0)) || (s = f->read(f, &n, text)))
		return s;
	f->close(f);
	root->close(root);
	for (i = 0; i < n && text[i] != '\n'; i++)
		arguments[i] = text[i];
	arguments[i] = 0;
	*length = i + 1;
	return 0;
}

static status start(handle self, struct boot_services *boot)
{
	struct loaded_image *image, *kernel_image;
	struct node *device;
	handle kernel;
	u8 path[MAX_PATH];
	u16 arguments[MAX_ARGUMENTS + 1];
	u64 length;
	status s;
	if ((s = boot->handle_protocol(self, &loaded_image_guid, &image)) ||
	    (s = boot->handle_protocol(image->device, &device_path_guid, &device)) ||
	    (s = kernel_path(device, path)) ||
	    (s = read_arguments(boot, image->device, arguments, &length)) ||
	    (s = boot->load_image(0, self, (struct node *)path, 0, 0, &kernel)) ||
	    (s = boot->handle_protocol(kernel, &loaded_image_guid, &kernel_image)))
		return s;
	kernel_image->options = arguments;
	kernel_image->options_size = 2 * length;
	return boot->start_image(kernel, 0, 0);
}

EFIAPI status efi_main(handle self, struct system_table *system)
{
	status s = start(self, system->boot);
	/* A kernel that was started does not return. */
	u16 digit[] = {'0' + s % 256 / 10, '0' + s % 256 % 10, '\r', '\n', 0};
	system->out->output(system->out, u"lumina: the kernel could not be started: EFI error ");
	system->out->output(system->out, digit);
	return s ? s : LOAD_ERROR;
}
