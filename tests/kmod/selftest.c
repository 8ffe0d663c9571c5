// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Selftest of the noiommu module. Runs as the only process of a small virtual
 * machine, see tests/kmod/run, and prints TAP on the console.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 */
#define _GNU_SOURCE
#include "client.h"

#include <ctype.h>
#include <signal.h>

#define CYCLES	200
#define TAINT_USER	(1 << 6)
#define TAINT_OOT	(1 << 12)

/* Files */

static const char *get(const char *path)
{
	static char text[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	if (len < 0)
		return "";
	text[len] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return text;
}

static void unbind_any(const char *bdf)
{
	pci_put(bdf, "driver/unbind", bdf);
}

/* Some kernels give new devices to their drivers whatever drivers_autoprobe says */
static void rescan(void)
{
	put(PCI "rescan", "1");
	unbind_any(A);
	unbind_any(B);
}

/* The hint for DPDK */

#define HINT	"iommu/intel-iommu/cap"

/* What DPDK finds for a device: something that is not a number */
static bool has_hint(const char *bdf)
{
	char path[PATH_MAX];
	const char *text;

	snprintf(path, sizeof(path), PCI "devices/%s/" HINT, bdf);
	text = get(path);
	return *text && !isxdigit((unsigned char)*text);
}

/* The node that the device hangs on, or an empty string */
static const char *iommu_of(const char *bdf)
{
	static char link[PATH_MAX];
	char path[PATH_MAX];
	ssize_t len;

	snprintf(path, sizeof(path), PCI "devices/%s/iommu", bdf);
	len = readlink(path, link, sizeof(link) - 1);
	link[len < 0 ? 0 : len] = '\0';
	return strrchr(link, '/') ? strrchr(link, '/') + 1 : link;
}

/* How many PCI devices have the hint, and how many an iommu link of any kind */
static int hints(int *links)
{
	struct dirent *e;
	DIR *dir = opendir(PCI "devices");
	int n = 0;

	*links = 0;
	while (dir && (e = readdir(dir))) {
		if (e->d_name[0] == '.')
			continue;
		n += has_hint(e->d_name);
		*links += *iommu_of(e->d_name) != '\0';
	}
	if (dir)
		closedir(dir);
	return n;
}

/* On other architectures than x86, all that were added */
static bool all_have_hint(void)
{
	int links, n = hints(&links), devices = entries(PCI "devices");

	return X86 ? devices > 5 && n == devices : n == links && n == entries(IOMMUS);
}

/* But for @added devices, whose own IOMMUs are linked */
static bool none_has_hint(int added)
{
	int links, n = hints(&links);

	return !n && links == added;
}

/* Tests */

static void test_without(void)
{
	expect(bind_vfio(A), -EINVAL, "vfio-pci without the module");
	ok(group_of(A) < 0, "no group without the module");
}

static void test_load(void)
{
	unsigned long before = taint();
	char path[PATH_MAX];

	expect(load("noiommu", "add=" A), -EINVAL, "'add' as a load parameter");
	expect(load("noiommu", "held=1"), -EPERM, "what can only be read, as a load parameter");
	log_skip();
	expect(load("noiommu", "devices=" A ",nonsense," ABSENT "," PORT "," A),
	       0, "load with one good and four bad devices");
	ok(logged("nonsense", "not a PCI address"), "log: malformed address");
	ok(group_of(A) >= 0, "the good one has a group");
	ok(entries(GROUPS) == 1, "and no other");
	snprintf(path, sizeof(path), GROUPS "/%d/name",
		 group_of(A));
	ok(!strcmp(get(path), "noiommu"), "the group's name is noiommu");
	snprintf(path, sizeof(path), GROUPS "/%d/type",
		 group_of(A));
	ok(!strcmp(get(path), "identity"), "the default domain is identity");
	expect(put(path, "DMA"), -EINVAL, "another default domain");
	ok(there(IOMMUS "/noiommu-" A "/devices/" A),
	   "the IOMMU is in sysfs");
	ok(has_hint(A), "the hint for DPDK is there");
	ok((taint() & ~before & ~(1 << 13)) == TAINT_OOT,
	   "taint at load: out-of-tree only (%lu, was %lu)", taint(), before);
}

/* A load that fails after it has read a list must not lose that */
static void test_load_fails(void)
{
	size_t size = 1 << 17;
	char *args = malloc(size + 32);
	long before, lost;
	int n, bad = 0;

	memset(stpcpy(args, "devices="), 'x', size);
	strcpy(args + strlen("devices=") + size, " held=1");
	before = read_number("/proc/meminfo", "SUnreclaim");
	for (n = 0; n < 100; n++)
		bad += load("noiommu", args) != -EPERM;
	lost = read_number("/proc/meminfo", "SUnreclaim") - before;
	ok(!bad && lost < 6 * 1024, "loads that fail lose no memory (%ld KiB after %d times)", lost, n);
	free(args);
}

static int add_a(void *arg)
{
	return add(arg);
}

static int write_fd(void *arg)
{
	return write(*(int *)arg, V, strlen(V)) < 0 ? -errno : 0;
}

static void test_refusals(void)
{
	static const char * const malformed[] = {
		"\n", "x", "00:02.0", "0000:00:02", "0000:00:02.", ":00:02.0",
		"0000:00:20.0", "0000:00:02.8", "0000:00:02.0 ", " 0000:00:02.0",
		"0000:00:02.0\n\n", "0000:00:02.0,0000:00:03.0", "0x00:00:02.0",
		"0000:00:02.00", "0000:000:02.0", "00000000:00:02.0", "-001:00:02.0",
		"0000:00:02.0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		"\xff\xfe", "0000:00:02.0\nx",
	};
	unsigned int i;
	int fd;

	for (i = 0; i < sizeof(malformed) / sizeof(*malformed); i++) {
		expect(add(malformed[i]), -EINVAL, "add malformed address %u", i);
		expect(del(malformed[i]), -EINVAL, "remove malformed address %u", i);
	}
	log_skip();
	expect(add(ABSENT), -ENODEV, "add an absent device");
	ok(logged(ABSENT, "no such PCI device"), "log: absent");
	expect(add("fffff:ff:1f.7"), -ENODEV, "add an absent domain");
	expect(del(ABSENT), -ENODEV, "remove an absent device");
	expect(del(V), -ENODEV, "remove a device that was not added");
	ok(logged(V, "was not added"), "log: not added");
	expect(add(A), -EEXIST, "add twice");
	ok(logged(A, "already is"), "log: twice");
	expect(add(PORT), -EINVAL, "add a bridge");
	ok(logged(PORT, "bridge"), "log: bridge");

	expect(load("e1000e", ""), 0, "load e1000e");
	expect(drv_put("e1000e", "bind", B), 0, "bind e1000e to the other NIC");
	expect(add(B), -EBUSY, "add a device that has a driver");
	ok(logged(B, "e1000e is bound"), "log: driver bound");
	expect(drv_put("e1000e", "unbind", B), 0, "unbind e1000e");

	log_skip();
	expect(in_child(add_a, V, AS_NO_RAWIO), -EPERM, "add without CAP_SYS_RAWIO");
	ok(logged("CAP_SYS_RAWIO", NULL), "log: no CAP_SYS_RAWIO");
	fd = open(PARAM "add", O_WRONLY);
	expect(in_child(write_fd, &fd, AS_USERNS), -EPERM,
	       "add from a user namespace");
	close(fd);
	fd = open(PARAM "remove", O_WRONLY);
	expect(in_child(write_fd, &fd, AS_NO_RAWIO), -EPERM,
	       "remove without CAP_SYS_RAWIO");
	close(fd);
	ok(entries(GROUPS) == 1, "nothing came of all that");
	ok(!(taint() & TAINT_USER), "nor a taint");
}

static int hint_off(void *arg)
{
	(void)arg;
	return put(PARAM "dpdk_pa_hint", "N");
}

static void test_hint(void)
{
	ok(all_have_hint(), "each PCI device has the hint for DPDK");
	ok(group_of(V) < 0 && entries(GROUPS) == 1 && entries(IOMMUS) == 1,
	   "which makes no group and no IOMMU");
	expect(in_child(hint_off, NULL, AS_NO_RAWIO), -EPERM,
	       "turn it off without CAP_SYS_RAWIO");
	expect(put(PARAM "dpdk_pa_hint", "N"), 0, "turn it off");
	ok(none_has_hint(1), "no device has it");
	expect(add(V), 0, "add a device");
	ok(none_has_hint(2), "nor has that");
	expect(put(PARAM "dpdk_pa_hint", "x"), -EINVAL, "neither on nor off");
	expect(put(PARAM "dpdk_pa_hint", "Y"), 0, "turn it on again");
	ok(all_have_hint(), "each device has it");
	ok(!strcmp(iommu_of(V), "noiommu-" V), "added ones by their own IOMMU");
	expect(del(V), 0, "remove it");
	ok(!strcmp(iommu_of(V), X86 ? "no_iommu" : "") && has_hint(V) == X86,
	   "it has the hint of the others");
	expect(add(V), 0, "add it again");
	ok(!strcmp(iommu_of(V), "noiommu-" V) && has_hint(V), "the hint makes way");

	expect(del(A), 0, "remove the other");
	ok(all_have_hint(), "one that is added is enough");
	expect(pci_put(B, "remove", "1"), 0, "unplug a device");
	ok(all_have_hint(), "the others keep the hint");
	rescan();
	ok(there(PCI "devices/" B) && all_have_hint(), "plugged again, it has it");
	expect(pci_put(V, "remove", "1"), 0, "unplug the last that is added");
	ok(none_has_hint(0), "no device has the hint");
	rescan();
	unbind_any(V);
	ok(none_has_hint(0), "nor has one that comes then");

	expect(add(A), 0, "add one");
	expect(load("late_iommu", ""), 0, "another IOMMU shows up");
	ok(has_hint(A) && !strcmp(iommu_of(V), "") && !strcmp(iommu_of(B), ""),
	   "the hint makes way, but for what was added");
	rescan();
	expect(add(V), 0, "add another");
	ok(has_hint(V) && !strcmp(iommu_of(B), ""), "which has it, and the others have not");
	expect(unload("late_iommu"), 0, "it goes");
	expect(del(V), 0, "remove");
	ok(all_have_hint(), "with the next change, each device has the hint again");
}

static void test_add_remove(void)
{
	expect(add(V "\n"), 0, "add with a newline");
	ok(group_of(V) >= 0 && group_of(V) != group_of(A), "a group of its own");
	expect(del(V "\n"), 0, "remove");
	ok(group_of(V) < 0 && !there(IOMMUS "/noiommu-" V) &&
	   !there(PCI "devices/" V "/iommu/devices"), "nothing of it is left");
	expect(del(V), -ENODEV, "remove twice");
	expect(add(B), 0, "add what had a driver");
	expect(drv_put("e1000e", "bind", B), 0, "a native driver still binds");
	expect(del(B), -EBUSY, "remove under a native driver");
	expect(drv_put("e1000e", "unbind", B), 0, "unbind it");
}

/* What opening the group's file says, and what claiming the group does */
static int claim(void *arg)
{
	struct client c;
	int fd = open_group(arg);

	if (fd < 0)
		return -E2BIG;		/* the open was to work */
	close(fd);
	return client_open(&c, arg);
}

static int attach_fd(void *arg)
{
	return client_attach(arg);
}

static void test_attach(void)
{
	char path[64], name[64];
	struct client c;

	log_skip();
	expect(pci_put(A, "reset", "1"), 0, "reset a device that nobody has");
	ok(!logged(A, "handed to") && !(taint() & TAINT_USER), "which is no use");
	expect(bind_vfio(A), 0, "bind vfio-pci");
	snprintf(path, sizeof(path), "/dev/vfio/%d", group_of(A));
	ok(there("%s", path), "%s is there", path);
	log_skip();
	expect(del(A), -EBUSY, "remove under vfio-pci");
	ok(logged(A, "vfio-pci is bound"), "log: vfio-pci bound");
	expect(unload("noiommu"), -EAGAIN, "rmmod under vfio-pci");

	log_skip();
	expect(in_child(claim, A, AS_NO_RAWIO), -EPERM,
	       "claim without CAP_SYS_RAWIO, though the open worked");
	ok(logged(A, "lacks CAP_SYS_RAWIO"), "log: refused");
	expect(in_child(claim, A, AS_USERNS), -EPERM, "claim from a user namespace");
	ok(!(taint() & TAINT_USER), "no taint yet");

	log_skip();
	ok(says(DEBUG "devices", A) && says(DEBUG "devices", " unused"), "debugfs: unused");
	expect(client_open(&c, A), 0, "claim");
	snprintf(name, sizeof(name), " used by selftest[%d] for ", getpid());
	ok(says(DEBUG "devices", name), "debugfs: who uses it");
	snprintf(name, sizeof(name), "handed to selftest[%d]", getpid());
	ok(taint() & TAINT_USER, "the kernel is tainted (%lu)", taint());
	ok(logged(A, name), "log: who did it");
	expect(in_child(attach_fd, &c, AS_USERNS), 0,
	       "somebody else may attach what was claimed and handed on");
	client_close(&c);
	expect(client_start(&c, A), 0, "claim, attach and open the device");
	ok(logged(A, name), "log: who did it, again");
	expect(del(A), -EBUSY, "remove while in use");
	expect(unload("noiommu"), -EAGAIN, "rmmod while in use");
	ioctl(c.device, VFIO_DEVICE_RESET);
	ok(!logged(A, "handed to"), "a reset is part of the use");
	client_close(&c);

	expect(put(UNSAFE, "N"), 0, "no unsafe interrupts");
	expect(client_start(&c, A), -EPERM, "then VFIO refuses");
	client_close(&c);
	expect(put(UNSAFE, "Y"), 0, "unsafe interrupts");
}

static void test_trace(void)
{
	struct client c;

	if (!trace_start())
		return;
	ok(!add(V) && traced("noiommu_add: " V), "trace: added");
	ok(!client_open(&c, A) && traced("noiommu_use_begin: " A) && !traced("noiommu_use_end"),
	   "trace: used");
	client_close(&c);
	ok(traced("noiommu_use_end: " A), "trace: no longer used");
	ok(!del(V) && traced("noiommu_remove: " V), "trace: removed");
	trace_stop();
}

static int map_fork(void *arg)
{
	void *p = huge_page();

	return dma_map(arg, p, phys_of(p), HUGE);
}

static void test_map(void)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };
	struct vfio_irq_info irq = { .argsz = sizeof(irq) };
	uint64_t phys, phys2, size;
	void *p = huge_page(), *q = huge_page(), *small;
	struct client c;
	unsigned int i;
	int second;

	phys = phys_of(p);
	phys2 = phys_of(q);
	expect(client_start(&c, A), 0, "attach");
	expect(dma_map(&c, p, phys, HUGE), 0, "map at IOVA = physical");
	expect(dma_map(&c, p, phys, HUGE), -EEXIST, "map it twice");
	ok(dma_unmap(&c, phys, HUGE) == (int64_t)HUGE, "unmap all of it");
	ok(dma_unmap(&c, phys, HUGE) == 0, "nothing left to unmap");

	expect(dma_map(&c, p, phys2, HUGE), -EINVAL, "map at another page's address");
	expect(dma_map(&c, p, phys + HUGE, HUGE), -EINVAL, "map one huge page off");
	expect(dma_map(&c, p, phys + PAGE, HUGE), -EINVAL, "map one page off");
	expect(dma_map(&c, p, phys - PAGE, HUGE), -EINVAL, "map one page below");
	expect(dma_map(&c, p, 0x1000, HUGE), -EINVAL, "map at 0x1000");
	expect(dma_map(&c, p, 0, HUGE), -EINVAL, "map at 0");
	expect(dma_map(&c, p, (uintptr_t)p, HUGE), -EINVAL,
	       "map at IOVA = virtual");
	expect(dma_map(&c, p, phys | 1ULL << 40, HUGE), -EINVAL,
	       "map with a high bit set");
	expect(dma_map(&c, p, phys | 1ULL << 63, HUGE), -EINVAL,
	       "map with the highest bit set");
	expect(dma_map(&c, p, -HUGE, HUGE), -EINVAL, "map at the very end");
	expect(dma_map(&c, p, phys + 1, HUGE), -EINVAL, "map misaligned");
	ok(dma_unmap(&c, phys, HUGE) == 0, "a refused map leaves nothing");

	small = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	madvise(small, 64 * PAGE, MADV_NOHUGEPAGE);
	memset(small, 1, 64 * PAGE);
	expect(dma_map(&c, small, phys_of(small), PAGE), 0, "map one small page");
	expect(dma_map(&c, p, phys, HUGE / 2), 0, "map half a huge page");
	expect(dma_map(&c, p + HUGE / 2, phys + HUGE / 2, HUGE / 2), 0,
	       "and the other half");
	ok(dma_unmap(&c, phys, HUGE) == (int64_t)HUGE, "unmap both at once");
	for (i = 1; i < 64; i++) {
		if (phys_of(small + i * PAGE) != phys_of(small) + i * PAGE)
			break;
	}
	if (i < 64)
		expect(dma_map(&c, small + PAGE, phys_of(small) + PAGE,
			       63 * PAGE), -EINVAL, "map scattered pages");
	else
		ok(true, "map scattered pages # SKIP they are contiguous");
	ok(dma_unmap(&c, phys_of(small), PAGE) == (int64_t)PAGE, "unmap the small page");

	expect(bind_vfio(B), 0, "bind a second device");
	second = client_group(c.container, B);
	ok(second >= 0, "it joins the container (%s)", name_of(second));
	expect(dma_map(&c, q, phys2, HUGE), 0, "map for both");
	close(second);
	expect(unbind_vfio(B), 0, "unbind the second device");
	expect(del(B), 0, "and remove it while the first is in use");
	ok(dma_unmap(&c, phys2, HUGE) == (int64_t)HUGE, "unmap");

	ioctl(c.device, VFIO_DEVICE_GET_INFO, &info);
	ok(info.flags & VFIO_DEVICE_FLAGS_PCI &&
	   info.num_regions >= VFIO_PCI_NUM_REGIONS, "%u regions", info.num_regions);
	irq.index = VFIO_PCI_MSIX_IRQ_INDEX;
	ioctl(c.device, VFIO_DEVICE_GET_IRQ_INFO, &irq);
	ok(irq.count == 5, "%u MSI-X vectors", irq.count);
	irq.index = VFIO_PCI_MSI_IRQ_INDEX;
	ioctl(c.device, VFIO_DEVICE_GET_IRQ_INFO, &irq);
	ok(irq.count >= 1, "%u MSI vectors", irq.count);
	expect(ioctl(c.device, VFIO_DEVICE_RESET) ? -errno : 0, 0, "reset it");
	expect(dma_map(&c, p, phys, HUGE), 0, "map after the reset");

	size = HUGE;
	munmap(p, size);
	munmap(q, size);
	expect(in_child(map_fork, &c, AS_NO_RAWIO), 0,
	       "a container handed on works without CAP_SYS_RAWIO");
	client_close(&c);
	munmap(small, 64 * PAGE);
	expect(unbind_vfio(A), 0, "unbind");
}

