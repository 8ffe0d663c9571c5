// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * VFIO's character devices and iommufd, which need no group and no container. Runs
 * as the first process of a small virtual machine, see tests/kmod/run, on a kernel
 * with CONFIG_VFIO_DEVICE_CDEV, and prints TAP on the console.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 */
#define _GNU_SOURCE
#include "client.h"

#include "include/uapi/noiommu.h"

#include <signal.h>

#define TAINT_USER	(1 << 6)
#define IOMMUFD_UNSAFE	"/sys/module/iommufd/parameters/allow_unsafe_interrupts"
#define RESTARTS	100

/* The headers of the machine that compiles this may be older than these calls */
struct bind_iommufd {
	uint32_t argsz;
	uint32_t flags;
	int32_t iommufd;
	uint32_t out_devid;
};

struct attach_pt {
	uint32_t argsz;
	uint32_t flags;
	uint32_t pt_id;
};

struct ioas_alloc {
	uint32_t size;
	uint32_t flags;
	uint32_t out_ioas_id;
};

struct ioas_map {
	uint32_t size;
	uint32_t flags;
	uint32_t ioas_id;
	uint32_t reserved;
	uint64_t user_va;
	uint64_t length;
	uint64_t iova;
};

struct ioas_unmap {
	uint32_t size;
	uint32_t ioas_id;
	uint64_t iova;
	uint64_t length;
};

#define BIND_IOMMUFD	_IO(VFIO_TYPE, VFIO_BASE + 18)
#define ATTACH_PT	_IO(VFIO_TYPE, VFIO_BASE + 19)
#define IOAS_ALLOC	_IO(VFIO_TYPE, 0x81)
#define IOAS_MAP	_IO(VFIO_TYPE, 0x85)
#define IOAS_UNMAP	_IO(VFIO_TYPE, 0x86)
#define IOAS_FLAGS	(1 | 2 | 4)	/* fixed IOVA, writable, readable */

struct cdev {
	int device;
	int iommufd;
	uint32_t ioas;
};

static int cdev_open(struct cdev *c)
{
	char path[PATH_MAX];
	struct dirent *e;
	DIR *dir;

	*c = (struct cdev){ -1, -1, 0 };
	dir = opendir(PCI "devices/" A "/vfio-dev");
	while (dir && (e = readdir(dir))) {
		if (strncmp(e->d_name, "vfio", 4))
			continue;
		snprintf(path, sizeof(path), "/dev/vfio/devices/%s", e->d_name);
		c->device = open(path, O_RDWR | O_CLOEXEC);
	}
	if (dir)
		closedir(dir);
	c->iommufd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	return c->device < 0 || c->iommufd < 0 ? -E2BIG : 0;
}

static int cdev_bind(struct cdev *c)
{
	struct bind_iommufd bind = { .argsz = sizeof(bind), .iommufd = c->iommufd };

	return ioctl(c->device, BIND_IOMMUFD, &bind) ? -errno : 0;
}

static int cdev_attach(struct cdev *c)
{
	struct ioas_alloc alloc = { .size = sizeof(alloc) };
	struct attach_pt attach = { .argsz = sizeof(attach) };

	if (ioctl(c->iommufd, IOAS_ALLOC, &alloc))
		return -errno;
	c->ioas = alloc.out_ioas_id;
	attach.pt_id = c->ioas;
	return ioctl(c->device, ATTACH_PT, &attach) ? -errno : 0;
}

static int cdev_map(struct cdev *c, void *p, uint64_t iova, uint64_t length)
{
	struct ioas_map map = {
		.size = sizeof(map),
		.flags = IOAS_FLAGS,
		.ioas_id = c->ioas,
		.user_va = (uintptr_t)p,
		.length = length,
		.iova = iova,
	};

	return ioctl(c->iommufd, IOAS_MAP, &map) ? -errno : 0;
}

static int cdev_unmap(struct cdev *c, uint64_t iova, uint64_t length)
{
	struct ioas_unmap unmap = {
		.size = sizeof(unmap),
		.ioas_id = c->ioas,
		.iova = iova,
		.length = length,
	};

	return ioctl(c->iommufd, IOAS_UNMAP, &unmap) ? -errno : 0;
}

static void cdev_close(struct cdev *c)
{
	close(c->device);
	close(c->iommufd);
}

static int claim(void *arg)
{
	struct cdev c;

	(void)arg;
	return cdev_open(&c) ?: cdev_bind(&c);
}

