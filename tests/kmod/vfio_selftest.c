// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What clients of VFIO get from an added device besides memory: interrupts, and
 * a refusal where they want to give the device to a virtual machine. Runs as the
 * first process of a small virtual machine, see tests/kmod/run, and prints TAP on
 * the console.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 */
#define _GNU_SOURCE
#include "client.h"

#include <linux/pci_regs.h>
#include <poll.h>
#include <sys/eventfd.h>

#define QEMU	"/usr/bin/qemu-system-x86_64"
#define OUTPUT	"/output"

/* Registers of the 82574, and what raises an interrupt in them */
#define ICR	0x000c0		/* a read clears it */
#define ICS	0x000c8
#define IMS	0x000d0
#define IMC	0x000d8
#define EIAC	0x000dc
#define IVAR	0x000e4
#define LINK	(1u << 2)	/* any cause without a queue */
#define VECTORS	5
#define CAUSE(n)	(1u << (20 + (n)))	/* RXQ0, RXQ1, TXQ0, TXQ1, other */
#define IVAR_ALL	0x000cba98u		/* cause n has vector n, valid */

/* Those of the device that is open */
static volatile uint32_t *regs;

static uint64_t region(struct client *c, int index, uint64_t *size)
{
	struct vfio_region_info info = { .argsz = sizeof(info), .index = index };

	if (ioctl(c->device, VFIO_DEVICE_GET_REGION_INFO, &info))
		die("VFIO_DEVICE_GET_REGION_INFO");
	if (size)
		*size = info.size;
	return info.offset;
}

/* Open the device and let it write to memory, which is what an MSI is */
static bool device_open(struct client *c, const char *bdf)
{
	uint64_t size, bar;
	uint16_t cmd;
	off_t at;

	if (client_start(c, bdf))
		return false;

	at = region(c, VFIO_PCI_CONFIG_REGION_INDEX, NULL) + PCI_COMMAND;
	if (pread(c->device, &cmd, 2, at) != 2)
		return false;
	cmd |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	if (pwrite(c->device, &cmd, 2, at) != 2)
		return false;

	bar = region(c, VFIO_PCI_BAR0_REGION_INDEX, &size);
	regs = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, c->device, bar);
	return regs != MAP_FAILED;
}

static void device_close(struct client *c)
{
	uint64_t size;

	region(c, VFIO_PCI_BAR0_REGION_INDEX, &size);
	munmap((void *)regs, size);
	client_close(c);
}

static uint32_t reg_read(unsigned int reg)
{
	return regs[reg / 4];
}

static void reg_write(unsigned int reg, uint32_t value)
{
	regs[reg / 4] = value;
}

static int set_irqs(struct client *c, int index, const int *events, int n)
{
	struct {
		struct vfio_irq_set set;
		int32_t fds[VECTORS];
	} arg = {
		.set = {
			.argsz = sizeof(arg.set) + n * sizeof(arg.fds[0]),
			.flags = VFIO_IRQ_SET_ACTION_TRIGGER |
				 (n ? VFIO_IRQ_SET_DATA_EVENTFD : VFIO_IRQ_SET_DATA_NONE),
			.index = index,
			.count = n,
		},
	};

	if (n)
		memcpy(arg.fds, events, n * sizeof(*events));
	return ioctl(c->device, VFIO_DEVICE_SET_IRQS, &arg) ? -errno : 0;
}

static int unmask_intx(struct client *c)
{
	struct vfio_irq_set set = {
		.argsz = sizeof(set),
		.flags = VFIO_IRQ_SET_ACTION_UNMASK | VFIO_IRQ_SET_DATA_NONE,
		.index = VFIO_PCI_INTX_IRQ_INDEX,
		.count = 1,
	};

	return ioctl(c->device, VFIO_DEVICE_SET_IRQS, &set) ? -errno : 0;
}

/* How often it was signalled since the last call, waiting for the first time */
static uint64_t signals(int event, int ms)
{
	struct pollfd p = { .fd = event, .events = POLLIN };
	uint64_t n = 0;

	if (poll(&p, 1, ms) == 1 && read(event, &n, sizeof(n)) != sizeof(n))
		return 0;
	return n;
}

/* Raise an interrupt by these causes and say that it has been dealt with */
static void raise_irq(uint32_t causes)
{
	reg_write(IMS, causes);
	reg_write(ICS, causes);
}