static void test_killed(void)
{
	int pipefd[2], step;
	char c;

	for (step = 0; step < 4; step++) {
		pid_t pid;

		bind_vfio(A);
		if (pipe(pipefd))
			die("pipe");
		pid = fork();
		if (!pid) {
			struct client client;
			void *p = huge_page();

			client_open(&client, A);
			if (step > 0)
				client_attach(&client);
			if (step > 1)
				client_device(&client, A);
			if (step > 2)
				dma_map(&client, p, phys_of(p), HUGE);
			if (write(pipefd[1], "x", 1) == 1)
				pause();
			_exit(1);
		}
		if (read(pipefd[0], &c, 1) != 1)
			die("read");
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		close(pipefd[0]);
		close(pipefd[1]);
		expect(unbind_vfio(A), 0, "unbind after a client was killed at step %d",
		       step);
		expect(del(A), 0, "remove");
		expect(add(A), 0, "add");
	}
}

static void test_unplug(void)
{
	struct client c;
	void *p = huge_page();
	pid_t pid;
	int status;

	log_skip();
	expect(pci_put(A, "remove", "1"), 0, "unplug an added device");
	ok(!there(IOMMUS "/noiommu-" A) &&
	   !entries(GROUPS), "nothing of it is left");
	ok(logged("unplugged", NULL), "log: unplugged");
	expect(del(A), -ENODEV, "remove what was unplugged");
	rescan();
	ok(there(PCI "devices/" A) && group_of(A) < 0,
	   "plugged again, it has no group");
	expect(add(A), 0, "until it is added again");

	expect(bind_vfio(A), 0, "bind");
	expect(client_start(&c, A), 0, "use it");
	expect(dma_map(&c, p, phys_of(p), HUGE), 0, "map");
	munmap(p, HUGE);
	pid = fork();
	if (!pid) {
		client_close(&c);
		_exit(-pci_put(A, "remove", "1"));
	}
	usleep(300000);
	ok(!waitpid(pid, &status, WNOHANG), "unplugging waits for the user");
	log_skip();
	expect(del(A), -EBUSY, "who must not wait for himself: remove");
	expect(add(A), -EBUSY, "nor to add");
	ok(logged(A, "wait for a user"), "log: waits");
	expect(add(V), 0, "meanwhile another device can be added");
	expect(del(V), 0, "and removed");
	client_close(&c);
	waitpid(pid, &status, 0);
	expect(-WEXITSTATUS(status), 0, "unplugged");
	ok(!there(IOMMUS "/noiommu-" A) &&
	   !entries(GROUPS), "nothing of it is left");
	rescan();
	expect(add(A), 0, "add again");
	expect(bind_vfio(A), 0, "bind again");
	expect(client_start(&c, A), 0, "use again");
	client_close(&c);
	expect(unbind_vfio(A), 0, "unbind");
}

