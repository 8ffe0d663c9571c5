// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How long it takes to learn where memory is: /dev/noiommu, which pins it,
 * against /proc/self/pagemap, which does not. Runs as the only process of a
 * virtual machine, see bench/translate.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "../kmod/include/uapi/noiommu.h"

#define PAGE	4096UL
#define MIB	(1UL << 20)
#define GIB	(1UL << 30)
#define RUNS	5
#define PFN	((1ULL << 55) - 1)

static int passed, failed, device = -1;

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

static void die(const char *what)
{
	printf("# %s: %s\n", what, strerror(errno));
	sync();
	reboot(RB_POWER_OFF);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e9 + ts.tv_nsec;
}

/* The others had something else on the processor */
static double best(const double *values, int n)
{
	double least = values[0];

	while (n--)
		least = values[n] < least ? values[n] : least;
	return least;
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die(path);
	close(fd);
}

/* KiB of kernel memory in slabs and in vmalloc space */
static long kernel_memory(void)
{
	char line[128];
	long sum = 0, n;
	FILE *f = fopen("/proc/meminfo", "re");

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Slab: %ld", &n) == 1 ||
		    sscanf(line, "VmallocUsed: %ld", &n) == 1)
			sum += n;
	}
	if (f)
		fclose(f);
	return sum;
}

/* A buffer, its pages, and where it was found to be */
struct buffer {
	const char *name;
	char *p;
	uint64_t length;
	uint64_t page;
	struct noiommu_extent *extents;
	uint32_t nr;
	uint64_t *entries;
};

static void *memory(uint64_t length, int flags)
{
	void *p = mmap(NULL, length, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

/* Where the results go is touched before, as it is in an application */
static struct buffer buffer(const char *name, uint64_t length, uint64_t page,
			    bool scattered)
{
	struct buffer b = { .name = name, .length = length, .page = page };
	uint64_t n = length / page, i;
	int flags = 0;

	if (page > PAGE)
		flags = MAP_HUGETLB | __builtin_ctzll(page) << MAP_HUGE_SHIFT;
	b.p = memory(length, flags);
	if (page == PAGE)
		madvise(b.p, length, MADV_NOHUGEPAGE);
	/* Any odd factor visits all of a power of two */
	for (i = 0; i < n; i++)
		b.p[(scattered ? i * 0x9e3779b1 % n : i) * page] = 1;

	b.extents = memory(n * sizeof(*b.extents), MAP_POPULATE);
	b.entries = memory(length / PAGE * 8, MAP_POPULATE);
	return b;
}

static void drop(struct buffer *b)
{
	munmap(b->p, b->length);
	munmap(b->extents, b->length / b->page * sizeof(*b->extents));
	munmap(b->entries, b->length / PAGE * 8);
}

static double map(struct buffer *b)
{
	struct noiommu_map map = {
		.size = sizeof(map),
		.device = 2,
		.user_va = (uintptr_t)b->p,
		.length = b->length,
		.extents = (uintptr_t)b->extents,
		.num_extents = b->length / b->page,
	};
	double start = now();

	if (ioctl(device, NOIOMMU_MAP, &map))
		die("NOIOMMU_MAP");
	start = now() - start;
	b->nr = map.num_extents;
	return start;
}

static double unmap(struct buffer *b)
{
	struct noiommu_unmap unmap = {
		.size = sizeof(unmap),
		.user_va = (uintptr_t)b->p,
		.length = b->length,
	};
	double start = now();

	if (ioctl(device, NOIOMMU_UNMAP, &unmap))
		die("NOIOMMU_UNMAP");
	return now() - start;
}

/* What DPDK's rte_mem_virt2phy() does, for each page */
static double dpdk(struct buffer *b)
{
	double start = now();
	uint64_t at, sum = 0;

	for (at = 0; at < b->length; at += b->page) {
		int fd = open("/proc/self/pagemap", O_RDONLY);
		off_t offset = ((uintptr_t)b->p + at) / PAGE * 8;
		uint64_t entry;

		if (fd < 0 || lseek(fd, offset, SEEK_SET) < 0 ||
		    read(fd, &entry, 8) != 8)
			die("pagemap");
		close(fd);
		sum += entry & PFN;
	}
	start = now() - start;
	return sum ? start : 0;
}

/* One read for all of the buffer, of a file that is open already */
static double bulk(struct buffer *b, int pagemap)
{
	uint64_t length = b->length / PAGE * 8, done = 0;
	double start = now();

	while (done < length) {
		ssize_t n = pread(pagemap, (char *)b->entries + done, length - done,
				  (uintptr_t)b->p / PAGE * 8 + done);
		if (n <= 0)
			die("pagemap");
		done += n;
	}
	return now() - start;
}

/* One read for each page: less than all of it where pages are huge */
static double single(struct buffer *b, int pagemap)
{
	double start = now();
	uint64_t at, sum = 0, entry;

	for (at = 0; at < b->length; at += b->page) {
		if (pread(pagemap, &entry, 8,
			  ((uintptr_t)b->p + at) / PAGE * 8) != 8)
			die("pagemap");
		sum += entry & PFN;
	}
	start = now() - start;
	return sum ? start : 0;
}

/* What it takes to pin at all: io_uring does it with the same function */
static double pin_only(struct buffer *b)
{
	struct io_uring_params params = { 0 };
	struct iovec iov = { b->p, b->length };
	int ring = syscall(SYS_io_uring_setup, 1, &params);
	double start;

	if (ring < 0)
		die("io_uring_setup");
	start = now();
	if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &iov, 1))
		die("io_uring_register");
	start = now() - start;
	close(ring);
	return start;
}