static void settle_irq(void)
{
	reg_write(IMC, ~0u);
	reg_read(ICR);
	/* Older versions of QEMU repeat an interrupt when its throttling ends */
	usleep(10000);
}

/* Handlers of VFIO that the kernel has now */
static int handlers(void)
{
	char *text = slurp("/proc/interrupts"), *at = text;
	int n = 0;

	while ((at = strstr(at, "vfio-"))) {
		at++;
		n++;
	}
	free(text);
	return n;
}

static void test_msix(const char *when)
{
	int events[VECTORS], i, n, good = 0, strays = 0;
	struct client c;

	if (!device_open(&c, A)) {
		ok(false, "open the device %s: %m", when);
		return;
	}
	for (i = 0; i < VECTORS; i++)
		events[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	settle_irq();
	ok(!set_irqs(&c, VFIO_PCI_MSIX_IRQ_INDEX, events, VECTORS) && handlers() == VECTORS,
	   "%d MSI-X vectors have eventfds %s", VECTORS, when);
	reg_write(EIAC, 0);
	reg_write(IVAR, IVAR_ALL);
	for (n = 0; n < 4 * VECTORS; n++) {
		int other;

		i = n % VECTORS;
		raise_irq(CAUSE(i));
		good += signals(events[i], 2000) > 0;
		settle_irq();
		signals(events[i], 0);
		for (other = 0; other < VECTORS; other++)
			strays += signals(events[other], 0);
	}
	ok(good == 4 * VECTORS && !strays,
	   "%d of %d interrupts came to the eventfd of their vector, %d elsewhere", good,
	   4 * VECTORS, strays);
	reg_write(ICS, CAUSE(0));
	ok(!signals(events[0], 100), "none comes where the device masks its cause");
	settle_irq();
	device_close(&c);
	ok(!handlers(), "the vectors are gone with the client");
	for (i = 0; i < VECTORS; i++)
		close(events[i]);
}

static void test_msi(void)
{
	int event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct client c;
	int i, good = 0;

	if (!device_open(&c, A)) {
		ok(false, "open the device for MSI: %m");
		return;
	}
	settle_irq();
	ok(!set_irqs(&c, VFIO_PCI_MSI_IRQ_INDEX, &event, 1), "MSI has an eventfd");
	for (i = 0; i < 4; i++) {
		raise_irq(LINK);
		good += signals(event, 2000) > 0;
		settle_irq();
		signals(event, 0);
	}
	ok(good == 4, "%d of 4 MSIs came", good);
	ok(!set_irqs(&c, VFIO_PCI_MSI_IRQ_INDEX, NULL, 0) && !handlers(), "MSI is off again");

	good = 0;
	ok(!set_irqs(&c, VFIO_PCI_INTX_IRQ_INDEX, &event, 1), "INTx has an eventfd");
	for (i = 0; i < 4; i++) {
		raise_irq(LINK);
		good += signals(event, 2000) > 0;
		settle_irq();
		signals(event, 0);
		good -= !!unmask_intx(&c);
	}
	ok(good == 4, "%d of 4 INTx interrupts came, each unmasked afterwards", good);
	device_close(&c);
	close(event);
}

/* What a host without interrupt remapping must be told to accept. VFIO takes an ITS for that */
static void test_unsafe(void)
{
	const char *msi = getenv("msi");
	struct client c;

	put(UNSAFE, "N");
	if (msi && !strcmp(msi, "its")) {
		expect(client_start(&c, A), 0, "unsafe interrupts need not be allowed where there is an ITS");
		client_close(&c);
		put(UNSAFE, "Y");
		return;
	}
	ok(!client_open(&c, A) && client_attach(&c) == -EPERM,
	   "attaching is refused where unsafe interrupts are not allowed");
	expect(client_device(&c, A), -EINVAL, "and so is the device, whose interrupts they would be");
	client_close(&c);
	put(UNSAFE, "Y");
}

/* Write combining */

#define WC	PARAM "write_combining"
#define TYPE	"/sys/module/page_type/parameters/at"

#define MEMTYPES	"/sys/kernel/debug/x86/pat_memtype_list"

/* Ranges that the kernel has reserved as write-combining */
static int reserved(void)
{
	char *text = slurp(MEMTYPES), *at = text;
	int n = 0;

	while ((at = strstr(at, "write-combining"))) {
		at++;
		n++;
	}
	free(text);
	return n;
}

static bool reads(const char *path, const char *want)
{
	char *text = slurp(path);
	bool same = !strcmp(text, want);

	if (!same)
		printf("# %s: %s\n", path, text);
	free(text);
	return same;
}

/* Does the page table have this type for what is at @p? */
static bool has_type(volatile void *p, const char *want)
{
	char text[32];

	snprintf(text, sizeof(text), "%p", p);
	if (put(TYPE, text))
		return false;
	snprintf(text, sizeof(text), "%s\n", want);
	return reads(TYPE, text);
}

/* A client of VFIO maps the BAR and writes to it; what the page table says then */
static bool client_maps(int bar, const char *want)
{
	uint64_t size, offset;
	volatile uint64_t *p;
	struct client c;
	bool same;

	if (client_start(&c, SHM))
		return false;
	offset = region(&c, VFIO_PCI_BAR0_REGION_INDEX + bar, &size);
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, c.device, offset);
	if (p == MAP_FAILED)
		die("mmap");
	p[0] = 0x1122334455667788;
	p[size / 8 - 1] = 1;
	same = p[0] == 0x1122334455667788 && has_type(p, want) &&
	       has_type(p + size / 8 - 1, want);
	munmap((void *)p, size);
	client_close(&c);
	return same;
}