static int set_vfs(const char *n)
{
	return pci_put(PF, "sriov_numvfs", n);
}

/* Virtual functions, which come and go by a word to their PF */
static void test_sriov(void)
{
	int groups = entries(GROUPS), status;
	struct client c;
	pid_t pid;

	/* The debugging kernel does not see the upper part of configuration space */
	if (!there(PCI "devices/" PF "/sriov_numvfs")) {
		printf("# this kernel finds no device with VFs\n");
		return;
	}
	unbind_any(PF);
	expect(pci_put(PF, "driver_override", "pci-pf-stub"), 0, "a driver for the PF");
	expect(drv_put("pci-pf-stub", "bind", PF), 0, "bind it");
	expect(set_vfs("2"), 0, "two VFs");
	ok(there(PCI "devices/" VF) && group_of(VF) < 0, "they have no group");
	ok(all_have_hint(), "but the hint for DPDK");
	unbind_any(VF);
	unbind_any(VF2);
	expect(add(PF), -EBUSY, "add the PF that has a driver");
	expect(add(VF), 0, "add one VF");
	expect(add(VF2), 0, "and the other");
	ok(group_of(VF) >= 0 && group_of(VF2) >= 0 && group_of(VF) != group_of(VF2) &&
	   entries(GROUPS) == groups + 2, "each has a group of its own");
	expect(bind_vfio(VF), 0, "bind vfio-pci to one");
	expect(client_start(&c, VF), 0, "use it");
	log_skip();
	pid = fork();
	if (!pid) {
		client_close(&c);
		_exit(-set_vfs("0"));
	}
	usleep(300000);
	ok(!waitpid(pid, &status, WNOHANG), "taking the VFs away waits for the user");
	client_close(&c);
	waitpid(pid, &status, 0);
	expect(-WEXITSTATUS(status), 0, "then they go");
	ok(!there(PCI "devices/" VF) && entries(GROUPS) == groups &&
	   !there(IOMMUS "/noiommu-" VF) && !there(IOMMUS "/noiommu-" VF2),
	   "and nothing of them is left");
	ok(logged(VF, "unplugged"), "log: unplugged");
	expect(add(VF), -ENODEV, "add what is gone");
	expect(set_vfs("1"), 0, "one comes back");
	unbind_any(VF);
	ok(group_of(VF) < 0, "and has no group");
	expect(add(VF), 0, "until it is added");
	expect(del(VF), 0, "remove it");
	expect(set_vfs("0"), 0, "no VFs");
	ok(entries(GROUPS) == groups, "nothing of them is left");
}