static bool is_true(struct buffer *b)
{
	uint64_t page = 0, offset;
	uint32_t i;

	for (i = 0; i < b->nr; i++) {
		for (offset = 0; offset < b->extents[i].length; offset += PAGE) {
			if (b->extents[i].addr + offset !=
			    (b->entries[page++] & PFN) * PAGE)
				return false;
		}
	}
	return page == b->length / PAGE;
}

static void compare(struct buffer b)
{
	double ours[RUNS], back[RUNS], a[3], c[RUNS], d[RUNS], pin[RUNS];
	double n = b.length / b.page, ours_ns, a_ns, b_ns, pin_ns;
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), i;

	for (i = 0; i < RUNS; i++) {
		ours[i] = map(&b) / n;
		c[i] = bulk(&b, pagemap) / n;
		d[i] = single(&b, pagemap) / n;
		back[i] = unmap(&b) / n;
		pin[i] = pin_only(&b) / n;
		if (i < 3)
			a[i] = dpdk(&b) / n;
	}
	close(pagemap);
	ok(is_true(&b), "%s: %u extents say what pagemap says", b.name, b.nr);
	ours_ns = best(ours, RUNS);
	a_ns = best(a, 3);
	b_ns = best(c, RUNS);
	pin_ns = best(pin, RUNS);
	printf("# | %s | %.0f | %u | %.0f | %.0f | %.0f | %.0f | %.0f | **%.1f** | **%.2f** | %.2f | %.0f |\n",
	       b.name, n, b.nr, ours_ns, a_ns, b_ns, best(d, RUNS), pin_ns,
	       a_ns / ours_ns, ours_ns / b_ns, ours_ns / pin_ns,
	       best(back, RUNS));
	ok(ours_ns <= 1.5 * b_ns || ours_ns <= 1.1 * pin_ns, "%s: %s", b.name,
	   ours_ns <= 1.5 * b_ns ? "at most 1.5 times (b)" :
	   "more than 1.5 times (b), but no more than pinning alone");
	/* With a single page there is nothing to share the cost of a call */
	if (n > 1)
		ok(a_ns >= 20 * ours_ns, "%s: at least 20 times faster than (a)",
		   b.name);
	drop(&b);
}

static double scale(struct buffer b)
{
	double ours[RUNS];
	long before, held;
	int i;

	for (i = 0; i < RUNS; i++) {
		ours[i] = map(&b);
		unmap(&b);
	}
	before = kernel_memory();
	map(&b);
	held = kernel_memory() - before;
	unmap(&b);
	printf("# | %s | %lu MiB | %u | %.1f | %.1f | %ld |\n", b.name,
	       b.length / MIB, b.nr,
	       best(ours, RUNS) / (b.length / b.page),
	       (56 + 16.0 * b.nr) / 1024, held);
	drop(&b);
	return best(ours, RUNS) / (b.length / b.page);
}

/*
 * A page costs the same in a buffer of any size. Scattered ones do not, for
 * nobody: their descriptors are spread over more memory than caches hold.
 */
static void scales(const char *name, uint64_t page, bool scattered,
		   uint64_t from, uint64_t to)
{
	double least = 1e18, most = 0;
	uint64_t size;

	for (size = from; size <= to; size *= 8) {
		double ns = scale(buffer(name, size, page, scattered));

		if (size * 8 > to && size < to)
			size = to / 8;
		/* Below that a call costs more than its pages do */
		if (size / page < 64)
			continue;
		least = ns < least ? ns : least;
		most = ns > most ? ns : most;
	}
	if (!scattered)
		ok(most <= 2 * least, "%s: flat, %.1f to %.1f ns a page", name,
		   least, most);
}

static void start(void)
{
	int fd;

	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("p", "/proc", "proc", 0, NULL);
	mount("s", "/sys", "sysfs", 0, NULL);
	mount("d", "/dev", "devtmpfs", 0, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	fd = open("/modules/noiommu.ko", O_RDONLY | O_CLOEXEC);
	if (syscall(SYS_finit_module, fd, "devices=0000:00:02.0", 0))
		die("noiommu");
	close(fd);
	device = open("/dev/noiommu", O_RDWR | O_CLOEXEC);
	if (device < 0)
		die("/dev/noiommu");
}

int main(void)
{
	const char *text = getenv("largest");
	uint64_t largest = (text ? strtoul(text, NULL, 0) : 8) * GIB;

	start();
	printf("# | 1 GiB of | pages | extents | /dev/noiommu | (a) | (b) | (c) | (d) | (a) / ours | ours / (b) | ours / (d) | unmap |\n");
	printf("# |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
	compare(buffer("4 KiB pages", GIB, PAGE, false));
	compare(buffer("4 KiB pages, scattered", GIB, PAGE, true));
	put("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "512");
	compare(buffer("2 MiB pages", GIB, 2 * MIB, false));
	put("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0");
	compare(buffer("1 GiB page", GIB, GIB, false));
	put("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0");

	printf("# \n# | pages | buffer | extents | ns per page | kept (KiB) | seen (KiB) |\n");
	printf("# |---|--:|--:|--:|--:|--:|\n");
	scales("4 KiB", PAGE, false, 2 * MIB, largest);
	scales("4 KiB, scattered", PAGE, true, 2 * MIB, GIB);
	put("/proc/sys/vm/drop_caches", "3");
	put("/proc/sys/vm/compact_memory", "1");
	text = largest == 8 * GIB ? "4096" : "512";
	put("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", text);
	scales("2 MiB", 2 * MIB, false, 2 * MIB, strtoul(text, NULL, 0) * 2 * MIB);

	printf("1..%d\n", passed + failed);
	sync();
	reboot(RB_POWER_OFF);
	return 0;
}