static int name_bar(void *arg)
{
	return put(WC, arg);
}

static void test_write_combining(void)
{
	static const char * const malformed[] = {
		"", "+", SHM " 2", "+" SHM, "+" SHM " ", "+" SHM " 6", "+" SHM " 2x", "+" SHM " 22",
		"+" SHM "  2", "+00:07.0 2", "+" SHM " 2\n\n", "++" SHM " 2", "+ 2",
		"+0000:00:07.0aaaaaaaaaaaaaaaaaaaaaaaaaaaa 2",
	};
	int fd, before = reserved();
	unsigned int i;
	void *p;

	ok(there(MEMTYPES), "the kernel lists memory types");
	for (i = 0; i < sizeof(malformed) / sizeof(*malformed); i++)
		expect(put(WC, malformed[i]), *malformed[i] ? -EINVAL : 0, "malformed %u", i);
	expect(put(WC, "+" ABSENT " 2"), -ENODEV, "a BAR of no device");
	expect(put(WC, "+" SHM " 0"), -EINVAL, "a BAR of registers");
	expect(put(WC, "+" SHM " 5"), -EINVAL, "a BAR that there is not");
	expect(put(WC, "+" A " 3"), -EBUSY, "a BAR of a device that has a driver");
	expect(in_child(name_bar, "+" SHM " 2", AS_NO_RAWIO), -EPERM, "without CAP_SYS_RAWIO");
	expect(put(WC, "-" SHM " 2"), -ENODEV, "take back what was not named");
	ok(reads(WC, ""), "nothing came of all that");

	ok(!add(SHM) && !bind_vfio(SHM), "add a device with memory");
	ok(client_maps(2, "uncached-minus"), "VFIO maps it uncached");
	ok(!unbind_vfio(SHM), "unbind");

	expect(put(WC, "+" SHM " 2\n"), 0, "name the BAR");
	expect(put(WC, "+" SHM " 2"), -EEXIST, "twice");
	ok(reads(WC, SHM " 2 off\n"), "it is listed");
	ok(!bind_vfio(SHM) && reads(WC, SHM " 2 on\n"), "with vfio-pci it is in force");
	ok(client_maps(2, "write-combining"), "VFIO maps it write-combined");
	ok(client_maps(2, "write-combining"), "each time");
	ok(reserved() > before, "a reservation is listed");
	expect(put(WC, "-" SHM " 2"), -EBUSY, "take it back under vfio-pci");
	ok(!unbind_vfio(SHM) && reads(WC, SHM " 2 off\n"), "without, it is not");
	ok(reserved() == before, "the reservation is freed");

	/* Uncached mappings, of sysfs, take the reservation over without a word */
	fd = open(PCI "devices/" SHM "/resource2", O_RDWR | O_CLOEXEC);
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ok(p != MAP_FAILED && !bind_vfio(SHM) && reads(WC, SHM " 2 off\n"),
	   "what is mapped already is known not to be write-combined");
	munmap(p, PAGE);
	close(fd);
	ok(!unbind_vfio(SHM) && !bind_vfio(SHM) && client_maps(2, "write-combining"),
	   "when that is gone, it is");
	ok(!unbind_vfio(SHM), "unbind");

	expect(put(WC, "-" SHM " 2"), 0, "take it back");
	ok(reads(WC, "") && !bind_vfio(SHM) && client_maps(2, "uncached-minus"),
	   "VFIO maps it uncached again");
	ok(!unbind_vfio(SHM) && !put(WC, "+" SHM " 2") && !pci_put(SHM, "remove", "1") &&
	   reads(WC, ""), "what is unplugged is forgotten");
	put(PCI "rescan", "1");
	pci_put(SHM, "driver/unbind", SHM);
	ok(reserved() == before, "no reservation is left");
}

