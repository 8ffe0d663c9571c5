// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A device that VFIO emulates (the kernel's sample mtty) and one of the noiommu
 * module in the same container. The first maps at any IOVA, and nothing is
 * pinned for it; when the second joins, VFIO replays these mappings.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 */
#define _GNU_SOURCE
#include "client.h"

#define UUID	"6f0a9c1e-5d43-4b8f-9a57-2c1d0e3b7a64"
#define MDEV	"/sys/bus/mdev/devices/" UUID
#define CREATE	"/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create"

/* The group's file, in a container of its own */
static int emulated(struct client *c)
{
	char link[PATH_MAX], path[PATH_MAX];
	ssize_t len;

	if (put(CREATE, UUID))
		die("create");
	/* Nothing is probed by itself here */
	put("/sys/bus/mdev/drivers_probe", UUID);
	len = readlink(MDEV "/iommu_group", link, sizeof(link) - 1);
	if (len < 0)
		return -errno;
	link[len] = '\0';
	snprintf(path, sizeof(path), "/dev/vfio%s", strrchr(link, '/'));

	c->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	c->group = open(path, O_RDWR | O_CLOEXEC);
	if (c->container < 0 || c->group < 0 ||
	    ioctl(c->group, VFIO_GROUP_SET_CONTAINER, &c->container))
		return -errno;
	return client_attach(c);
}

static void refused(struct client *c, long before, const char *what)
{
	int group = client_group(c->container, A);

	expect(group, -EINVAL, "it may not join %s", what);
	ok(pinned() == before, "and nobody's pages were unpinned (%ld, were %ld)",
	   pinned(), before);
}

int main(void)
{
	struct client c = NO_CLIENT;
	uint64_t at, elsewhere;
	void *p, *q;
	long before;
	int group;

	start("16", false);
	if (load("mtty", "") || load("noiommu", "devices=" A))
		die("modules");
	expect(emulated(&c), 0, "an emulated device in a container");
	expect(bind_vfio(A), 0, "bind vfio-pci to another one");
	p = huge_page();
	q = huge_page();
	at = phys_of(p);
	elsewhere = phys_of(q);
	before = pinned();

	expect(dma_map(&c, p, elsewhere, HUGE), 0, "map at another page's address");
	ok(pinned() == before, "which pins nothing");
	refused(&c, before, "beside that");
	ok(dma_unmap(&c, elsewhere, HUGE) == (int64_t)HUGE, "unmap it");

	expect(dma_map(&c, p, at, HUGE), 0, "map at IOVA = physical");
	expect(dma_map(&c, q, GIB * GIB / 2, HUGE), 0, "and another one far above");
	refused(&c, before, "beside both");
	ok(dma_unmap(&c, GIB * GIB / 2, HUGE) == (int64_t)HUGE, "unmap the other one");

	group = client_group(c.container, A);
	ok(group >= 0, "it joins (%s)", name_of(group));
	ok(pinned() == before + (long)(HUGE / PAGE), "what is mapped is pinned (%ld, were %ld)",
	   pinned(), before);
	ok(dma_unmap(&c, at, HUGE) == (int64_t)HUGE, "unmap");
	ok(pinned() == before, "and unpinned (%ld, were %ld)", pinned(), before);

	close(group);
	client_close(&c);
	ok(!(taint() & TAINT_BUGS), "the kernel has not complained");
	finish();
}
