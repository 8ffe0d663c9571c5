// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Thousands of lives of an added device, after which everything in the kernel
 * is back where it was. Runs as the first process of a small virtual machine,
 * see tests/kmod/long, and prints TAP on the console.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 */
#define _GNU_SOURCE
#include "client.h"

#define CACHES	1000
#define SLAB	"/sys/kernel/slab"

/* A cache that a leak of one object in each cycle would have filled */
struct cache {
	char name[64];
	long active;
	long size;
};

struct state {
	struct cache cache[CACHES];
	int caches;
	long refcount;
	long huge_free;
	long pinned;
	long available;		/* KiB */
	long unreclaimable;	/* KiB */
	int groups;
	int iommus;
};

static void shrink_caches(void)
{
	struct dirent *e;
	DIR *dir = opendir(SLAB);
	char path[PATH_MAX];

	while (dir && (e = readdir(dir))) {
		snprintf(path, sizeof(path), SLAB "/%s/shrink", e->d_name);
		put(path, "1");
	}
	if (dir)
		closedir(dir);
}

static void look(struct state *s)
{
	char *text, *rest, *line;

	memset(s, 0, sizeof(*s));
	put("/proc/sys/vm/drop_caches", "3");
	sleep(2);		/* RCU, and workers that free what is left */
	shrink_caches();
	text = slurp("/proc/slabinfo");
	for (rest = text; (line = strsep(&rest, "\n")) && s->caches < CACHES;) {
		struct cache *c = &s->cache[s->caches];

		if (sscanf(line, "%63s %ld %*d %ld", c->name, &c->active, &c->size) == 3)
			s->caches++;
	}
	free(text);
	s->refcount = read_number("/sys/module/noiommu/refcnt", NULL);
	s->huge_free = huge_free();
	s->available = read_number("/proc/meminfo", "MemAvailable");
	s->unreclaimable = read_number("/proc/meminfo", "SUnreclaim");
	s->pinned = pinned();
	s->groups = entries(GROUPS);
	s->iommus = entries(IOMMUS);
}

/*
 * A debugging kernel's notes on what other objects are doing. It keeps up to a
 * thousand spare ones as it sees fit (ODEBUG_POOL_SIZE in lib/debugobjects.c):
 * what leaks is missed in its own cache.
 */
#define NOTES	"debug_objects_cache"

/* Is there a cache that has an object more for each few cycles? */
static void compare_caches(const struct state *before, const struct state *after,
			   long limit)
{
	int i, j, bad = 0;

	for (i = 0; i < after->caches; i++) {
		const struct cache *c = &after->cache[i];
		long was = 0;

		for (j = 0; j < before->caches; j++) {
			if (!strcmp(before->cache[j].name, c->name))
				was = before->cache[j].active;
		}
		if (c->active - was > limit / 4)
			printf("# %s: %ld objects of %ld bytes, were %ld\n",
			       c->name, c->active, c->size, was);
		bad += c->active - was > limit && strcmp(c->name, NOTES);
	}
	ok(after->caches && !bad, "%d of %d slab caches have grown by more than %ld objects",
	   bad, after->caches, limit);
}

/* Add, bind, attach, map, unmap, detach, unbind, remove */
static int one_life(const char *bdf, void *p, uint64_t phys)
{
	struct client c;
	int bad = 0;

	bad |= add(bdf) ? 1 << 0 : 0;
	bad |= bind_vfio(bdf) ? 1 << 1 : 0;
	bad |= client_open(&c, bdf) ? 1 << 2 : 0;
	bad |= client_attach(&c) ? 1 << 3 : 0;
	/* Closing releases what is still mapped; it must not need the unmap */
	bad |= dma_map(&c, p, phys, HUGE) ? 1 << 4 : 0;
	client_close(&c);
	bad |= unbind_vfio(bdf) ? 1 << 5 : 0;
	bad |= del(bdf) ? 1 << 6 : 0;
	return bad;
}

static long lives(long n, void *p, uint64_t phys)
{
	double next = now() + 15;
	long i, bad = 0;

	for (i = 0; i < n; i++) {
		int ret = one_life(V, p, phys);

		if (ret && !bad++)
			printf("# cycle %ld: steps %#x failed\n", i, ret);
		if (now() >= next) {
			printf("# %ld cycles\n", i);
			next += 15;
		}
	}
	return bad;
}

int main(void)
{
	long n = number("cycles", 10000), bad;
	static struct state before, after;
	int first, last;
	double began;
	uint64_t phys;
	void *p;

	start("16", false);
	if (load("noiommu", ""))
		die("noiommu");
	p = huge_page();
	phys = phys_of(p);

	/* The first ones fill caches and tables that stay */
	ok(!lives(n / 100 + 10, p, phys), "warming up");
	add(V);
	first = group_of(V);
	del(V);
	put(LEAKS, "clear");
	look(&before);

	began = now();
	bad = lives(n, p, phys);
	ok(!bad, "%ld times add, bind, attach, map, detach, unbind, remove: %ld failed, %.0f s",
	   n, bad, now() - began);
	look(&after);

	/* A cache of small objects has some hundred in what a CPU keeps at hand */
	compare_caches(&before, &after, n / 20 + 300);
	ok(after.unreclaimable - before.unreclaimable < 2048 + n / 20,
	   "unreclaimable slab: %ld KiB, was %ld KiB", after.unreclaimable, before.unreclaimable);
	printf("# available memory: %ld KiB, was %ld KiB\n", after.available, before.available);
	ok(after.refcount == before.refcount && !after.refcount,
	   "the module has %ld references, had %ld", after.refcount, before.refcount);
	ok(after.pinned == before.pinned, "%ld pages pinned, were %ld",
	   after.pinned, before.pinned);
	ok(after.huge_free == before.huge_free, "%ld huge pages free, were %ld",
	   after.huge_free, before.huge_free);
	ok(!after.groups && !after.iommus, "no group and no IOMMU is left");
	add(V);
	last = group_of(V);
	del(V);
	ok(last == first, "the next group has number %d, as before the cycles (%d)", last, first);
	check_leaks();
	ok(!unload("noiommu") && access("/sys/module/noiommu", F_OK), "the module can be unloaded");
	ok(!(taint() & TAINT_BUGS), "the kernel has not complained");
	finish();
}
