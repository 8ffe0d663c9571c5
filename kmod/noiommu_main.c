// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * noiommu: VFIO for chosen PCI devices on hosts that have no IOMMU.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 *
 * This file holds the module's parameters, which are its interface, and connects
 * its parts, each of which has a file of its own.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/capability.h>
#include <linux/ctype.h>
#include <linux/debugfs.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/pci.h>
#include <linux/printk.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "noiommu.h"

#define CREATE_TRACE_POINTS
#include "noiommu_trace.h"

/* The list from the command line, until its devices have been added */
static char *devices;
static bool dpdk_pa_hint = true;

/* Parameters on the module's command line are set before the parts are up */
static bool noiommu_up;

static struct dentry *debug_dir;

/* Read @min to @max hex digits, which @end must follow */
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
 * Take nothing but a full address as sysfs spells it, without a default domain or
 * wildcards, so that no other device is added than the one that was meant. Domains
 * may have more than four digits: those of Intel VMD start at 10000.
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

/* Find the device with the address @val, which may end with a newline */
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

/* One device that is refused must not keep the others, and the host, down */
static int __init add_list(char *list)
{
	struct pci_dev **pdevs;
	unsigned int n = 0;
	char *address;

	/* The shortest address has 12 characters */
	pdevs = kvcalloc(strlen(list) / 12 + 1, sizeof(*pdevs), GFP_KERNEL);
	if (!pdevs)
		return -ENOMEM;
	while ((address = strsep(&list, ","))) {
		struct pci_dev *pdev = find_device(address, "add");

		if (!IS_ERR(pdev))
			pdevs[n++] = pdev;
	}
	noiommu_iommu_add_list(pdevs, n);
	while (n--)
		pci_dev_put(pdevs[n]);
	kvfree(pdevs);
	return 0;
}

static int check_up(const char *name)
{
	if (smp_load_acquire(&noiommu_up)) /* pairs with noiommu_init() */
		return 0;
	pr_err("'%s' is for a loaded module; use 'devices' for devices to add at load\n",
	       name);
	return -EINVAL;
}

static int change_device(const char *val, const char *verb,
			 int (*change)(struct pci_dev *pdev))
{
	struct pci_dev *pdev;
	int ret;

	ret = check_up(verb);
	if (ret)
		return ret;
	pdev = find_device(val, verb);
	if (IS_ERR(pdev))
		return PTR_ERR(pdev);

	ret = change(pdev);
	pci_dev_put(pdev);
	return ret;
}

static int add_set(const char *val, const struct kernel_param *kp)
{
	return change_device(val, "add", noiommu_iommu_add);
}

static int remove_set(const char *val, const struct kernel_param *kp)
{
	return change_device(val, "remove", noiommu_iommu_remove);
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

/* Also called when the load fails, and when the module is unloaded */
static void devices_free(void *arg)
{
	kfree(devices);
	devices = NULL;
}

/* charp and arrays are limited: to 1024 characters, or to a number of strings */
static int devices_set(const char *val, const struct kernel_param *kp)
{
	devices_free(NULL);
	devices = kstrdup(val, GFP_KERNEL);
	return devices ? 0 : -ENOMEM;
}

/* "+0000:01:00.0 2" names BAR 2, "-0000:01:00.0 2" removes it from the list */
static int wc_set(const char *val, const struct kernel_param *kp)
{
	int ret = check_up("write_combining");
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

/* The command line reaches read-only parameters, too */
static int held_set(const char *val, const struct kernel_param *kp)
{
	return -EPERM;
}

static int held_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%llu\n", noiommu_pin_held());
}

static int held_max_set(const char *val, const struct kernel_param *kp)
{
	bool up = smp_load_acquire(&noiommu_up); /* pairs with noiommu_init() */
	unsigned long long bytes;
	char *end;

	if (up && !capable(CAP_SYS_RAWIO))
		return -EPERM;
	if (!isdigit(*val))
		return -EINVAL;
	bytes = memparse(val, &end);
	if (strcmp(end, *end == '\n' ? "\n" : ""))
		return -EINVAL;
	noiommu_pin_set_held_max(bytes);
	return 0;
}

static int held_max_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%llu\n", noiommu_pin_held_max());
}