/*
 * A registration that fails half-way, at each of its steps, while another device
 * is added: all of it is taken back, and the other one is as it was
 */
static void test_faults(void)
{
	int groups = entries(GROUPS), group = group_of(A), fd = fail_open(true), ret;
	unsigned int n, bad = 0, left = 0;

	if (fd < 0) {
		printf("# in this kernel nothing can be made to fail\n");
		return;
	}
	faults_start();
	put(LEAKS, "clear");
	for (n = 1; n < 10000; n++) {
		bool had;

		fail_nth(fd, n);
		ret = add(B);
		had = has_failed(fd);
		if (ret) {
			bad += ret != -ENOMEM && ret != -EFAULT && ret != -EOPNOTSUPP;
			left += group_of(B) >= 0 || there(IOMMUS "/noiommu-" B) ||
				there(PCI "devices/" B "/iommu/devices");
		}
		if (!ret) {
			fail_nth(fd, n);
			ret = del(B);
			has_failed(fd);
			bad += ret && ret != -ENOMEM && ret != -EFAULT;
			if (ret)
				bad += del(B) != 0;
		}
		left += entries(GROUPS) != groups || group_of(A) != group;
		if (!had)
			break;
	}
	ok(n > 1 && n < 10000 && !bad && !left,
	   "adding fails at %u steps, each by itself: %u with another error, %u left something",
	   n - 1, bad, left);
	expect(add(B), 0, "then it works");
	expect(del(B), 0, "remove");
	check_leaks();
	close(fd);
}

