// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * An IOMMU that shows up late, as far as the kernel's class of IOMMUs is
 * concerned: what virtio-iommu does when its module is loaded. It covers nothing.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 */

#include <linux/iommu.h>
#include <linux/module.h>

static struct iommu_device late;

static int __init late_init(void)
{
	return iommu_device_sysfs_add(&late, NULL, NULL, "late0");
}

static void __exit late_exit(void)
{
	iommu_device_sysfs_remove(&late);
}

module_init(late_init);
module_exit(late_exit);

MODULE_DESCRIPTION("An IOMMU that shows up late, for tests");
MODULE_LICENSE("GPL");
