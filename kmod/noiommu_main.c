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
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "noiommu.h"

/* From the command line until they have been added */
static char *devices;
static bool dpdk_pa_hint = true;

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

	ret = noiommu_iommu_add(pdev);
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
	if (smp_load_acquire(&noiommu_up)) /* pairs with noiommu_init() */
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

static int hint_set(const char *val, const struct kernel_param *kp)
{
	bool up = smp_load_acquire(&noiommu_up); /* pairs with noiommu_init() */
	int ret;

	if (up && !capable(CAP_SYS_RAWIO))
		return -EPERM;
	ret = param_set_bool(val, kp);
	if (!ret && up)
		noiommu_iommu_set_hint(dpdk_pa_hint);
	return ret;
}

/* The kernel's own types have limits: 1024 characters, or a number of strings */
static int devices_set(const char *val, const struct kernel_param *kp)
{
	kfree(devices);
	devices = kstrdup(val, GFP_KERNEL);
	return devices ? 0 : -ENOMEM;
}

/* "+0000:01:00.0 2" names BAR 2, with a minus it is named no longer */
static int wc_set(const char *val, const struct kernel_param *kp)
{
	int ret = noiommu_up_check("write_combining");
	char address[20];
	struct pci_dev *pdev;
	size_t len;
	bool on;

	if (ret)
		return ret;

	on = *val == '+';
	len = *val ? strcspn(val + 1, " ") : 0;
	if ((!on && *val != '-') || len >= sizeof(address) ||
	    val[1 + len] != ' ' || val[2 + len] < '0' || val[2 + len] > '5' ||
	    strcmp(val + 3 + len, val[3 + len] == '\n' ? "\n" : "")) {
		pr_err("expected + or -, a PCI address, a space and the number of a BAR, like +0000:01:00.0 2\n");
		return -EINVAL;
	}
	memcpy(address, val + 1, len);
	address[len] = '\0';

	pdev = find_device(address, "write-combine");
	if (IS_ERR(pdev))
		return PTR_ERR(pdev);
	ret = noiommu_wc_set(pdev, val[2 + len] - '0', on);
	pci_dev_put(pdev);
	return ret;
}

static int wc_get(char *buffer, const struct kernel_param *kp)
{
	return noiommu_wc_show(buffer);
}

/* The kernel calls it for the command line, whatever the mode is */
static int held_set(const char *val, const struct kernel_param *kp)
{
	return -EPERM;
}

static int held_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%llu\n", noiommu_pin_held());
}

static const struct kernel_param_ops hint_ops = {
	.flags	= KERNEL_PARAM_OPS_FL_NOARG,
	.set	= hint_set,
	.get	= param_get_bool,
};

static const struct kernel_param_ops devices_ops = { .set = devices_set };
static const struct kernel_param_ops add_ops = { .set = add_set };
static const struct kernel_param_ops remove_ops = { .set = remove_set };
static const struct kernel_param_ops wc_ops = { .set = wc_set, .get = wc_get };
static const struct kernel_param_ops held_ops = { .set = held_set, .get = held_get };

/* Not in sysfs: it is about loading */
module_param_cb(devices, &devices_ops, NULL, 0);
__MODULE_PARM_TYPE(devices, "string");
MODULE_PARM_DESC(devices, "PCI devices to take at load: domain:bus:device.function, separated by commas");
module_param_cb(dpdk_pa_hint, &hint_ops, &dpdk_pa_hint, 0644);
__MODULE_PARM_TYPE(dpdk_pa_hint, "bool");
MODULE_PARM_DESC(dpdk_pa_hint, "While a device is added, give all PCI devices without an IOMMU an attribute that makes DPDK on x86 use physical addresses (default: Y)");
module_param_cb(add, &add_ops, NULL, 0200);
MODULE_PARM_DESC(add, "Write the address of a PCI device without a driver to put it into a group of its own");
module_param_cb(remove, &remove_ops, NULL, 0200);
MODULE_PARM_DESC(remove, "Write the address of an added PCI device without a driver to take it out again");
module_param_cb(write_combining, &wc_ops, NULL, 0600);
MODULE_PARM_DESC(write_combining, "Write +ADDRESS BAR to have vfio-pci map a BAR write-combined, -ADDRESS BAR to have it no longer; lists what was named");
module_param_cb(held, &held_ops, NULL, 0444);
MODULE_PARM_DESC(held, "Bytes of closed files of /dev/noiommu that stay pinned until devices are given back");

static int __init noiommu_init(void)
{
	char *rest, *address;
	int ret;

	noiommu_use_init(noiommu_pin_settle);
	ret = noiommu_hint_init();
	if (ret)
		goto err_devices;

	ret = noiommu_iommu_init();
	if (ret)
		goto err_hint;

	ret = noiommu_pin_init();
	if (ret)
		goto err_iommu;

	ret = noiommu_wc_init();
	if (ret)
		goto err_pin;

	noiommu_iommu_set_hint(dpdk_pa_hint);
	/* One refused device must not keep the others, and the host, down */
	rest = devices;
	while ((address = strsep(&rest, ",")))
		add_device(address);
	kfree(devices);
	devices = NULL;

	smp_store_release(&noiommu_up, true); /* sysfs is there already */
	return 0;

err_pin:
	noiommu_pin_exit();
err_iommu:
	noiommu_iommu_exit();
err_hint:
	noiommu_hint_exit();
err_devices:
	kfree(devices);
	return ret;
}

static void __exit noiommu_exit(void)
{
	noiommu_wc_exit();
	noiommu_pin_exit();
	noiommu_iommu_exit();
	noiommu_hint_exit();
}

module_init(noiommu_init);
module_exit(noiommu_exit);

MODULE_DESCRIPTION("VFIO for chosen PCI devices on hosts without an IOMMU: no isolation whatsoever");
MODULE_AUTHOR("baremetal.noiommu contributors");
MODULE_LICENSE("GPL");
MODULE_VERSION("1.0.0");