static void test_claim(void)
{
	char name[64];
	struct cdev c;

	log_skip();
	expect(in_child(claim, NULL, AS_NO_RAWIO), -EPERM,
	       "claim without CAP_SYS_RAWIO, though both files could be opened");
	ok(logged(A, "lacks CAP_SYS_RAWIO"), "log: refused");
	expect(in_child(claim, NULL, AS_USERNS), -EPERM, "claim from a user namespace");
	ok(!(taint() & TAINT_USER), "no taint yet");

	log_skip();
	snprintf(name, sizeof(name), "handed to selftest[%d]", getpid());
	expect(cdev_open(&c), 0, "open the device's file");
	ok(!(taint() & TAINT_USER) && says(DEBUG "devices", " unused"), "which is no use yet");
	expect(cdev_bind(&c), 0, "claim");
	ok(taint() & TAINT_USER, "the kernel is tainted (%lu)", taint());
	ok(logged(A, name), "log: who did it");
	snprintf(name, sizeof(name), " used by selftest[%d] for ", getpid());
	ok(says(DEBUG "devices", name), "debugfs: who did it");
	expect(del(A), -EBUSY, "remove while in use");
	expect(unload("noiommu"), -EAGAIN, "rmmod while in use");
	cdev_close(&c);
	ok(says(DEBUG "devices", " unused"), "closed, it is unused");
}

static void test_map(void)
{
	void *p = huge_page();
	uint64_t phys = phys_of(p);
	long before = pinned();
	struct cdev c;

	expect(cdev_open(&c) ?: cdev_bind(&c), 0, "claim");
	log_skip();
	expect(cdev_attach(&c), 0, "attach an address space");
	expect(cdev_map(&c, p, phys, HUGE), 0, "map at IOVA = physical");
	ok(pinned() > before, "the memory is pinned");
	expect(cdev_unmap(&c, phys, HUGE), 0, "unmap");
	expect(cdev_map(&c, p, phys + HUGE, HUGE), -EINVAL, "map one huge page off");
	expect(cdev_map(&c, p, phys - PAGE, HUGE), -EINVAL, "map one page below");
	expect(cdev_map(&c, p, 64 * GIB, HUGE), -EINVAL, "map far above");
	ok(pinned() == before, "a refused map pins nothing (%ld pages, were %ld)", pinned(), before);
	expect(cdev_map(&c, p, phys, HUGE), 0, "map again");
	ioctl(c.device, VFIO_DEVICE_RESET);
	ok(!logged(A, "handed to"), "attaching and a reset are part of the use");
	cdev_close(&c);
	ok(pinned() == before, "all is back (%ld pages, were %ld)", pinned(), before);
	munmap(p, HUGE);
}

/* A service that is killed and started again at once finds all its memory */
static void test_restart(void)
{
	long n, missing = 0, broken = 0, all = huge_free();

	for (n = 0; n < RESTARTS; n++) {
		int pipes[2];
		char byte;
		pid_t pid;

		if (pipe(pipes))
			die("pipe");
		pid = fork();
		if (!pid) {
			struct noiommu_extent extents[4];
			struct noiommu_map map = {
				.size = sizeof(map), .device = 2, .length = HUGE,
				.user_va = (uintptr_t)huge_page(),
				.extents = (uintptr_t)extents, .num_extents = 4,
			};
			struct cdev c;
			int fd = -1;

			if (n % 2)
				fd = open("/dev/noiommu", O_RDWR | O_CLOEXEC);
			if (cdev_open(&c) || cdev_bind(&c) || cdev_attach(&c))
				_exit(1);
			if (fd < 0)
				fd = open("/dev/noiommu", O_RDWR | O_CLOEXEC);
			if (ioctl(fd, NOIOMMU_MAP, &map))
				_exit(2);
			if (write(pipes[1], "x", 1) == 1)
				pause();
			_exit(3);
		}
		close(pipes[1]);
		broken += read(pipes[0], &byte, 1) != 1;
		close(pipes[0]);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		missing += huge_free() != all;
	}
	ok(!missing && !broken, "%ld of %ld restarts after a kill find pages missing, %ld fail",
	   missing, n, broken);
}

int main(void)
{
	start("16", false);
	prctl(PR_SET_NAME, "selftest");
	if (put(IOMMUFD_UNSAFE, "Y") || load("noiommu", "devices=" A))
		die("modules");
	ok(!bind_vfio(A), "bind vfio-pci");
	ok(there(PCI "devices/" A "/vfio-dev"), "the device has a file of its own");
	test_claim();
	test_map();
	test_restart();
	ok(!unbind_vfio(A) && !del(A) && !unload("noiommu"),
	   "the device and the module can be taken away");
	ok(!(taint() & TAINT_BUGS), "the kernel has not complained");
	finish();
}