static pid_t background(void (*fn)(void))
{
	pid_t pid = fork();

	if (!pid) {
		for (;;)
			fn();
	}
	return pid;
}

static void replug(void)
{
	pci_put(B, "remove", "1");
	put(PCI "rescan", "1");
}

static void rebind(void)
{
	drv_put("e1000e", "bind", B);
	drv_put("e1000e", "unbind", B);
}

static void revf(void)
{
	set_vfs("1");
	unbind_any(VF);
	set_vfs("0");
}

static void rehint(void)
{
	put(PARAM "dpdk_pa_hint", "N");
	put(PARAM "dpdk_pa_hint", "Y");
}

static void relate(void)
{
	load("late_iommu", "");
	unload("late_iommu");
}

static void readd(void)
{
	add(B);
	del(B);
}

static bool all_known(const char *bdf)
{
	static const int known[] = { 0, -EBUSY, -EEXIST, -ENODEV };
	unsigned int i;
	time_t end = time(NULL) + 30;
	int n, ret, done = 0;

	/* Most of the time there is nothing to add, or too much to wait for */
	for (n = 0; n < 50000 && done < 1000 && time(NULL) < end; n++) {
		ret = n & 1 ? del(bdf) : add(bdf);
		done += !ret;
		for (i = 0; i < 4 && ret != known[i]; i++)
			;
		if (i == 4) {
			printf("# %s\n", name_of(ret));
			return false;
		}
	}
	printf("# %d of %d succeeded\n", done, n);
	return true;
}

