/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the measurements share besides what they have of the tests.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 */
#ifndef MEASURE_H
#define MEASURE_H

#include "../tests/kmod/guest.h"

#include <linux/io_uring.h>
#include <sys/uio.h>

static double now_ns(void)
{
	return now() * 1e9;
}

/* What took longer had something else on the processor */
static void least(double *best, double value)
{
	if (value < *best)
		*best = value;
}

/* ns to pin a buffer and no more: io_uring does it with the same function */
static double pin_only(void *p, uint64_t length)
{
	struct io_uring_params params = { 0 };
	struct iovec iov = { p, length };
	int ring = syscall(SYS_io_uring_setup, 1, &params);
	double start;

	if (ring < 0)
		die("io_uring_setup");
	start = now_ns();
	if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &iov, 1))
		die("io_uring_register");
	start = now_ns() - start;
	/* Closing it would do that later */
	syscall(SYS_io_uring_register, ring, IORING_UNREGISTER_BUFFERS, NULL, 0);
	close(ring);
	return start;
}

#endif /* MEASURE_H */
