// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Selftest of /dev/noiommu. Runs as the only process of a small virtual machine,
 * see tests/kmod/run, and prints TAP on the console.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 */
#define _GNU_SOURCE
#include "client.h"

#include "include/uapi/noiommu.h"

#include <linux/io_uring.h>
#include <linux/loop.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/shm.h>

#define MANY	4096U
#define RACE	4	/* seconds */

static struct noiommu_extent extents[MANY], again[MANY];

/* What RLIMIT_MEMLOCK is held against, in pages */
static long locked(void)
{
	return read_number("/proc/self/status", "VmLck") * 1024 / (long)PAGE;
}

/* The calls */

static int open_pin(void)
{
	int fd = open("/dev/noiommu", O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int call(int fd, unsigned int cmd, void *arg)
{
	return ioctl(fd, cmd, arg) ? -errno : 0;
}

static struct noiommu_map map_arg(void *p, uint64_t length)
{
	return (struct noiommu_map) {
		.size = sizeof(struct noiommu_map),
		.device = 2,
		.user_va = (uintptr_t)p,
		.length = length,
		.extents = (uintptr_t)extents,
		.num_extents = MANY,
	};
}

/* Number of extents or a negative errno */
static int do_map(int fd, void *p, uint64_t length)
{
	struct noiommu_map map = map_arg(p, length);

	return call(fd, NOIOMMU_MAP, &map) ?: (int)map.num_extents;
}

static int do_query(int fd, void *p, uint64_t length,
		    struct noiommu_extent *out, uint32_t room)
{
	struct noiommu_query query = {
		.size = sizeof(query),
		.user_va = (uintptr_t)p,
		.length = length,
		.extents = (uintptr_t)out,
		.num_extents = room,
	};

	return call(fd, NOIOMMU_QUERY, &query) ?: (int)query.num_extents;
}

static int64_t do_unmap(int fd, void *p, uint64_t length)
{
	struct noiommu_unmap unmap = {
		.size = sizeof(unmap),
		.user_va = (uintptr_t)p,
		.length = length,
	};
	int ret = call(fd, NOIOMMU_UNMAP, &unmap);

	return ret ?: (int64_t)unmap.length;
}

/* Memory */

static void *get_memory(uint64_t length, int flags)
{
	void *p = mmap(NULL, length, PROT_READ | PROT_WRITE,
		       (flags & MAP_TYPE ? 0 : MAP_PRIVATE) | MAP_ANONYMOUS |
		       flags, -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

static void *small_pages(unsigned long n)
{
	void *p = get_memory(n * PAGE, 0);

	madvise(p, n * PAGE, MADV_NOHUGEPAGE);
	return p;
}

/* A huge page where the kernel gives one; aligned anyway */
static void *transparent(void)
{
	char *p = get_memory(2 * HUGE, 0), *q;

	q = (char *)(((uintptr_t)p + HUGE - 1) & ~(HUGE - 1));
	munmap(p, q - p);
	munmap(q + HUGE, p + HUGE - q);
	madvise(q, HUGE, MADV_HUGEPAGE);
	memset(q, 1, HUGE);
	return q;
}

/* Do @n extents cover @length, as few as possible, and say what pagemap says? */
static bool is_true(char *p, uint64_t length, int n,
		    const struct noiommu_extent *e)
{
	uint64_t done = 0, offset;
	int i;

	for (i = 0; i < n; i++) {
		if (!e[i].length ||
		    (i && e[i - 1].addr + e[i - 1].length == e[i].addr))
			return false;
		for (offset = 0; offset < e[i].length; offset += PAGE) {
			uint64_t phys = phys_of(p + done + offset);

			if (!phys || phys != e[i].addr + offset)
				return false;
		}
		done += e[i].length;
	}
	return done == length;
}

/* Any range that a mapping can be asked for, against what pagemap says */
static bool queries_are_true(int fd, char *p, uint64_t length)
{
	int i, j, n;

	for (i = 0; i < 300; i++) {
		uint64_t from = (uint64_t)random() % length, done = 0;
		uint64_t want = 1 + (uint64_t)random() % (length - from);

		if (i % 2 && want > 3 * PAGE)
			want = 1 + want % (3 * PAGE);
		n = do_query(fd, p + from, want, again, MANY);
		if (n <= 0)
			return false;
		for (j = 0; j < n; j++) {
			char *q = p + from + done;

			if (again[j].addr != phys_of(q))
				return false;
			done += again[j].length;
		}
		if (done != want)
			return false;
	}
	return true;
}

/* Tests */

static int try_open(void *arg)
{
	int fd = open_pin();

	(void)arg;
	return fd < 0 ? fd : 0;
}

static int map_on(void *arg)
{
	int ret = do_map(*(int *)arg, small_pages(1), PAGE);

	return ret < 0 ? ret : 0;
}

static int others_on(void *arg)
{
	struct noiommu_info info = { .size = sizeof(info) };
	int fd = *(int *)arg;

	if (do_query(fd, extents, PAGE, again, 1) != -ENOENT ||
	    do_unmap(fd, extents, PAGE) != -ENOENT)
		return -EPROTO;
	return call(fd, NOIOMMU_INFO, &info);
}

static void test_open(void)
{
	struct noiommu_info info = { .size = sizeof(info) };
	struct stat st = { 0 };
	int fd = open_pin();

	ok(fd >= 0, "open");
	stat("/dev/noiommu", &st);
	ok((st.st_mode & 07777) == 0600, "mode %o", st.st_mode & 07777);
	expect(call(fd, NOIOMMU_INFO, &info), 0, "INFO");
	ok(info.out_version == NOIOMMU_VERSION && info.out_page_size == PAGE,
	   "version %u, pages of %u bytes", info.out_version, info.out_page_size);
	expect(in_child(try_open, NULL, AS_ROOT), 0, "open in a child");
	expect(in_child(try_open, NULL, AS_NO_RAWIO), -EPERM,
	       "open without CAP_SYS_RAWIO");
	expect(in_child(try_open, NULL, AS_USERNS), -EPERM,
	       "open in a user namespace");
	expect(in_child(map_on, &fd, AS_ROOT), 0, "map on a file handed on");
	expect(in_child(map_on, &fd, AS_NO_RAWIO), -EPERM,
	       "map without CAP_SYS_RAWIO");
	expect(in_child(map_on, &fd, AS_USERNS), -EPERM,
	       "map in a user namespace");
	expect(in_child(others_on, &fd, AS_NO_RAWIO), 0,
	       "query, unmap and info need none");
	expect(unload("noiommu"), -EAGAIN, "rmmod under an open file");
	close(fd);
	ok(pinned() == 0, "no pins are left");
}

static void test_arguments(void)
{
	struct {
		union {
			struct noiommu_map map;
			struct noiommu_query query;
			struct noiommu_unmap unmap;
			struct noiommu_info info;
		};
		char tail[8192];
	} big = { 0 };
	static const unsigned int cmds[] = {
		NOIOMMU_INFO, NOIOMMU_MAP, NOIOMMU_QUERY, NOIOMMU_UNMAP,
	};
	static const unsigned int sizes[] = {
		sizeof(struct noiommu_info), sizeof(struct noiommu_map),
		sizeof(struct noiommu_query), sizeof(struct noiommu_unmap),
	};
	char *p = small_pages(4);
	struct noiommu_map map;
	int fd = open_pin();
	unsigned int i;

	ok(sizes[0] == 16 && sizes[1] == 56 && sizes[2] == 40 && sizes[3] == 24,
	   "structures are as big as ever");
	expect(call(fd, _IO(NOIOMMU_TYPE, 4), &big), -ENOTTY, "an unknown number");
	expect(call(fd, _IO(NOIOMMU_TYPE, 0x81), &big), -ENOTTY, "another");
	expect(call(fd, _IO(';', 1), &big), -ENOTTY, "an unknown type");
	expect(call(fd, _IOW(NOIOMMU_TYPE, 1, struct noiommu_map), &big), -ENOTTY,
	       "an unknown encoding");

	for (i = 0; i < 4; i++) {
		uint32_t *size = (uint32_t *)&big;
		uint32_t *flags = size + 1;
		char *bytes = (char *)&big;

		memset(&big, 0, sizeof(big));
		expect(call(fd, cmds[i], NULL), -EFAULT, "call %u on NULL", i);
		expect(call(fd, cmds[i], (void *)-4096UL), -EFAULT,
		       "call %u on the kernel", i);
		expect(call(fd, cmds[i], &big), -EINVAL, "call %u, size 0", i);
		*size = sizes[i] - 1;
		expect(call(fd, cmds[i], &big), -EINVAL, "call %u, size - 1", i);
		*size = sizes[i];
		*flags = 1;
		expect(call(fd, cmds[i], &big), -EINVAL, "call %u, a flag", i);
		*flags = 1u << 31;
		expect(call(fd, cmds[i], &big), -EINVAL, "call %u, another", i);
		*flags = 0;
		*size = sizes[i] + 1;
		bytes[sizes[i]] = 1;
		expect(call(fd, cmds[i], &big), -E2BIG, "call %u, unknown field", i);
		*size = PAGE;
		bytes[sizes[i]] = 0;
		bytes[PAGE - 1] = 1;
		expect(call(fd, cmds[i], &big), -E2BIG, "call %u, the last one", i);
		bytes[PAGE - 1] = 0;
		*size = PAGE + 1;
		expect(call(fd, cmds[i], &big), -E2BIG, "call %u, over a page", i);
		*size = UINT32_MAX;
		expect(call(fd, cmds[i], &big), -E2BIG, "call %u, 4 GiB", i);
	}
	memset(&big, 0, sizeof(big));
	big.map = map_arg(p, PAGE);
	big.map.size = PAGE;
	expect(call(fd, NOIOMMU_MAP, &big), 0, "unknown fields that are zero");
	ok(do_unmap(fd, p, PAGE) == (int64_t)PAGE, "unmap it");

#define TRY(_what, _err, _set) do {					\
	map = map_arg(p, 2 * PAGE);					\
	_set;								\
	expect(call(fd, NOIOMMU_MAP, &map), _err, "map: " _what);	\
} while (0)
	TRY("first reserved byte", -EINVAL, map.__reserved = 1);
	TRY("last reserved word", -EINVAL, map.__reserved2 = 1);
	TRY("device 32", -EINVAL, map.device = 32);
	TRY("function 8", -EINVAL, map.function = 8);
	TRY("device that is not there", -ENODEV, map.device = 31);
	TRY("device that was not added", -ENODEV, map.device = 3);
	TRY("another function", -ENODEV, map.function = 1);
	TRY("another bus", -ENODEV, map.bus = 255);
	TRY("another segment", -ENODEV, map.segment = 1);
	TRY("segment of all ones", -ENODEV, map.segment = UINT32_MAX);
	TRY("length 0", -EINVAL, map.length = 0);
	TRY("length 1", -EINVAL, map.length = 1);
	TRY("length not in pages", -EINVAL, map.length++);
	TRY("start not on a page", -EINVAL, map.user_va += 8);
	TRY("wraps by a page", -EOVERFLOW,
	    map.user_va = -PAGE; map.length = 2 * PAGE);
	TRY("wraps to itself", -EOVERFLOW, map.length = -PAGE);
	TRY("all but one byte", -EOVERFLOW, map.length = -1);
	TRY("the last page of all", -EFAULT,
	    map.user_va = -PAGE; map.length = PAGE);
	TRY("the kernel's half", -EFAULT, map.user_va = 1ULL << 63);
	TRY("into the kernel's half", -EFAULT, map.length = 1ULL << 62);
	TRY("a hole", -EFAULT, map.user_va = 0x10000);
	TRY("array at NULL", -EFAULT, map.extents = 0);
	TRY("array in the kernel", -EFAULT, map.extents = 1ULL << 63);
	TRY("no array", -EMSGSIZE, map.num_extents = 0);
	TRY("reach of one page", -ERANGE, map.last_addr = PAGE - 1);
	ok(pinned() == 0 && locked() == 0, "nothing came of all that");

	memset(p, 1, PAGE);
	TRY("reach up to the last byte", 0, map.length = PAGE;
	    map.last_addr = phys_of(p) + PAGE - 1);
	do_unmap(fd, p, PAGE);
	TRY("reach up to the last but one", -ERANGE, map.length = PAGE;
	    map.last_addr = phys_of(p) + PAGE - 2);
#undef TRY

	expect(do_query(fd, p, 0, again, 1), -EINVAL, "query nothing");
	expect(do_query(fd, p, -1, again, 1), -EOVERFLOW, "query that wraps");
	expect(do_unmap(fd, p, 0), -EINVAL, "unmap nothing");
	expect(do_unmap(fd, p, -1), -EOVERFLOW, "unmap that wraps");
	expect(do_unmap(fd, NULL, -1), -ENOENT, "unmap all of nothing");
	close(fd);
	munmap(p, 4 * PAGE);
}

/* Map, compare, query, unmap */
static void check_kind(const char *what, void *p, uint64_t length, int max)
{
	long before = pinned(), pages = length / PAGE;
	int fd = open_pin(), n;

	n = do_map(fd, p, length);
	ok(n > 0 && n <= max, "%s: %d extents (%s)", what, n, name_of(n));
	ok(locked() == pages, "%s: %ld pages are accounted", what, locked());
	ok(pinned() > before, "%s: %ld pins", what, pinned() - before);
	ok(is_true(p, length, n, extents), "%s: true, in order, coalesced", what);
	ok(do_query(fd, p, length, again, MANY) == n &&
	   !memcmp(extents, again, n * sizeof(*again)), "%s: queried", what);
	ok(queries_are_true(fd, p, length), "%s: parts of it queried", what);
	expect(do_query(fd, p, length, again, n - 1), -EMSGSIZE,
	       "%s: too small an array", what);
	expect(do_query(fd, p, length + 1, again, MANY), -ENOENT,
	       "%s: a byte after", what);
	expect(do_query(fd, (char *)p - 1, 2, again, MANY), -ENOENT,
	       "%s: a byte before", what);
	ok(do_unmap(fd, p, length) == (int64_t)length, "%s: unmap", what);
	ok(pinned() == before && locked() == 0, "%s: all is back", what);
	close(fd);
}

static void test_kinds(void)
{
	char *p, *q;
	int fd, id;

	p = small_pages(1000);
	check_kind("4 KiB pages, untouched", p, 1000 * PAGE, 1000);
	memset(p, 1, 1000 * PAGE);
	check_kind("4 KiB pages, touched", p, 1000 * PAGE, 1000);
	check_kind("one page", p + PAGE, PAGE, 1);
	munmap(p, 1000 * PAGE);

	p = transparent();
	check_kind("transparent huge page", p, HUGE, 1);
	check_kind("part of one", p + 5 * PAGE, 77 * PAGE, 1);
	munmap(p + 8 * PAGE, PAGE);	/* now mapped by pages */
	mmap(p + 8 * PAGE, PAGE, PROT_READ | PROT_WRITE,
	     MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check_kind("pieces of one", p, HUGE, 3);
	munmap(p, HUGE);

	p = get_memory(4 * HUGE, MAP_HUGETLB);
	check_kind("hugetlb, untouched", p, 4 * HUGE, 4);
	check_kind("hugetlb, a page of it", p + 3 * PAGE, PAGE, 1);
	check_kind("hugetlb, across pages", p + HUGE - PAGE, HUGE + 2 * PAGE, 3);
	munmap(p, 4 * HUGE);
	ok(huge_free() == read_number("/proc/meminfo", "HugePages_Total"), "all huge pages are back");

	/* Two kinds in one buffer, and one huge page at two places */
	fd = memfd_create("h", MFD_HUGETLB);
	ftruncate(fd, HUGE);
	p = get_memory(6 * HUGE, 0);
	q = (char *)(((uintptr_t)p + HUGE - 1) & ~(HUGE - 1));
	mmap(q + HUGE, HUGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_SHARED, fd, 0);
	mmap(q + 2 * HUGE, HUGE, PROT_READ | PROT_WRITE,
	     MAP_FIXED | MAP_SHARED, fd, 0);
	madvise(q, HUGE, MADV_NOHUGEPAGE);
	madvise(q + 3 * HUGE, HUGE, MADV_NOHUGEPAGE);
	check_kind("small, huge, the same again, small", q + HUGE - 9 * PAGE,
		   2 * HUGE + 18 * PAGE, 20);
	munmap(p, 6 * HUGE);
	close(fd);

	fd = memfd_create("m", 0);
	ftruncate(fd, 100 * PAGE);
	p = mmap(NULL, 100 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check_kind("memfd", p, 100 * PAGE, 100);
	munmap(p, 100 * PAGE);
	close(fd);

	p = get_memory(100 * PAGE, MAP_SHARED);
	check_kind("shared anonymous", p, 100 * PAGE, 100);
	munmap(p, 100 * PAGE);

	id = shmget(IPC_PRIVATE, 64 * PAGE, IPC_CREAT | 0600);
	if (id < 0 && errno == ENOSYS) {
		printf("# this kernel has no System V memory\n");
	} else {
		p = shmat(id, NULL, 0);
		check_kind("System V", p, 64 * PAGE, 64);
		shmdt(p);
		shmctl(id, IPC_RMID, NULL);
	}

	fd = open("/init", O_RDONLY | O_CLOEXEC);
	p = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	check_kind("private mapping of a file", p, 8 * PAGE, 8);
	munmap(p, 8 * PAGE);
	close(fd);
}

static void test_refused_memory(void)
{
	struct io_uring_params params = { 0 };
	int fd = open_pin(), file;
	char *p, *q;

	p = small_pages(100);
	munmap(p + 50 * PAGE, PAGE);
	expect(do_map(fd, p, 100 * PAGE), -EFAULT, "a hole in the middle");
	ok(pinned() == 0 && locked() == 0, "nothing is pinned");
	ok(do_map(fd, p, 50 * PAGE) > 0, "up to the hole");
	do_unmap(fd, p, 50 * PAGE);
	mprotect(p + 10 * PAGE, PAGE, PROT_READ);
	expect(do_map(fd, p, 50 * PAGE), -EFAULT, "a read-only page");
	mprotect(p + 10 * PAGE, PAGE, PROT_NONE);
	expect(do_map(fd, p, 50 * PAGE), -EFAULT, "a forbidden page");
	ok(pinned() == 0 && locked() == 0, "nothing is pinned");
	munmap(p, 100 * PAGE);

	file = memfd_create("m", 0);
	ftruncate(file, 2 * PAGE);
	p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	expect(do_map(fd, p, 4 * PAGE), -EFAULT, "beyond the end of a memfd");
	munmap(p, 4 * PAGE);
	close(file);

	file = open(PCI "devices/" A "/resource0", O_RDWR | O_CLOEXEC);
	p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (p == MAP_FAILED)
		die("resource0");
	expect(do_map(fd, p, 4 * PAGE), -EOPNOTSUPP, "a device's memory");
	munmap(p, 4 * PAGE);
	close(file);

	file = syscall(SYS_io_uring_setup, PAGE / 64, &params);
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file,
		 IORING_OFF_SQES);
	if (p == MAP_FAILED)
		die("io_uring");
	expect(do_map(fd, p, PAGE), -EOPNOTSUPP, "a driver's memory");
	munmap(p, PAGE);
	close(file);

	mkdir("/r", 0700);
	mount("r", "/r", "ramfs", 0, NULL);
	file = open("/r/f", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ftruncate(file, 4 * PAGE);
	p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	memset(p, 1, 4 * PAGE);
	expect(do_map(fd, p, 4 * PAGE), -EOPNOTSUPP, "a file's memory (ramfs)");
	munmap(p, 4 * PAGE);
	q = small_pages(8);
	mmap(q + 4 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_SHARED,
	     file, 0);
	expect(do_map(fd, q, 8 * PAGE), -EOPNOTSUPP, "a page of it among others");
	munmap(q, 8 * PAGE);
	close(file);

	/* Written back to a device, other than ramfs, so that GUP refuses it */
	file = open("/dev/loop0", O_RDWR | O_CLOEXEC);
	p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (p == MAP_FAILED)
		die("loop0");
	memset(p, 1, 4 * PAGE);
	expect(do_map(fd, p, 4 * PAGE), -EOPNOTSUPP, "a block device's memory");
	munmap(p, 4 * PAGE);
	close(file);
	ok(pinned() == 0 && locked() == 0, "nothing is pinned");
	close(fd);
}

static void test_ranges(void)
{
	char *p = small_pages(32);
	struct noiommu_map map;
	int fd = open_pin(), n;

	ok(do_map(fd, p + 8 * PAGE, 8 * PAGE) > 0, "map");
	expect(do_map(fd, p + 8 * PAGE, 8 * PAGE), -EEXIST, "again");
	expect(do_map(fd, p + 7 * PAGE, 2 * PAGE), -EEXIST, "over its start");
	expect(do_map(fd, p + 15 * PAGE, 2 * PAGE), -EEXIST, "over its end");
	expect(do_map(fd, p + 10 * PAGE, PAGE), -EEXIST, "inside");
	expect(do_map(fd, p, 32 * PAGE), -EEXIST, "around it");
	ok(locked() == 8, "nothing more is accounted");
	ok(do_map(fd, p + 7 * PAGE, PAGE) == 1, "just before");
	ok(do_map(fd, p + 16 * PAGE, PAGE) == 1, "just after");
	expect(do_query(fd, p + 15 * PAGE, 2 * PAGE, again, MANY), -ENOENT,
	       "query across two");
	expect(do_unmap(fd, p + 8 * PAGE, 7 * PAGE), -ENOENT, "unmap but the end");
	expect(do_unmap(fd, p + 9 * PAGE, 7 * PAGE), -ENOENT, "unmap but the start");
	expect(do_unmap(fd, p, 10 * PAGE), -ENOENT, "unmap one and a part");
	expect(do_unmap(fd, p, 7 * PAGE), -ENOENT, "unmap where nothing is");
	ok(locked() == 10, "nothing was unmapped");
	ok(do_unmap(fd, p, 16 * PAGE) == 9 * (int64_t)PAGE, "unmap two at once");
	ok(do_map(fd, p, PAGE) == 1, "map one more");
	ok(do_unmap(fd, NULL, UINT64_MAX) == 2 * (int64_t)PAGE, "unmap all");
	ok(pinned() == 0 && locked() == 0, "all is back");

	n = do_map(fd, p, 32 * PAGE);
	do_unmap(fd, p, 32 * PAGE);
	map = map_arg(p, 32 * PAGE);
	memset(extents, 0xee, sizeof(extents));
	map.num_extents = n - 1;
	expect(call(fd, NOIOMMU_MAP, &map), -EMSGSIZE, "array too small by one");
	ok((int)map.num_extents == n, "%d are needed", n);
	ok(extents[0].addr == 0xeeeeeeeeeeeeeeee && pinned() == 0 && locked() == 0,
	   "nothing is pinned or written");
	expect(call(fd, NOIOMMU_MAP, &map), 0, "array that fits");
	ok(extents[n].addr == 0xeeeeeeeeeeeeeeee, "nothing is written after it");
	close(fd);
	ok(pinned() == 0 && locked() == 0, "close gives all back");

	/* An array of which a part cannot be written */
	fd = open_pin();
	map = map_arg(p, 32 * PAGE);
	mprotect(p + PAGE, PAGE, PROT_READ);
	map.user_va += 2 * PAGE;
	map.length -= 2 * PAGE;
	map.extents = (uintptr_t)(p + PAGE - 16);
	expect(call(fd, NOIOMMU_MAP, &map), n > 3 ? -EFAULT : 0,
	       "array on a read-only page");
	close(fd);
	ok(pinned() == 0 && locked() == 0, "nothing is pinned");
	munmap(p, 32 * PAGE);
}

static int over_limit(void *arg)
{
	struct rlimit limit = { 16 * PAGE, 16 * PAGE };
	int fd = open_pin(), ret;
	char *p = small_pages(32);
	char *h = get_memory(HUGE, MAP_HUGETLB);

	(void)arg;
	if (setrlimit(RLIMIT_MEMLOCK, &limit))
		return -EPROTO;
	if (do_map(fd, p, 17 * PAGE) != -ENOMEM || locked() != 0)
		return -EDOM;
	if (do_map(fd, p, 16 * PAGE) <= 0 || locked() != 16)
		return -EILSEQ;
	if (do_map(fd, p + 16 * PAGE, PAGE) != -ENOMEM)
		return -EMLINK;
	do_unmap(fd, p, 16 * PAGE);
	if (do_map(fd, h, HUGE) != -ENOMEM)
		return -ENOTEMPTY;
	/* The limit is one for mlock() and this */
	if (mlock(p, 15 * PAGE) || do_map(fd, p, 2 * PAGE) != -ENOMEM)
		return -ELOOP;
	ret = do_map(fd, p, PAGE);
	return ret == 1 ? 0 : -EXDEV;
}

static int free_of_limit(void *arg)
{
	struct rlimit limit = { 0, 0 };
	int fd = open_pin();

	(void)arg;
	if (setrlimit(RLIMIT_MEMLOCK, &limit) || do_map(fd, small_pages(32), 32 * PAGE) <= 0)
		return -EPROTO;
	return locked() == 32 ? 0 : -EDOM;
}

static void test_memlock(void)
{
	expect(in_child(over_limit, NULL, AS_NO_IPC_LOCK), 0,
	       "RLIMIT_MEMLOCK holds");
	expect(in_child(free_of_limit, NULL, AS_ROOT), 0,
	       "CAP_IPC_LOCK lifts it, and it is accounted");
	ok(pinned() == 0, "all is back");
}

static int fork_on(void *arg)
{
	int fd = *(int *)arg;
	char *p = *(char **)((int *)arg + 2);

	if (do_query(fd, p, PAGE, again, 1) != -ENOENT ||
	    do_unmap(fd, NULL, UINT64_MAX) != -ENOENT)
		return -EPROTO;
	if (do_map(fd, p, 4 * PAGE) <= 0 || locked() != 4)
		return -EDOM;
	return is_true(p, 4 * PAGE, do_query(fd, p, 4 * PAGE, again, MANY),
		       again) ? 0 : -EILSEQ;
}

static void test_processes(void)
{
	struct {
		int fd;
		int pad;
		char *p;
	} arg = { .fd = open_pin(), .p = small_pages(4) };
	char text[16];
	int n, status, pipes[2];
	char *h;
	pid_t pid;

	n = do_map(arg.fd, arg.p, 4 * PAGE);
	expect(in_child(fork_on, &arg, AS_ROOT), 0,
	       "a child has mappings of its own");
	memset(arg.p, 2, 4 * PAGE);
	ok(is_true(arg.p, 4 * PAGE, do_query(arg.fd, arg.p, 4 * PAGE, again, MANY),
		   again) && n > 0, "pinned pages stay the parent's");
	ok(locked() == 4 && pinned() == 8,
	   "those of the child stay pinned while the file is open");
	close(arg.fd);
	ok(locked() == 0 && pinned() == 0, "all is back");
	munmap(arg.p, 4 * PAGE);

	/* The parent closes first */
	pipe(pipes);
	arg.fd = open_pin();
	arg.p = small_pages(4);
	do_map(arg.fd, arg.p, 4 * PAGE);
	pid = fork();
	if (!pid) {
		close(pipes[1]);
		read(pipes[0], text, 1);
		_exit(0);
	}
	close(arg.fd);
	ok(locked() == 4 && pinned() == 4, "a child keeps the file open");
	close(pipes[0]);
	close(pipes[1]);
	waitpid(pid, &status, 0);
	ok(locked() == 0 && pinned() == 0, "until it is gone");
	munmap(arg.p, 4 * PAGE);

	/* exec() with the file open */
	pid = fork();
	if (!pid) {
		int fd = open("/dev/noiommu", O_RDWR);

		if (do_map(fd, small_pages(4), 4 * PAGE) <= 0)
			_exit(1);
		snprintf(text, sizeof(text), "%d", fd);
		execl("/proc/self/exe", "pin", "exec", text, NULL);
		_exit(2);
	}
	waitpid(pid, &status, 0);
	ok(WIFEXITED(status) && !WEXITSTATUS(status),
	   "mappings are out of reach after exec (%d)", status);
	ok(pinned() == 0, "and gone with the file");

	/* Killed in the midst of it */
	for (n = 0; n < 30; n++) {
		pid = fork();
		if (!pid) {
			int fd = open_pin();

			h = get_memory(2 * HUGE, MAP_HUGETLB);
			do_map(fd, h, 2 * HUGE);
			h = small_pages(2000);
			for (;;) {
				do_map(fd, h, 2000 * PAGE);
				do_unmap(fd, h, 2000 * PAGE);
			}
		}
		usleep(random() % 20000);
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
	}
	ok(pinned() == 0, "killed 30 times: all pins are back (%ld)", pinned());
	ok(huge_free() == read_number("/proc/meminfo", "HugePages_Total"), "and all huge pages");
}

/* Memory of devices that VFIO has handed out */

#define SLOT_A	2
#define SLOT_V	4

/*
 * Start a process that has memory for the device at @slot: a huge page, which is
 * one pin. First it gets the device @bdf from VFIO, if one is named, and that is
 * what @device becomes here, too: who has it open keeps it from being stopped.
 */
static pid_t start_user(const char *bdf, int slot, int *device)
{
	int pipes[2], pidfd, fd;
	pid_t pid;

	if (pipe(pipes))
		die("pipe");
	pid = fork();
	if (!pid) {
		void *h = get_memory(HUGE, MAP_HUGETLB);
		struct noiommu_map map = map_arg(h, HUGE);
		struct client c = NO_CLIENT;

		map.device = slot;
		if (bdf && client_start(&c, bdf))
			_exit(1);
		if (call(open_pin(), NOIOMMU_MAP, &map) ||
		    write(pipes[1], &c.device, sizeof(c.device)) < 0)
			_exit(2);
		for (;;)
			pause();
	}
	close(pipes[1]);
	if (read(pipes[0], &fd, sizeof(fd)) != sizeof(fd))
		ok(false, "a process that uses %s", bdf ?: "nothing");
	close(pipes[0]);
	if (device) {
		pidfd = syscall(SYS_pidfd_open, pid, 0);
		*device = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
		if (*device < 0)
			die("pidfd_getfd");
		close(pidfd);
	}
	return pid;
}

/* What the module says about memory of closed files */
static long held(void)
{
	return read_number(PARAM "held", NULL);
}

#define HELD_MAX	PARAM "held_max"

static long held_max(void)
{
	return read_number(HELD_MAX, NULL);
}

static void end_user(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static bool stays_pinned(long pages)
{
	usleep(200000);
	return pinned() == pages;
}

/* By the time that whoever had the device last has closed it, or has been reaped */
static bool comes_back(void)
{
	return !pinned();
}

/*
 * A service that is killed and started again at once: its memory is there. It has
 * opened the device before its file of /dev/noiommu, or after it, or its group
 * before and the device after.
 */
static void serve(int order, void *memory, uint64_t length)
{
	struct noiommu_map map = map_arg(memory, length);
	struct client c;
	int fd = -1;

	if (order == 1)
		fd = open_pin();
	if (client_open(&c, A) || client_attach(&c))
		_exit(1);
	if (order == 2)
		fd = open_pin();
	if (client_device(&c, A))
		_exit(2);
	if (order == 0)
		fd = open_pin();
	if (call(fd, NOIOMMU_MAP, &map))
		_exit(3);
}

static void test_restart(void)
{
	static const char * const orders[] = {
		"the device first", "the memory first", "the group, the memory, the device",
	};
	long n, all = huge_free(), missing, broken, times = number("restarts", 350);
	unsigned int order;

	expect(bind_vfio(A), 0, "bind vfio-pci");
	for (order = 0; order < 3; order++) {
		missing = broken = 0;
		for (n = 0; n < times; n++) {
			int pipes[2], status;
			char byte;
			pid_t pid;

			if (pipe(pipes))
				die("pipe");
			pid = fork();
			if (!pid) {
				serve(order, get_memory(4 * HUGE, MAP_HUGETLB), 4 * HUGE);
				if (write(pipes[1], "x", 1) == 1)
					pause();
				_exit(4);
			}
			close(pipes[1]);
			broken += read(pipes[0], &byte, 1) != 1;
			close(pipes[0]);
			kill(pid, SIGKILL);
			waitpid(pid, &status, 0);
			missing += huge_free() != all;
		}
		ok(!missing && !broken,
		   "%s: %ld of %ld restarts after a kill find pages missing, %ld fail",
		   orders[order], missing, times, broken);
	}
	ok(!pinned(), "no pins are left");
	expect(unbind_vfio(A), 0, "unbind");
}

static void test_uses(void)
{
	long all = huge_free();
	char *p = small_pages(4);
	struct client c;
	int fd, device;
	pid_t pid;

	expect(add(V), 0, "add another device");
	expect(bind_vfio(A), 0, "bind vfio-pci");

	pid = start_user(A, SLOT_A, NULL);
	end_user(pid);
	ok(comes_back(), "the memory of a user that was killed comes back");

	pid = start_user(A, SLOT_A, &device);
	end_user(pid);
	ok(stays_pinned(1) && huge_free() == all - 1 && held() == (long)HUGE,
	   "but not before its device is closed (%ld pinned, %ld bytes held)", pinned(), held());
	close(device);
	ok(comes_back() && huge_free() == all && !held(), "but then");

	pid = start_user(A, SLOT_V, &device);
	end_user(pid);
	ok(stays_pinned(1), "the same if it was mapped for another device (%ld pinned)", pinned());
	close(device);
	ok(comes_back(), "it comes back");

	expect(client_start(&c, A), 0, "use the device");
	pid = start_user(NULL, SLOT_V, NULL);
	end_user(pid);
	ok(!pinned(), "it does not matter to others who have nothing to do with it");
	pid = start_user(NULL, SLOT_A, NULL);
	end_user(pid);
	ok(stays_pinned(1), "but to others who have memory for it (%ld pinned)", pinned());
	fd = open_pin();
	do_map(fd, p, 4 * PAGE);
	ok(do_unmap(fd, p, 4 * PAGE) == 4 * (int64_t)PAGE && pinned() == 1 && !locked(),
	   "what is unmapped comes back at once");
	do_map(fd, p, 4 * PAGE);
	close(fd);
	ok(stays_pinned(5) && locked() == 4,
	   "what is left of a closed file stays, and counts (%ld pinned, %ld locked)", pinned(),
	   locked());
	client_close(&c);
	expect(client_start(&c, A), 0, "use the device once more");
	ok(comes_back() && !locked(), "what is left of the use before comes back");

	fd = open_pin();
	do_map(fd, p, 4 * PAGE);
	close(fd);
	ok(pinned() == 4, "what is left of a closed file stays again");
	client_close(&c);
	ok(!unbind_vfio(A) && !del(A) && !del(V) && !unload("noiommu"),
	   "the module can be unloaded at once");
	ok(!pinned() && !locked(), "all is back by then");
	munmap(p, 4 * PAGE);
	expect(load("noiommu", "devices=" A " held_max=3M"), 0, "load it again");
	ok(held_max() == 3L << 20, "with a bound for what is held (%ld)", held_max());
}

static int no_bound(void *arg)
{
	return put(HELD_MAX, arg);
}

/* What is held is bounded: nothing new is mapped beyond that */
static void test_held_max(void)
{
	static const char * const malformed[] = { "x", "-1", "1x", "M", " 1", "1M\n\n" };
	char *p = small_pages(9);
	unsigned int i;
	int fd, device;
	pid_t pid;

	for (i = 0; i < sizeof(malformed) / sizeof(*malformed); i++)
		expect(put(HELD_MAX, malformed[i]), -EINVAL, "malformed bound %u", i);
	expect(in_child(no_bound, "1G", AS_NO_RAWIO), -EPERM, "a bound without CAP_SYS_RAWIO");
	ok(held_max() == 3L << 20, "nothing came of all that");
	expect(put(HELD_MAX, "0"), 0, "no memory may be held");
	fd = open_pin();
	ok(do_map(fd, p, 4 * PAGE) > 0, "none is, so map");

	expect(bind_vfio(A), 0, "bind vfio-pci");
	trace_start();
	pid = start_user(A, SLOT_A, &device);
	end_user(pid);
	ok(held() == (long)HUGE && says(DEBUG "held", "2048 KiB closed by "), "a huge page is held");
	if (there(TRACING "events/noiommu"))
		ok(traced("noiommu_map: " A " pages=512 extents=1") &&
		   traced("noiommu_hold: pages=512") && !traced("noiommu_release"), "trace: mapped, held");
	log_skip();
	expect(do_map(fd, p + 4 * PAGE, 4 * PAGE), -ENOMEM, "beyond the bound nothing is mapped");
	ok(logged("refused to map", "held_max") && locked() == 4, "log: why");
	ok(do_query(fd, p, 4 * PAGE, again, MANY) > 0, "query works");
	expect(put(HELD_MAX, "2M\n"), 0, "raise the bound to what is held");
	ok(do_map(fd, p + 4 * PAGE, 4 * PAGE) > 0, "map");
	expect(put(HELD_MAX, "2097151"), 0, "lower it by a byte");
	expect(do_map(fd, p + 8 * PAGE, PAGE), -ENOMEM, "then nothing is mapped");
	ok(do_unmap(fd, p, 8 * PAGE) == 8 * (int64_t)PAGE, "unmap works");
	close(device);
	ok(comes_back() && !held() && !*slurp(DEBUG "held"), "none is held");
	if (there(TRACING "events/noiommu"))
		ok(traced("noiommu_release: pages=512") && traced("noiommu_unmap: pages=4"),
		   "trace: unmapped, released");
	trace_stop();
	ok(do_map(fd, p, 4 * PAGE) > 0, "map");
	close(fd);
	ok(!pinned() && !locked(), "all is back");
	expect(unbind_vfio(A), 0, "unbind");
	munmap(p, 9 * PAGE);
	ok(!del(A) && !unload("noiommu") && !load("noiommu", "devices=" A), "load it again");
	ok(labs(held_max() / 1024 - read_number("/proc/meminfo", "MemTotal") / 2) <= 4,
	   "half of the memory may be held (%ld bytes)", held_max());
}

/* Threads that map, query, unmap and change what is below, all on one file */

static atomic_bool stop;
static atomic_ulong mapped, others;
static char *arena;
static int arena_fd;
#define ARENA	512UL

static void *racer(void *arg)
{
	unsigned int seed = (uintptr_t)arg;
	struct noiommu_extent out[64];

	while (!stop) {
		unsigned long first = rand_r(&seed) % ARENA;
		unsigned long n = 1 + rand_r(&seed) % 40;
		char *p = arena + first * PAGE;
		struct noiommu_map map;

		if (first + n > ARENA)
			n = ARENA - first;
		switch (rand_r(&seed) % 8) {
		case 0 ... 2:
			map = map_arg(p, n * PAGE);
			map.extents = (uintptr_t)out;
			map.num_extents = 64;
			if (!call(arena_fd, NOIOMMU_MAP, &map))
				mapped++;
			break;
		case 3:
			do_unmap(arena_fd, p, n * PAGE);
			break;
		case 4:
			do_query(arena_fd, p, n * PAGE, out, 64);
			break;
		case 5:
			madvise(p, n * PAGE, MADV_DONTNEED);
			break;
		case 6:
			mmap(p, n * PAGE, PROT_READ | PROT_WRITE,
			     MAP_FIXED | MAP_ANONYMOUS |
			     (seed & 64 ? MAP_SHARED : MAP_PRIVATE), -1, 0);
			break;
		case 7:
			if (seed & 64)
				munmap(p, n * PAGE);
			else
				mprotect(p, n * PAGE, PROT_READ);
			break;
		}
		others++;
	}
	return NULL;
}

static void *closer(void *arg)
{
	(void)arg;
	while (!stop) {
		int fd = open_pin();

		usleep(3000);
		if (dup3(fd, arena_fd, O_CLOEXEC) < 0)	/* closes the old one */
			break;
		close(fd);
	}
	return NULL;
}

static void test_races(void)
{
	pthread_t threads[5];
	uintptr_t i;

	arena = small_pages(ARENA);
	arena_fd = open_pin();
	for (i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, racer, (void *)(i + 1));
	pthread_create(&threads[4], NULL, closer, NULL);
	sleep(RACE);
	stop = true;
	for (i = 0; i < 5; i++)
		pthread_join(threads[i], NULL);
	close(arena_fd);
	ok(mapped > 0, "threads mapped %lu times in %lu calls", mapped, others);
	ok(pinned() == 0 && locked() == 0, "all is back (%ld, %ld)", pinned(), locked());
	munmap(arena, ARENA * PAGE);
}

#ifdef __x86_64__
/* As a 32-bit process would call */
static int call32(int fd, unsigned int cmd, void *arg)
{
	int ret;

	asm volatile("int $0x80" : "=a"(ret) : "a"(54), "b"(fd), "c"(cmd),
		     "d"((unsigned int)(uintptr_t)arg) : "memory", "r8", "r9",
		     "r10", "r11");
	return ret;
}

static int try_call32(void *arg)
{
	return call32(-1, NOIOMMU_INFO, arg);
}

static void test_compat(void)
{
	struct noiommu_map *map = get_memory(PAGE, MAP_32BIT);
	char *p;
	int fd;

	if (in_child(try_call32, map, AS_ROOT) != -EBADF) {
		printf("# this kernel runs no 32-bit processes\n");
		return;
	}
	p = small_pages(2);
	fd = open_pin();
	*map = map_arg(p, 2 * PAGE);
	expect(call32(fd, NOIOMMU_MAP, map), 0, "map as a 32-bit process");
	ok(is_true(p, 2 * PAGE, map->num_extents, extents), "the result is true");
	map->size = 55;
	expect(call32(fd, NOIOMMU_MAP, map), -EINVAL, "a wrong size");
	close(fd);
	munmap(p, 2 * PAGE);
	munmap(map, PAGE);
}
#else
static void test_compat(void)
{
	printf("# no test of 32-bit processes on this architecture\n");
}
#endif

static int fault_fd;

/* Make each thing fail in its turn, until a call is through before that */
static void check_faults(const char *what, char *p, uint64_t length)
{
	unsigned int n, bad = 0, lost = 0;
	int64_t ret = -1;

	for (n = 1; n < 10000; n++) {
		int fd = open_pin();
		bool failed;

		fail_nth(fault_fd, n);
		ret = do_map(fd, p, length);
		failed = has_failed(fault_fd);
		if (ret >= 0) {
			bad += !is_true(p, length, ret, extents);
			fail_nth(fault_fd, n);
			ret = do_query(fd, p, length, again, MANY);
			has_failed(fault_fd);
			bad += ret < 0 && ret != -EFAULT;
			fail_nth(fault_fd, n);
			ret = do_unmap(fd, p, length);
			has_failed(fault_fd);
			bad += ret != (int64_t)length && ret != -EFAULT;
			lost += ret < 0 ? !pinned() || !locked() : pinned() || locked();
		} else {
			bad += ret != -ENOMEM && ret != -EFAULT;
			lost += pinned() || locked();
		}
		close(fd);
		lost += pinned() || locked();
		if (!failed)
			break;
	}
	ok(n > 1 && n < 10000 && !bad && !lost,
	   "%s: %u steps fail, each by itself: %u with another error, %u left something pinned",
	   what, n - 1, bad, lost);
}

static void test_faults(void)
{
	char *p = small_pages(600), *h = get_memory(2 * HUGE, MAP_HUGETLB);

	fault_fd = fail_open(true);
	if (fault_fd < 0) {
		printf("# in this kernel nothing can be made to fail\n");
		return;
	}
	faults_start();
	put(LEAKS, "clear");
	check_faults("4 KiB pages that are not there yet", p, 20 * PAGE);
	memset(p, 1, 600 * PAGE);
	check_faults("4 KiB pages", p, 600 * PAGE);
	memset(h, 1, 2 * HUGE);
	check_faults("huge pages", h, 2 * HUGE);
	check_leaks();
	close(fault_fd);
	munmap(p, 600 * PAGE);
	munmap(h, 2 * HUGE);
}

static void test_unplug(void)
{
	char *p = small_pages(8);
	int fd = open_pin(), n;

	n = do_map(fd, p, 4 * PAGE);
	ok(n > 0, "map");
	expect(put(PARAM "remove", A), 0, "take the device out");
	expect(do_map(fd, p + 4 * PAGE, PAGE), -ENODEV, "map for it");
	ok(is_true(p, 4 * PAGE, do_query(fd, p, 4 * PAGE, again, MANY), again),
	   "what was mapped stays");
	expect(put(PARAM "add", A), 0, "add it again");
	ok(do_map(fd, p + 4 * PAGE, PAGE) == 1, "map for it");
	expect(put(PCI "devices/" A "/remove", "1"), 0, "unplug it");
	expect(do_map(fd, p + 5 * PAGE, PAGE), -ENODEV, "map for it");
	ok(is_true(p, 4 * PAGE, do_query(fd, p, 4 * PAGE, again, MANY), again),
	   "what was mapped stays");
	ok(do_unmap(fd, p, 4 * PAGE) == 4 * (int64_t)PAGE, "unmap it");
	expect(unload("noiommu"), -EAGAIN, "rmmod under an open file");
	close(fd);
	ok(pinned() == 0 && locked() == 0, "all is back");
	expect(unload("noiommu"), 0, "rmmod");
	ok(access("/dev/noiommu", F_OK), "the file is gone");
	put(PCI "rescan", "1");
	expect(load("noiommu", "devices=" A), 0, "load it again");
	fd = open_pin();
	ok(do_map(fd, p, PAGE) == 1, "map");
	close(fd);
	munmap(p, 8 * PAGE);
}

/* Cannot be taken back, so it comes last */
static void test_lockdown(void)
{
	char *p = small_pages(2);
	int fd = open_pin();

	ok(do_map(fd, p, PAGE) == 1, "map");
	mount("s", "/sys/kernel/security", "securityfs", 0, NULL);
	if (put("/sys/kernel/security/lockdown", "integrity")) {
		ok(true, "lockdown # SKIP not in this kernel");
		return;
	}
	expect(in_child(try_open, NULL, AS_ROOT), -EPERM, "open under lockdown");
	expect(do_map(fd, p + PAGE, PAGE), -EPERM, "map under lockdown");
	ok(do_query(fd, p, PAGE, again, 1) == 1, "query still works");
	ok(do_unmap(fd, p, PAGE) == (int64_t)PAGE, "so does unmap");
	close(fd);
	munmap(p, 2 * PAGE);
}

static void test_bounce(void)
{
	char *p = small_pages(1);
	int fd = open_pin();

	expect(add(A), -EOPNOTSUPP, "add a device where the kernel bounces all DMA (swiotlb=force)");
	expect(do_map(fd, p, PAGE), -ENODEV, "map for it");
	ok(pinned() == 0 && locked() == 0, "nothing is pinned");
	close(fd);
}

static void start_pin(void)
{
	int fd, loop;

	start("16", false);
	put("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
	put("/proc/sys/vm/compact_unevictable_allowed", "0");

	fd = open("/backing", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ftruncate(fd, 1 << 20);
	loop = open("/dev/loop0", O_RDWR | O_CLOEXEC);
	if (loop < 0 || ioctl(loop, LOOP_SET_FD, fd))
		die("loop0");
	if (load("noiommu", "devices=" A))
		die("noiommu");
}

int main(int argc, char **argv)
{
	char *line;
	int fd;

	if (argc == 3 && !strcmp(argv[1], "exec")) {
		fd = atoi(argv[2]);
		if (do_unmap(fd, NULL, UINT64_MAX) != -ENOENT)
			return 3;
		if (locked())
			return 4;
		return pinned() == 4 ? 0 : 5;
	}

	start_pin();
	line = slurp("/proc/cmdline");
	if (strstr(line, "swiotlb=force")) {
		test_bounce();
	} else {
		test_open();
		test_arguments();
		test_kinds();
		test_refused_memory();
		test_ranges();
		test_memlock();
		test_processes();
		test_uses();
		test_held_max();
		test_restart();
		test_races();
		test_compat();
		test_faults();
		test_unplug();
		test_lockdown();
	}
	finish();
}