static void test_races(void)
{
	static const struct {
		const char *what;
		void (*fn)(void);
		const char *bdf;
	} races[] = {
		{ "its own hot-plug", replug, B },
		{ "the hot-plug of another device", replug, V },
		{ "a driver that comes and goes", rebind, B },
		{ "itself", readd, B },
		{ "the hint, switched on and off", rehint, B },
		{ "another IOMMU that comes and goes", relate, B },
		{ "a VF that comes and goes", revf, VF },
	};
	unsigned int i;

	for (i = 0; i < sizeof(races) / sizeof(*races); i++) {
		pid_t pid;

		if (races[i].fn == revf && !there(PCI "devices/" PF "/sriov_numvfs"))
			continue;
		pid = background(races[i].fn);
		ok(all_known(races[i].bdf), "add and remove against %s",
		   races[i].what);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		rescan();
		drv_put("e1000e", "unbind", B);
		del(B);
		del(V);
		set_vfs("0");
		unload("late_iommu");
		ok(group_of(B) < 0 && group_of(V) < 0 && group_of(VF) < 0, "no group is left");
		put(PARAM "dpdk_pa_hint", "Y");
		ok(all_have_hint(), "and each device has the hint");
	}
}

static void test_cycles(void)
{
	struct client c;
	int n, bad = 0;

	del(A);
	for (n = 0; n < CYCLES; n++) {
		bad += add(A) != 0;
		bad += bind_vfio(A) != 0;
		bad += client_start(&c, A) != 0;
		client_close(&c);
		bad += unbind_vfio(A) != 0;
		bad += del(A) != 0;
	}
	ok(!bad, "%d times add, bind, attach, detach, unbind, remove", n);
	ok(!entries(GROUPS) && !entries(IOMMUS) && none_has_hint(0),
	   "no group, no IOMMU and no hint is left");
}

