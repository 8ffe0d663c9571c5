/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A client of VFIO, for the tests and the measurements of the noiommu module.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 */
#ifndef CLIENT_H
#define CLIENT_H

#include "guest.h"

#include <linux/vfio.h>

#define UNSAFE	"/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"

struct client {
	int container;
	int group;
	int device;
};

#define NO_CLIENT { -1, -1, -1 }

static void client_close(struct client *c)
{
	if (c->device >= 0)
		close(c->device);
	if (c->group >= 0)
		close(c->group);
	if (c->container >= 0)
		close(c->container);
	*c = (struct client)NO_CLIENT;
}

/* Open the group's file and put it into the container */
static int client_group(int container, const char *bdf)
{
	int fd = open_group(bdf);

	if (fd < 0)
		return -errno;
	if (ioctl(fd, VFIO_GROUP_SET_CONTAINER, &container)) {
		int ret = -errno;

		close(fd);
		return ret;
	}
	return fd;
}

/* All that comes before attaching */
static int client_open(struct client *c, const char *bdf)
{
	*c = (struct client)NO_CLIENT;
	c->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (c->container < 0)
		return -errno;
	c->group = client_group(c->container, bdf);
	return c->group < 0 ? c->group : 0;
}

static int client_attach(struct client *c)
{
	return ioctl(c->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) ?
	       -errno : 0;
}

static int client_device(struct client *c, const char *bdf)
{
	c->device = ioctl(c->group, VFIO_GROUP_GET_DEVICE_FD, bdf);
	return c->device < 0 ? -errno : 0;
}

static int client_start(struct client *c, const char *bdf)
{
	int ret = client_open(c, bdf);

	return ret ?: client_attach(c) ?: client_device(c, bdf);
}

static int dma_map(struct client *c, void *p, uint64_t iova, uint64_t size)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)p,
		.iova = iova,
		.size = size,
	};

	return ioctl(c->container, VFIO_IOMMU_MAP_DMA, &map) ? -errno : 0;
}

static int64_t dma_unmap(struct client *c, uint64_t iova, uint64_t size)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = iova,
		.size = size,
	};

	if (ioctl(c->container, VFIO_IOMMU_UNMAP_DMA, &unmap))
		return -errno;
	return unmap.size;
}

#pragma GCC diagnostic pop

#endif /* CLIENT_H */
