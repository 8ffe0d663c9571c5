// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The least that a selftest of the kernel module does: start, load it, bind a device.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 */
#define _GNU_SOURCE
#include "../tests/kmod/guest.h"

int main(void)
{
	start("16", false);
	if (load("noiommu", "devices=" A))
		die("modules");
	expect(bind_vfio(A), 0, "bind vfio-pci");
	finish();
}