/* Load with a list of @n devices, of which only the last, A, exists */
static int load_many(int n)
{
	char *list = malloc(16 + n * sizeof(A)), *at = stpcpy(list, "devices=");
	int ret;

	while (--n)
		at = stpcpy(at, ABSENT ",");
	stpcpy(at, A);
	ret = load("noiommu", list);
	free(list);
	return ret;
}

static long registrations(void)
{
	return read_number(DEBUG "registrations", NULL);
}

/* A list of devices is one registration, of the first; each lives on without the others */
static void test_list(void)
{
	struct client c;

	expect(load("noiommu", "devices=" A "," B "," A "," ABSENT "," V), 0, "load with a list of devices");
	ok(registrations() == 1, "the core has looked at all devices %ld times", registrations());
	ok(group_of(A) >= 0 && group_of(B) >= 0 && group_of(V) >= 0 && entries(GROUPS) == 3 &&
	   entries(IOMMUS) == 3, "each has a group of its own");
	ok(there(IOMMUS "/noiommu-" B "/devices/" B) && all_have_hint(), "and its own IOMMU, and the hint");
	expect(del(A), 0, "remove the first");
	ok(group_of(A) < 0 && group_of(B) >= 0 && group_of(V) >= 0 && all_have_hint(), "the others stay");
	expect(bind_vfio(B), 0, "bind vfio-pci to one");
	expect(client_start(&c, B), 0, "use it");
	client_close(&c);
	expect(pci_put(V, "remove", "1"), 0, "unplug another");
	ok(entries(GROUPS) == 1 && !there(IOMMUS "/noiommu-" V), "nothing of that is left");
	put(PCI "rescan", "1");
	unbind_any(V);
	ok(group_of(V) < 0, "plugged again, it has no group");
	expect(unbind_vfio(B), 0, "unbind");
	expect(add(A), 0, "add the first again");
	ok(registrations() == 2, "which is another registration");
	ok(!del(A) && !del(B) && none_has_hint(0), "remove both");
	expect(unload("noiommu"), 0, "rmmod");
}

