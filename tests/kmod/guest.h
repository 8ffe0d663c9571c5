/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tests and the measurements of the noiommu module share. Each runs as
 * the first process of a small virtual machine, see tools/kmod/boot.py.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 */
#ifndef GUEST_H
#define GUEST_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define A	"0000:00:02.0"		/* e1000e */
#define B	"0000:00:03.0"		/* e1000e */
#define V	"0000:00:04.0"		/* virtio-net */
#define PORT	"0000:00:05.0"		/* PCIe root port */
#define PF	"0000:00:06.0"		/* NVMe with SR-IOV */
#define VF	"0000:00:06.1"		/* where there are VFs */
#define VF2	"0000:00:06.2"
#define SHM	"0000:00:07.0"		/* memory of 1 MiB in BAR 2, registers in BAR 0 */
#define ABSENT	"0000:00:19.0"
#define PARAM	"/sys/module/noiommu/parameters/"
#define PCI	"/sys/bus/pci/"
#define GROUPS	"/sys/kernel/iommu_groups"
#define IOMMUS	"/sys/class/iommu"
#define LEAKS	"/sys/kernel/debug/kmemleak"
#define DEBUG	"/sys/kernel/debug/noiommu/"
#define TRACING	"/sys/kernel/tracing/"

#define PAGE	4096UL
#define MIB	(1UL << 20)
#define GIB	(1UL << 30)
#define HUGE	(2 * MIB)

#ifdef __x86_64__
#define X86	true
#else
#define X86	false
#endif

/* Bad page, died, warned, soft lockup: see Documentation/admin-guide/tainted-kernels.rst */
#define TAINT_BUGS	(1 << 5 | 1 << 7 | 1 << 9 | 1 << 14)

/* No test uses all of it */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"

static int passed, failed;

static void __attribute__((format(printf, 2, 3)))
ok(bool good, const char *fmt, ...)
{
	va_list ap;

	printf("%sok %d - ", good ? "" : "not ", passed + failed + 1);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	if (good)
		passed++;
	else
		failed++;
}

static const char *name_of(int ret)
{
	return ret >= 0 ? "success" : strerrorname_np(-ret);
}

/* One test: @ret, 0 or a negative errno, is what was expected */
static void __attribute__((format(printf, 3, 4)))
expect(int ret, int want, const char *fmt, ...)
{
	char what[300];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	if (ret == want)
		ok(true, "%s: %s", what, name_of(want));
	else
		ok(false, "%s # %s instead of %s", what, name_of(ret),
		   name_of(want));
}

static void __attribute__((noreturn)) finish(void)
{
	printf("1..%d\n", passed + failed);
	printf("%d passed, %d failed\n", passed, failed);
	sync();
	reboot(RB_POWER_OFF);
	_exit(1);
}

static void __attribute__((noreturn)) die(const char *what)
{
	printf("Bail out! %s: %m\n", what);
	sync();
	reboot(RB_POWER_OFF);
	_exit(1);
}

static long number(const char *name, long otherwise)
{
	const char *text = getenv(name);

	return text ? strtol(text, NULL, 0) : otherwise;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* Files */

static int put_bytes(const char *path, const void *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), ret = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, data, len) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

static int put(const char *path, const char *text)
{
	return put_bytes(path, text, strlen(text));
}

/* All of a file, or an empty string; the caller frees it */
static char *slurp(const char *path)
{
	size_t size = 1 << 16, len = 0;
	char *text = malloc(size);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	while (text && fd >= 0 && (n = read(fd, text + len, size - 1 - len)) > 0) {
		len += n;
		if (len == size - 1)
			text = realloc(text, size *= 2);
	}
	if (!text)
		die(path);
	if (fd >= 0)
		close(fd);
	text[len] = '\0';
	return text;
}

/* The number behind @key in a file, or the first in it; -1 if there is none */
static long read_number(const char *path, const char *key)
{
	char *text = slurp(path), *at = key ? strstr(text, key) : text;
	long value = -1;

	if (at && *at) {
		at += key ? strlen(key) : 0;
		value = strtol(at + strspn(at, ": \t"), NULL, 10);
	}
	free(text);
	return value;
}

