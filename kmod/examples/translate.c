// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Pin a buffer for a PCI device and print where the device finds it.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 *
 * cc -Wall translate.c -o translate && ./translate 0000:01:00.0 [MiB]
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../include/uapi/noiommu.h"

int main(int argc, char **argv)
{
	struct noiommu_map map = { .size = sizeof(map), .num_extents = 64 };
	struct noiommu_unmap unmap = { .size = sizeof(unmap) };
	struct noiommu_extent *extents = NULL;
	unsigned int segment, bus, device, function;
	void *buf;
	int fd;

	if (argc < 2 || sscanf(argv[1], "%x:%x:%x.%x", &segment, &bus, &device,
			       &function) != 4) {
		fprintf(stderr, "usage: %s SEGMENT:BUS:DEVICE.FUNCTION [MiB]\n",
			argv[0]);
		return 2;
	}
	map.segment = segment;
	map.bus = bus;
	map.device = device;
	map.function = function;
	map.length = (argc > 2 ? strtoull(argv[2], NULL, 0) : 1) << 20;

	/* Closing it unpins, so no program started by exec() may inherit it */
	fd = open("/dev/noiommu", O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		perror("/dev/noiommu");
		return 1;
	}

	buf = mmap(NULL, map.length, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buf == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	map.user_va = (uintptr_t)buf;

	/* The number of extents is known only once the memory is pinned */
	do {
		extents = realloc(extents, map.num_extents * sizeof(*extents));
		if (!extents) {
			perror("realloc");
			return 1;
		}
		map.extents = (uintptr_t)extents;
		if (!ioctl(fd, NOIOMMU_MAP, &map))
			break;
		if (errno != EMSGSIZE) {
			perror("NOIOMMU_MAP");
			return 1;
		}
	} while (1);

	for (__u32 i = 0; i < map.num_extents; i++)
		printf("0x%llx %llu\n", (unsigned long long)extents[i].addr,
		       (unsigned long long)extents[i].length);

	/* Here a driver would start the device, and stop it before it goes on */
	unmap.user_va = map.user_va;
	unmap.length = map.length;
	if (ioctl(fd, NOIOMMU_UNMAP, &unmap))
		perror("NOIOMMU_UNMAP");
	close(fd);
	free(extents);
	return 0;
}
