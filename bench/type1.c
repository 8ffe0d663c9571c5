// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How long VFIO's type1 takes to map 1 GiB of huge pages for a device, on the
 * noiommu module or on a hardware IOMMU, whichever this machine has. Runs as the
 * only process of a virtual machine, see bench/translate.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 */
#define _GNU_SOURCE
#include "measure.h"

#include "../tests/kmod/client.h"

#define ELSEWHERE	(4 * GIB)	/* an IOVA that needs translation */

/* What is mapped by one call: a page, what is contiguous, or all of it */
enum step { BY_PAGE, BY_EXTENT, BY_ALL };

static const char * const step_names[] = { "page", "extent", "all" };

/* The end of what one call maps from @at on, both offsets into the buffer */
static uint64_t step_end(const char *p, uint64_t at, uint64_t page, enum step step)
{
	uint64_t end = at + page;

	if (step == BY_PAGE)
		return end;
	if (step == BY_ALL)
		return GIB;
	while (end < GIB && phys_of(p + end) == phys_of(p + at) + (end - at))
		end += page;
	return end;
}

/* In two machines at two times: what the host had to do besides shows in both of a pair */
static void measure(struct client *c, uint64_t page, enum step step)
{
	int rounds = number("runs", 20);
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_HUGETLB;
	static struct { uint64_t at, iova, size; } calls[512];
	double map = 1e18, unmap = 1e18, pin = 1e18, from;
	int i, n = 0, round, bad = 0;
	uint64_t at, end;
	char *p;

	p = mmap(NULL, GIB, PROT_READ | PROT_WRITE,
		 flags | __builtin_ctzll(page) << MAP_HUGE_SHIFT, -1, 0);
	if (p == MAP_FAILED)
		die("mmap");
	for (at = 0; at < GIB; at = end) {
		end = step_end(p, at, page, step);
		calls[n].at = at;
		calls[n].size = end - at;
		calls[n++].iova = step == BY_ALL ? ELSEWHERE + at : phys_of(p + at);
	}

	for (round = 0; round < rounds; round++) {
		from = now_ns();
		for (i = 0; i < n; i++)
			bad += !!dma_map(c, p + calls[i].at, calls[i].iova, calls[i].size);
		least(&map, now_ns() - from);

		from = now_ns();
		for (i = 0; i < n; i++)
			bad += dma_unmap(c, calls[i].iova, calls[i].size) !=
			       (int64_t)calls[i].size;
		least(&unmap, now_ns() - from);
		least(&pin, pin_only(p, GIB));
	}
	munmap(p, GIB);
	printf("# %s %lu %d %.0f %.0f %.0f\n", step_names[step], page / MIB, n, map / 1e3,
	       unmap / 1e3, pin / 1e3);
	ok(!bad, "1 GiB of %lu MiB pages, mapped and unmapped %d times by %s", page / MIB,
	   rounds, step_names[step]);
}

int main(void)
{
	bool hardware = !strcmp(getenv("backend") ?: "", "hardware");
	struct client c;

	start("512", hardware);
	if (!hardware && load("noiommu", "devices=" A))
		die("noiommu");
	ok(!bind_vfio(A) && !client_start(&c, A), "a client of VFIO has the device");
	measure(&c, HUGE, BY_PAGE);
	measure(&c, HUGE, BY_EXTENT);
	if (hardware)
		measure(&c, HUGE, BY_ALL);
	put("/proc/sys/vm/nr_hugepages", "0");
	measure(&c, GIB, BY_PAGE);
	client_close(&c);
	finish();
}