static bool __attribute__((format(printf, 1, 2)))
there(const char *fmt, ...)
{
	char path[PATH_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	return !access(path, F_OK);
}

static int entries(const char *path)
{
	struct dirent *e;
	DIR *dir = opendir(path);
	int n = 0;

	if (!dir)
		return 0;
	while ((e = readdir(dir)))
		n += e->d_name[0] != '.';
	closedir(dir);
	return n;
}

/* Is @text in this file? */
static bool says(const char *path, const char *text)
{
	char *all = slurp(path);
	bool found = strstr(all, text);

	free(all);
	return found;
}

/* Is there a line in the kernel log, since the last call, with all of these? */
static bool logged(const char *first, const char *second)
{
	static int fd = -1;
	char line[2048];
	bool found = false;
	ssize_t len;

	if (fd < 0)
		fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		die("/dev/kmsg");
	while ((len = read(fd, line, sizeof(line) - 1)) > 0 || errno == EPIPE) {
		if (len < 0)
			continue;
		line[len] = '\0';
		if (strstr(line, first) && (!second || strstr(line, second)))
			found = true;
	}
	return found;
}

static void log_skip(void)
{
	logged("", NULL);
}

static void trace_clear(void)
{
	int fd = open(TRACING "trace", O_WRONLY | O_TRUNC | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
}

/* The module's tracepoints: false if the kernel has none */
static bool trace_start(void)
{
	mount("none", TRACING, "tracefs", 0, NULL);
	trace_clear();
	if (!put(TRACING "events/noiommu/enable", "1"))
		return true;
	printf("# this kernel has no tracepoints\n");
	return false;
}

static bool traced(const char *text)
{
	return says(TRACING "trace", text);
}

static void trace_stop(void)
{
	put(TRACING "events/noiommu/enable", "0");
	trace_clear();
}

/* Devices */

static int add(const char *bdf)
{
	return put(PARAM "add", bdf);
}

static int del(const char *bdf)
{
	return put(PARAM "remove", bdf);
}

static int pci_put(const char *bdf, const char *file, const char *text)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), PCI "devices/%s/%s", bdf, file);
	return put(path, text);
}

static int drv_put(const char *driver, const char *file, const char *bdf)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), PCI "drivers/%s/%s", driver, file);
	return put(path, bdf);
}

static int bind_vfio(const char *bdf)
{
	pci_put(bdf, "driver_override", "vfio-pci");
	return drv_put("vfio-pci", "bind", bdf);
}

static int unbind_vfio(const char *bdf)
{
	pci_put(bdf, "driver_override", "\n");
	return drv_put("vfio-pci", "unbind", bdf);
}

/* Number of the device's group, or -1 */
static int group_of(const char *bdf)
{
	char path[PATH_MAX], link[PATH_MAX];
	ssize_t len;

	snprintf(path, sizeof(path), PCI "devices/%s/iommu_group", bdf);
	len = readlink(path, link, sizeof(link) - 1);
	if (len < 0)
		return -1;
	link[len] = '\0';
	return atoi(strrchr(link, '/') + 1);
}

static int open_group(const char *bdf)
{
	char path[64];

	snprintf(path, sizeof(path), "/dev/vfio/%d", group_of(bdf));
	return open(path, O_RDWR | O_CLOEXEC);
}

static unsigned long taint(void)
{
	return read_number("/proc/sys/kernel/tainted", NULL);
}

/* Modules */

static int load(const char *name, const char *args)
{
	char path[PATH_MAX];
	int fd, ret = 0;

	snprintf(path, sizeof(path), "/modules/%s.ko", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (syscall(SYS_finit_module, fd, args, 0))
		ret = -errno;
	close(fd);
	return ret;
}

static int unload(const char *name)
{
	return syscall(SYS_delete_module, name, O_NONBLOCK) ? -errno : 0;
}

/* Other privileges */

/* Drop @cap from all of this process's sets */
static void drop_cap(int cap)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2];

	prctl(PR_CAPBSET_DROP, cap);
	syscall(SYS_capget, &header, data);
	data[cap / 32].effective &= ~(1u << cap % 32);
	data[cap / 32].permitted &= ~(1u << cap % 32);
	data[cap / 32].inheritable &= ~(1u << cap % 32);
	syscall(SYS_capset, &header, data);
}

enum as { AS_ROOT, AS_NO_RAWIO, AS_NO_IPC_LOCK, AS_USERNS };

static void become(enum as as)
{
	if (as == AS_NO_RAWIO) {
		drop_cap(CAP_SYS_RAWIO);
	} else if (as == AS_NO_IPC_LOCK) {
		drop_cap(CAP_IPC_LOCK);
	} else if (as == AS_USERNS) {
		if (unshare(CLONE_NEWUSER))
			die("unshare");
		/* All capabilities, but of a user namespace of its own */
		put("/proc/self/setgroups", "deny");
		put("/proc/self/uid_map", "0 0 1");
		put("/proc/self/gid_map", "0 0 1");
	}
}

/* Run @fn in a child; its result, which must fit into an exit code */
static int in_child(int (*fn)(void *), void *arg, enum as as)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		become(as);
		_exit(-fn(arg));
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -ECHILD;
}

/* Memory */

static uint64_t phys_at(int pagemap, const void *p)
{
	uint64_t entry = 0;

	if (pread(pagemap, &entry, 8, (uintptr_t)p / PAGE * 8) != 8)
		return 0;
	return (entry & ((1ULL << 55) - 1)) * PAGE + (uintptr_t)p % PAGE;
}