static void test_no_write_combining(void)
{
	log_skip();
	expect(put(WC, "+" SHM " 2"), -EOPNOTSUPP, "no write combining on this architecture");
	ok(logged(SHM, "no list of memory types") && reads(WC, ""), "log: why");
}

/* Start a virtual machine and end it; the exit status of QEMU, or -1 */
static int qemu(const char *device, const char *iommu)
{
	int in[2], out = open(OUTPUT, O_RDWR | O_CREAT | O_TRUNC, 0600), status;
	pid_t pid;

	if (out < 0 || pipe(in) || write(in[1], "quit\n", 5) != 5)
		die("qemu");
	pid = fork();
	if (!pid) {
		const char *args[] = {
			QEMU, "-machine", "q35,kernel-irqchip=off", "-accel", "tcg,tb-size=8",
			"-m", "64", "-nodefaults", "-no-user-config", "-display", "none",
			"-S", "-monitor", "stdio", NULL, NULL, NULL, NULL, NULL,
		};
		int n = 14;

		if (iommu) {
			args[n++] = "-device";
			args[n++] = iommu;
		}
		if (device) {
			args[n++] = "-device";
			args[n++] = device;
		}
		dup2(in[0], 0);
		dup2(out, 1);
		dup2(out, 2);
		execv(QEMU, (char **)args);
		perror(QEMU);
		_exit(127);
	}
	close(in[0]);
	close(out);
	close(in[1]);
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void show_output(void)
{
	char *text = slurp(OUTPUT), *rest = text, *line;

	while ((line = strsep(&rest, "\r\n"))) {
		if (*line)
			printf("# %s\n", line);
	}
	free(text);
}

/* It says what was refused, and not by a crash */
static void test_assign(const char *iommu, const char *what)
{
	int status = qemu("vfio-pci,rombar=0,host=" A, iommu);
	char *text = slurp(OUTPUT);

	ok(status == 1 && strstr(text, "dma_map(") && strstr(text, "-22 (Invalid argument)"),
	   "QEMU%s cannot give the device to its machine (exit status %d)", what, status);
	show_output();
	free(text);
}

/* A machine in the machine */
static void test_qemu(void)
{
	long before, after;
	int status;

	status = qemu(NULL, NULL);
	ok(!status, "QEMU runs here (exit status %d)", status);
	if (status)
		show_output();
	before = pinned();
	test_assign(NULL, "");
	test_assign("intel-iommu,caching-mode=on", " with an IOMMU for its guest");
	after = pinned();
	ok(after == before, "none of its memory has stayed pinned (%ld pages, were %ld)", after,
	   before);
	test_msix("after that");
}

int main(void)
{
	start("16", false);
	if ((X86 && load("page_type", "")) || load("noiommu", "devices=" A))
		die("noiommu");
	ok(!logged(A, "will have no MSIs"), "its MSIs can be set up");
	ok(!bind_vfio(A), "bind vfio-pci");
	test_msix("at first");
	test_msi();
	test_unsafe();
	if (X86) {
		test_write_combining();
		test_qemu();
	} else {
		test_no_write_combining();
		test_msix("after that");
	}

	ok(!unbind_vfio(A) && !del(A) && !unload("noiommu"),
	   "the device and the module can be taken away");
	ok(!(taint() & TAINT_BUGS),
	   "the kernel has not complained");
	finish();
}