static void test_unload(void)
{
	struct client c;
	int n, bad = 0;

	expect(add(A), 0, "add");
	expect(unload("noiommu"), -EAGAIN, "rmmod with an added device");
	expect(del(A), 0, "remove");
	expect(unload("noiommu"), 0, "rmmod");
	ok(!there("/sys/module/noiommu") && none_has_hint(0), "the module is gone, and all links");
	expect(pci_put(A, "remove", "1"), 0, "unplug without the module");
	rescan();
	ok(there(PCI "devices/" A) && group_of(A) < 0, "plug without the module");
	expect(bind_vfio(A), -EINVAL, "vfio-pci without the module");
	for (n = 0; n < 20; n++) {
		bad += load("noiommu", "devices=" A) != 0;
		bad += group_of(A) < 0;
		bad += del(A) != 0;
		bad += unload("noiommu") != 0;
	}
	ok(!bad, "%d times load, remove, unload", n);
	test_load_fails();
	test_list();
	expect(load_many(1000), 0, "load with a thousand devices");
	ok(group_of(A) >= 0, "the last of them, which exists, is added");
	ok(!del(A) && !unload("noiommu"), "remove and unload");
	expect(load("noiommu", "devices=" A), 0, "load again");
	expect(bind_vfio(A), 0, "bind");
	expect(client_start(&c, A), 0, "attach");
	client_close(&c);
}

/* The last one: there is no way back from lockdown */
static void test_lockdown(void)
{
	struct client c;

	mount("none", "/sys/kernel/security", "securityfs", 0, NULL);
	if (put("/sys/kernel/security/lockdown", "integrity")) {
		ok(true, "lockdown # SKIP the kernel has none");
		return;
	}
	log_skip();
	expect(client_open(&c, A), -EPERM, "claim under lockdown");
	ok(logged("Lockdown", NULL) || logged("lockdown", NULL), "log: lockdown");
	client_close(&c);
	expect(add(V), -EPERM, "add under lockdown");
	expect(unbind_vfio(A), 0, "unbind under lockdown");
	expect(del(A), 0, "remove under lockdown");
	expect(unload("noiommu"), 0, "rmmod under lockdown");
}

/* On a machine whose hardware IOMMU is active */
static void test_iommu(void)
{
	int groups = entries(GROUPS);
	int group = group_of(A);
	struct client c;

	ok(groups > 1 && group >= 0, "the hardware IOMMU has %d groups", groups);
	log_skip();
	expect(load("noiommu", "devices=" A), 0, "load");
	ok(logged(A, "hardware IOMMU is active"), "log: hardware IOMMU");
	expect(add(A), -EOPNOTSUPP, "add");
	expect(add(ABSENT), -ENODEV, "add an absent device");
	expect(del(A), -ENODEV, "remove");
	ok(entries(GROUPS) == groups && group_of(A) == group && !strncmp(iommu_of(A), "dmar", 4),
	   "its groups and links are untouched");
	expect(pci_put(A, "remove", "1"), 0, "unplug");
	rescan();
	ok(group_of(A) >= 0, "plugged again, it has a hardware group");
	expect(add(A), -EOPNOTSUPP, "add");
	expect(bind_vfio(A), 0, "vfio-pci binds");
	expect(client_start(&c, A), 0, "and is used");
	client_close(&c);
	ok(!(taint() & TAINT_USER), "without a taint");
	expect(unload("noiommu"), 0, "rmmod");
}

int main(void)
{
	bool iommu = getenv("selftest") && !strcmp(getenv("selftest"), "iommu");

	start("8", iommu);
	prctl(PR_SET_NAME, "selftest");
	if (iommu) {
		test_iommu();
	} else {
		test_without();
		test_load();
		test_refusals();
		test_hint();
		test_add_remove();
		test_attach();
		test_trace();
		test_map();
		test_killed();
		test_unplug();
		test_sriov();
		test_faults();
		test_races();
		test_cycles();
		test_unload();
		test_lockdown();
	}
	finish();
}
