// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How long it takes to learn where memory is: /dev/noiommu, which pins it,
 * against /proc/self/pagemap, which does not. Runs as the only process of a
 * virtual machine, see bench/translate.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 */
#define _GNU_SOURCE
#include "measure.h"

#include "include/uapi/noiommu.h"

#define SINGLES	16384
#define PFN	((1ULL << 55) - 1)
/* Bytes, of struct mapping and struct extent */
#define KEPT_MAPPING	64.0
#define KEPT_EXTENT	16.0

/* Where small ones are: as they come, anywhere, or in huge ones that nobody asked for */
enum pages { IN_ORDER, SCATTERED, TRANSPARENT };

static int device = -1;
/* How often everything is measured, and whether what came out is judged */
static int runs;
static bool judged;

/* KiB of kernel memory in slabs and in vmalloc space */
static long kernel_memory(void)
{
	return read_number("/proc/meminfo", "Slab") +
	       read_number("/proc/meminfo", "VmallocUsed");
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
			    enum pages pages)
{
	struct buffer b = { .name = name, .length = length, .page = page };
	uint64_t n = length / page, i;
	int flags = 0;

	if (page > PAGE)
		flags = MAP_HUGETLB | __builtin_ctzll(page) << MAP_HUGE_SHIFT;
	b.p = memory(length, flags);
	if (page == PAGE)
		madvise(b.p, length, pages == TRANSPARENT ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	/* Any odd factor visits all of a power of two */
	for (i = 0; i < n; i++)
		b.p[(pages == SCATTERED ? i * 0x9e3779b1 % n : i) * page] = 1;

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
	double start = now_ns();

	if (ioctl(device, NOIOMMU_MAP, &map))
		die("NOIOMMU_MAP");
	start = now_ns() - start;
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
	double start = now_ns();

	if (ioctl(device, NOIOMMU_UNMAP, &unmap))
		die("NOIOMMU_UNMAP");
	return now_ns() - start;
}

/* Far enough apart that there are no more of them in the buffer than SINGLES */
static uint64_t step(const struct buffer *b)
{
	uint64_t far = b->length / SINGLES;

	return far > b->page ? far : b->page;
}

/* What DPDK's rte_mem_virt2phy() does, for each page; ns a page */
static double dpdk(struct buffer *b)
{
	double start = now_ns();
	uint64_t at, sum = 0;

	for (at = 0; at < b->length; at += step(b)) {
		int fd = open("/proc/self/pagemap", O_RDONLY);
		off_t offset = ((uintptr_t)b->p + at) / PAGE * 8;
		uint64_t entry;

		if (fd < 0 || lseek(fd, offset, SEEK_SET) < 0 ||
		    read(fd, &entry, 8) != 8)
			die("pagemap");
		close(fd);
		sum += entry & PFN;
	}
	start = now_ns() - start;
	return sum ? start / (b->length / step(b)) : 0;
}

/* One read for all of the buffer, of a file that is open already */
static double bulk(struct buffer *b, int pagemap)
{
	uint64_t length = b->length / PAGE * 8, done = 0;
	double start = now_ns();

	while (done < length) {
		ssize_t n = pread(pagemap, (char *)b->entries + done, length - done,
				  (uintptr_t)b->p / PAGE * 8 + done);
		if (n <= 0)
			die("pagemap");
		done += n;
	}
	return now_ns() - start;
}

/* One read for each page: less than all of it where pages are huge; ns a page */
static double single(struct buffer *b, int pagemap)
{
	double start = now_ns();
	uint64_t at, sum = 0, entry;

	for (at = 0; at < b->length; at += step(b)) {
		if (pread(pagemap, &entry, 8,
			  ((uintptr_t)b->p + at) / PAGE * 8) != 8)
			die("pagemap");
		sum += entry & PFN;
	}
	start = now_ns() - start;
	return sum ? start / (b->length / step(b)) : 0;
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

/* Runs of something so short that it needs some to get going */
static int repeats(const struct buffer *b)
{
	return b->length / b->page < 64 ? 20 : 1;
}

/* The same number of times each, in turn, so that all have the same chance */
static void compare(struct buffer *b)
{
	double ours_ns = 1e18, a_ns = 1e18, b_ns = 1e18, c_ns = 1e18, pin_ns = 1e18;
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), i, j;
	double n = b->length / b->page, back_ns = 1e18;

	for (i = 0; i < runs; i++) {
		for (j = 0; j < repeats(b); j++) {
			least(&ours_ns, map(b) / n);
			least(&back_ns, unmap(b) / n);
		}
		for (j = 0; j < repeats(b); j++)
			least(&a_ns, dpdk(b));
		for (j = 0; j < repeats(b); j++)
			least(&c_ns, single(b, pagemap));
		least(&b_ns, bulk(b, pagemap) / n);
		least(&pin_ns, pin_only(b->p, b->length) / n);
	}
	map(b);
	bulk(b, pagemap);
	close(pagemap);
	ok(is_true(b), "%s: %u extents say what pagemap says", b->name, b->nr);
	unmap(b);
	printf("# | %s | %.0f | %u | %.0f | %.0f | %.0f | %.0f | %.0f | **%.1f** | **%.2f** | %.2f | %.0f |\n",
	       b->name, n, b->nr, ours_ns, a_ns, b_ns, c_ns, pin_ns,
	       a_ns / ours_ns, ours_ns / b_ns, ours_ns / pin_ns, back_ns);
	drop(b);
	if (!judged)
		return;
	ok(ours_ns <= 1.5 * b_ns || ours_ns <= 1.1 * pin_ns, "%s: %s", b->name,
	   ours_ns <= 1.5 * b_ns ? "at most 1.5 times (b)" :
	   "more than 1.5 times (b), but no more than pinning alone");
	/* With a single page there is nothing to share the cost of a call */
	if (n > 1)
		ok(a_ns >= 20 * ours_ns, "%s: at least 20 times faster than (a)",
		   b->name);
}

static double scale(struct buffer *b)
{
	double n = b->length / b->page, ours = 1e18;
	long before, held;
	int i;

	for (i = 0; i < runs * repeats(b); i++) {
		least(&ours, map(b));
		unmap(b);
	}
	before = kernel_memory();
	map(b);
	held = kernel_memory() - before;
	unmap(b);
	printf("# | %s | %lu MiB | %u | %.1f | %.1f | %ld |\n", b->name, b->length / MIB, b->nr,
	       ours / n, (KEPT_MAPPING + KEPT_EXTENT * b->nr) / 1024, held);
	drop(b);
	return ours / n;
}

/*
 * A page costs the same in a buffer of any size. Scattered ones do not, for
 * nobody: their descriptors are spread over more memory than caches hold.
 */
static void scales(const char *name, uint64_t page, enum pages pages,
		   uint64_t from, uint64_t to)
{
	double least = 1e18, most = 0;
	uint64_t size;

	for (size = from; size <= to; size *= 8) {
		struct buffer b = buffer(name, size, page, pages);
		double ns = scale(&b);

		if (size * 8 > to && size < to)
			size = to / 8;
		/* Below that a call costs more than its pages do */
		if (size / page < 64)
			continue;
		least = ns < least ? ns : least;
		most = ns > most ? ns : most;
	}
	if (judged && pages != SCATTERED)
		ok(most <= 2 * least, "%s: flat, %.1f to %.1f ns a page", name,
		   least, most);
}

int main(void)
{
	uint64_t largest = number("largest", 8) * GIB;
	const char *text;
	struct buffer b;

	runs = number("runs", 20);
	judged = number("judged", 1);
	start("0", false);
	if (load("noiommu", "devices=" A))
		die("noiommu");
	device = open("/dev/noiommu", O_RDWR | O_CLOEXEC);
	if (device < 0)
		die("/dev/noiommu");
	printf("# | 1 GiB of | pages | extents | /dev/noiommu | (a) | (b) | (c) | (d) | (a) / ours | ours / (b) | ours / (d) | unmap |\n");
	printf("# |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
	b = buffer("4 KiB pages", GIB, PAGE, IN_ORDER);
	compare(&b);
	b = buffer("4 KiB pages, scattered", GIB, PAGE, SCATTERED);
	compare(&b);
	b = buffer("4 KiB pages, transparently huge", GIB, PAGE, TRANSPARENT);
	compare(&b);
	put("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "512");
	b = buffer("2 MiB pages", GIB, HUGE, IN_ORDER);
	compare(&b);
	put("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0");
	b = buffer("1 GiB page", GIB, GIB, IN_ORDER);
	compare(&b);
	put("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0");

	printf("# \n# | pages | buffer | extents | ns per page | kept (KiB) | seen (KiB) |\n");
	printf("# |---|--:|--:|--:|--:|--:|\n");
	scales("4 KiB", PAGE, IN_ORDER, 2 * MIB, largest);
	scales("4 KiB, scattered", PAGE, SCATTERED, 2 * MIB, GIB);
	put("/proc/sys/vm/drop_caches", "3");
	put("/proc/sys/vm/compact_memory", "1");
	text = largest == 8 * GIB ? "4096" : "512";
	put("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", text);
	scales("2 MiB", 2 * MIB, IN_ORDER, 2 * MIB, strtoul(text, NULL, 0) * 2 * MIB);

	finish();
}
