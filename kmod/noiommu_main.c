// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * noiommu: VFIO for chosen PCI devices on hosts that have no IOMMU.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 *
 * This file holds the module's parameters, which are its interface; each part
 * has a file of its own.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/capability.h>
#include <linux/ctype.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/pci.h>
#include <linux/printk.h>
#include <linux/string.h>

#include "noiommu.h"

/* More than a host has PCI devices to give away */
#define NOIOMMU_MAX_DEVICES	256

static char *devices[NOIOMMU_MAX_DEVICES];
static unsigned int nr_devices;
/* Not in sysfs: the kernel prints an array of strings past the end of its page */
module_param_array(devices, charp, &nr_devices, 0);
MODULE_PARM_DESC(devices, "PCI devices to take at load: domain:bus:device.function, separated by commas");

static bool dpdk_pa_hint = true;
module_param(dpdk_pa_hint, bool, 0644);
MODULE_PARM_DESC(dpdk_pa_hint, "Give devices added from now on an attribute that makes DPDK on x86 use physical addresses (default: Y)");

/* Parameters on the module's command line are set before the parts are up */
static bool noiommu_up;

/* Read @min to @max hex digits and the @end that must follow them */
static const char *parse_hex(const char *s, int min, int max, char end,
			     unsigned int *value)
{
	int n;

	for (*value = 0, n = 0; n < max && isxdigit(s[n]); n++)
		*value = *value << 4 |
			 (isdigit(s[n]) ? s[n] - '0' : tolower(s[n]) - 'a' + 10);
	return n >= min && s[n] == end ? s + n + 1 : NULL;
}

/*
 * The full address as sysfs spells it, so that what is added is what was meant:
 * no default domain, no wildcards. Domains of more than four digits are real
 * (Intel VMD starts at 10000).
 */
static int parse_address(const char *s, unsigned int *domain,
			 unsigned int *bus, unsigned int *devfn)
{
	unsigned int slot, func;

	s = parse_hex(s, 4, 7, ':', domain);
	if (s)
		s = parse_hex(s, 2, 2, ':', bus);
	if (s)
		s = parse_hex(s, 2, 2, '.', &slot);
	if (s)
		s = parse_hex(s, 1, 1, '\0', &func);
	if (!s || slot > 0x1f || func > 7)
		return -EINVAL;

	*devfn = PCI_DEVFN(slot, func);
	return 0;
}

/* Find the device that @val, an address and maybe a newline, stands for */
static struct pci_dev *find_device(const char *val, const char *verb)
{
	unsigned int domain, bus, devfn;
	struct pci_dev *pdev;
	char address[20];
	int len = strcspn(val, "\n");

	if (!capable(CAP_SYS_RAWIO)) {
		pr_err_ratelimited("will not %s a device: the writer lacks CAP_SYS_RAWIO in the initial user namespace\n",
				   verb);
		return ERR_PTR(-EPERM);
	}

	if (len >= sizeof(address) || (val[len] && val[len + 1])) {
		pr_err("will not %s a device: expected one PCI address like 0000:01:00.0 and nothing else\n",
		       verb);
		return ERR_PTR(-EINVAL);
	}
	memcpy(address, val, len);
	address[len] = '\0';

	if (parse_address(address, &domain, &bus, &devfn)) {
		pr_err("will not %s '%*pE': not a PCI address like 0000:01:00.0\n",
		       verb, len, address);
		return ERR_PTR(-EINVAL);
	}

	pdev = pci_get_domain_bus_and_slot(domain, bus, devfn);
	if (!pdev) {
		pr_err("cannot %s %s: no such PCI device\n", verb, address);
		return ERR_PTR(-ENODEV);
	}
	return pdev;
}

static int add_device(const char *val)
{
	struct pci_dev *pdev = find_device(val, "add");
	int ret;

	if (IS_ERR(pdev))
		return PTR_ERR(pdev);

	ret = noiommu_iommu_add(pdev, dpdk_pa_hint);
	pci_dev_put(pdev);
	return ret;
}

static int remove_device(const char *val)
{
	struct pci_dev *pdev = find_device(val, "remove");
	int ret;

	if (IS_ERR(pdev))
		return PTR_ERR(pdev);

	ret = noiommu_iommu_remove(pdev);
	pci_dev_put(pdev);
	return ret;
}

static int noiommu_up_check(const char *name)
{
	if (noiommu_up)
		return 0;
	pr_err("'%s' is for a loaded module; name devices to take at load in 'devices'\n",
	       name);
	return -EINVAL;
}

static int add_set(const char *val, const struct kernel_param *kp)
{
	return noiommu_up_check("add") ?: add_device(val);
}

static int remove_set(const char *val, const struct kernel_param *kp)
{
	return noiommu_up_check("remove") ?: remove_device(val);
}

static const struct kernel_param_ops add_ops = { .set = add_set };
static const struct kernel_param_ops remove_ops = { .set = remove_set };

module_param_cb(add, &add_ops, NULL, 0200);
MODULE_PARM_DESC(add, "Write the address of a PCI device without a driver to put it into a group of its own");
module_param_cb(remove, &remove_ops, NULL, 0200);
MODULE_PARM_DESC(remove, "Write the address of an added PCI device without a driver to take it out again");

static int __init noiommu_init(void)
{
	unsigned int i;
	int ret;

	ret = noiommu_iommu_init();
	if (ret)
		return ret;

	ret = noiommu_pin_init();
	if (ret) {
		noiommu_iommu_exit();
		return ret;
	}

	/* One refused device must not keep the others, and the host, down */
	for (i = 0; i < nr_devices; i++)
		add_device(devices[i]);

	noiommu_up = true;
	return 0;
}

static void __exit noiommu_exit(void)
{
	noiommu_pin_exit();
	noiommu_iommu_exit();
}

module_init(noiommu_init);
module_exit(noiommu_exit);

MODULE_DESCRIPTION("VFIO for chosen PCI devices on hosts without an IOMMU: no isolation whatsoever");
MODULE_AUTHOR("baremetal.noiommu contributors");
MODULE_LICENSE("GPL");
MODULE_VERSION("1.0.0");