/* Each process has a pagemap of its own */
static uint64_t phys_of(const void *p)
{
	static int fd = -1, whose;

	if (whose != getpid()) {
		fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
		whose = getpid();
	}
	return phys_at(fd, p);
}

static void *huge_page(void)
{
	void *p = mmap(NULL, HUGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE,
		       -1, 0);

	if (p == MAP_FAILED)
		die("no huge page");
	memset(p, 0x5a, HUGE);
	return p;
}

/* Each CPU counts for itself and reports now and then, or when asked */
static long pinned(void)
{
	put("/proc/sys/vm/stat_refresh", "1");
	return read_number("/proc/vmstat", "nr_foll_pin_acquired") -
	       read_number("/proc/vmstat", "nr_foll_pin_released");
}

static long huge_free(void)
{
	return read_number("/proc/meminfo", "HugePages_Free");
}

/*
 * Ask for all that has no pointer to it any more. What was freed a moment ago
 * may be waiting for RCU or be referenced from a register, hence more than one
 * scan, with a pause that exceeds the age at which an object counts. What was
 * not allocated on behalf of the module is told, and is no failure of it: VFIO
 * loses some things itself when allocations fail.
 */
static void check_leaks(void)
{
	static const char start[] = "unreferenced object";
	char *text, *at, *next;
	int n, ours = 0, others = 0;

	if (access(LEAKS, F_OK)) {
		printf("# this kernel does not look for leaked memory\n");
		return;
	}
	for (n = 0; n < 3; n++) {
		sleep(6);
		put(LEAKS, "scan");
	}
	text = slurp(LEAKS);
	for (at = text; at && *at; at = next) {
		next = strstr(at + 1, start);
		if (next)
			next[-1] = '\0';
		if (strstr(at, "[noiommu]"))
			ours++;
		else
			others++;
		if (ours + others < 6)
			printf("# %s\n", at);
	}
	ok(!ours, "kmemleak finds %d objects of the module lost, and %d of others", ours, others);
	free(text);
}

/* Make the @n-th allocation or copy fail of what this thread does next */
static void fail_nth(int fd, unsigned int n)
{
	char text[12];

	snprintf(text, sizeof(text), "%u", n);
	/* What fails may be this, and then nothing does any more */
	if (fd >= 0 && pwrite(fd, text, strlen(text), 0) < 0)
		pwrite(fd, text, strlen(text), 0);
}

/* Has it failed since? Nothing does any more */
static bool has_failed(int fd)
{
	char text[16] = "";
	int err = errno;
	bool failed;

	failed = fd >= 0 && pread(fd, text, sizeof(text) - 1, 0) > 0 && !atoi(text);
	fail_nth(fd, 0);
	errno = err;
	return failed;
}

/* The file for these, or -1; whether the thread is to have failures at all */
static int fail_open(bool wanted)
{
	return wanted ? open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC) : -1;
}

static void set_fault(const char *what, const char *file, const char *value)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/sys/kernel/debug/%s/%s", what, file);
	put(path, value);
}

/* fail-nth of a thread is what makes something fail; here is said what may */
static void faults_start(void)
{
	set_fault("failslab", "ignore-gfp-wait", "N");
	set_fault("fail_page_alloc", "ignore-gfp-wait", "N");
	set_fault("fail_page_alloc", "ignore-gfp-highmem", "N");
	set_fault("fail_page_alloc", "min-order", "0");
	set_fault("failslab", "verbose", "0");
	set_fault("fail_page_alloc", "verbose", "0");
	set_fault("fail_usercopy", "verbose", "0");
}

/*
 * Mount what is needed, and load what the test of the module works with: with
 * the parameter that every host without an IOMMU has, unless it is @secure
 */
static void start(const char *huge_pages, bool secure)
{
	const char *name;
	char list[] = MODULES, *rest = list;

	setvbuf(stdout, NULL, _IOLBF, 0);
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("none", "/proc", "proc", 0, NULL);
	mount("none", "/sys", "sysfs", 0, NULL);
	mount("none", "/sys/kernel/debug", "debugfs", 0, NULL);
	mount("none", "/dev", "devtmpfs", 0, NULL);

	/* The test says which driver gets which device, and when */
	put(PCI "drivers_autoprobe", "0");
	while ((name = strsep(&rest, " "))) {
		const char *args = "";

		if (!strcmp(name, "vfio_iommu_type1") && !secure)
			args = "allow_unsafe_interrupts=1";
		else if (!strcmp(name, "vfio-pci"))
			args = "disable_idle_d3=1";	/* 10 ms each time */
		if (*name && load(name, args))
			die(name);
	}
	if (!secure)
		pci_put(V, "driver/unbind", V);
	put("/proc/sys/vm/nr_hugepages", huge_pages);
}

#pragma GCC diagnostic pop

#endif /* GUEST_H */