static const struct kernel_param_ops hint_ops = {
	.flags	= KERNEL_PARAM_OPS_FL_NOARG,
	.set	= hint_set,
	.get	= param_get_bool,
};

static const struct kernel_param_ops devices_ops = {
	.set	= devices_set,
	.free	= devices_free,
};

static const struct kernel_param_ops add_ops = { .set = add_set };
static const struct kernel_param_ops remove_ops = { .set = remove_set };
static const struct kernel_param_ops wc_ops = { .set = wc_set, .get = wc_get };
static const struct kernel_param_ops held_ops = { .set = held_set, .get = held_get };
static const struct kernel_param_ops held_max_ops = {
	.set	= held_max_set,
	.get	= held_max_get,
};

/* Not in sysfs, since it has no meaning after the load */
module_param_cb(devices, &devices_ops, NULL, 0);
__MODULE_PARM_TYPE(devices, "string");
MODULE_PARM_DESC(devices, "PCI devices to add at load: domain:bus:device.function, separated by commas");
module_param_cb(dpdk_pa_hint, &hint_ops, &dpdk_pa_hint, 0644);
__MODULE_PARM_TYPE(dpdk_pa_hint, "bool");
MODULE_PARM_DESC(dpdk_pa_hint, "While a device is added, give all PCI devices without an IOMMU an attribute that makes DPDK on x86 use physical addresses (default: Y)");
module_param_cb(add, &add_ops, NULL, 0200);
MODULE_PARM_DESC(add, "Write the address of a PCI device without a driver to put it into a group of its own");
module_param_cb(remove, &remove_ops, NULL, 0200);
MODULE_PARM_DESC(remove, "Write the address of an added PCI device without a driver to remove its group");
module_param_cb(write_combining, &wc_ops, NULL, 0600);
MODULE_PARM_DESC(write_combining, "Write '+ADDRESS BAR' to have vfio-pci map a BAR write-combined, '-ADDRESS BAR' to undo that; lists the BARs that were named");
module_param_cb(held, &held_ops, NULL, 0444);
MODULE_PARM_DESC(held, "Bytes of closed files of /dev/noiommu that stay pinned until devices are released");
module_param_cb(held_max, &held_max_ops, NULL, 0644);
__MODULE_PARM_TYPE(held_max, "ullong");
MODULE_PARM_DESC(held_max, "While 'held' is more than this, /dev/noiommu maps nothing: bytes, or a number with K, M or G (default: half of the memory)");

static int __init noiommu_init(void)
{
	int ret;

	/* No errors to check: without debugfs there are just no files */
	debug_dir = debugfs_create_dir(KBUILD_MODNAME, NULL);
	noiommu_use_init(noiommu_pin_settle);
	ret = noiommu_hint_init();
	if (ret)
		goto err_debug;

	ret = noiommu_iommu_init(debug_dir);
	if (ret)
		goto err_hint;

	ret = noiommu_pin_init(noiommu_iommu_reach, debug_dir);
	if (ret)
		goto err_iommu;

	ret = noiommu_wc_init();
	if (ret)
		goto err_pin;

	noiommu_iommu_set_hint(dpdk_pa_hint);
	if (devices) {
		ret = add_list(devices);
		if (ret)
			goto err_wc;
		devices_free(NULL);
	}

	smp_store_release(&noiommu_up, true); /* its sysfs files exist already */
	return 0;

err_wc:
	noiommu_wc_exit();
err_pin:
	noiommu_pin_exit();
err_iommu:
	noiommu_iommu_exit();
err_hint:
	noiommu_hint_exit();
err_debug:
	debugfs_remove(debug_dir);
	return ret;
}

static void __exit noiommu_exit(void)
{
	noiommu_wc_exit();
	noiommu_pin_exit();
	noiommu_iommu_exit();
	noiommu_hint_exit();
	debugfs_remove(debug_dir);
}

module_init(noiommu_init);
module_exit(noiommu_exit);

MODULE_DESCRIPTION("VFIO for chosen PCI devices on hosts without an IOMMU: no isolation whatsoever");
MODULE_AUTHOR("baremetal.noiommu contributors");
MODULE_LICENSE("GPL");
MODULE_VERSION("1.0.0");
