// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The hint that makes DPDK use physical addresses.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 *
 * The rule: while the hint is on and at least one device is added, every PCI
 * device that no IOMMU covers has the attribute iommu/intel-iommu/cap, whose
 * content is not a hexadecimal number.
 *
 * DPDK on x86 reads the capabilities of an Intel IOMMU from this attribute. If it
 * exists but does not parse, DPDK concludes that the IOMMU cannot translate
 * virtual addresses and uses physical ones, the only ones that work here. It looks
 * at the first PCI device that it lists, which may be any device of the host, so
 * all devices need the attribute. It exists once, in this module's directory;
 * devices get links to it:
 *
 *  - an added device has an "iommu" link from the core, to its own node in
 *    /sys/class/iommu; that node gets the link "intel-iommu";
 *  - every other device gets the link "iommu". It puts the device into no group
 *    and does not change its DMA.
 *
 * The core cannot set up a device whose "iommu" link exists. So our link goes
 * before the core may need its place:
 *
 *  - when the device is added;
 *  - a new device gets its link only after the core has looked at it;
 *  - when another IOMMU appears in /sys/class/iommu, which is always before that
 *    is registered with the core, all links of this kind go.
 *
 * On other architectures DPDK does not look at the attribute, and only added
 * devices get it.
 *
 * Locking: noiommu_lock, then the lock of the iommu class, then hint_lock, then
 * the locks of sysfs.
 */

#include <linux/device.h>
#include <linux/hashtable.h>
#include <linux/iommu.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "compat.h"
#include "noiommu.h"

/**
 * struct hint - a link that this module made
 * @node: in hints
 * @dir: the directory that the link is in; a reference is held
 * @name: the name of the link
 */
struct hint {
	struct hlist_node node;
	struct kobject *dir;
	const char *name;
};

#define PCI_LINK	"iommu"
#define NODE_LINK	"intel-iommu"

/* Protects everything below, up to the kobjects */
static DEFINE_MUTEX(hint_lock);
static DEFINE_HASHTABLE(hints, 8);
/* New devices get a link */
static bool hint_active;
/* Number of IOMMUs in /sys/class/iommu that are not from this module */
static unsigned int foreign_iommus;

/* The targets of the links: no_iommu, and intel-iommu below it */
static struct kobject *no_iommu, *capabilities;

static ssize_t cap_show(struct kobject *kobj, struct kobj_attribute *attr,
			char *buf)
{
	return sysfs_emit(buf, "noiommu: no translation, use physical addresses\n");
}

static struct kobj_attribute cap_attr = __ATTR_RO(cap);

static struct hint *find_hint(const struct kobject *dir)
{
	struct hint *hint;

	hash_for_each_possible(hints, hint, node, (unsigned long)dir) {
		if (hint->dir == dir)
			return hint;
	}
	return NULL;
}

static void make_hint(struct device *dev, const char *name,
		      struct kobject *target)
{
	struct kobject *dir = &dev->kobj;
	struct hint *hint;
	int ret;

	if (find_hint(dir))
		return;

	hint = kmalloc(sizeof(*hint), GFP_KERNEL);
	ret = hint ? sysfs_create_link_nowarn(dir, target, name) : -ENOMEM;
	if (ret) {
		kfree(hint);
		/* A link that exists is a real IOMMU's: leave it */
		if (ret != -EEXIST)
			dev_warn(dev, "%s: no hint for DPDK (error %d)\n",
				 KBUILD_MODNAME, ret);
		return;
	}
	hint->dir = kobject_get(dir);
	hint->name = name;
	hash_add(hints, &hint->node, (unsigned long)dir);
}

static void drop_hint(struct hint *hint)
{
	hash_del(&hint->node);
	/* If the directory is gone, so is the link */
	if (hint->dir->state_in_sysfs)
		sysfs_remove_link(hint->dir, hint->name);
	kobject_put(hint->dir);
	kfree(hint);
}

static void make_pci_hint(struct pci_dev *pdev)
{
	if (!device_iommu_mapped(&pdev->dev))
		make_hint(&pdev->dev, PCI_LINK, no_iommu);
}

static void drop_pci_hints(void)
{
	struct hlist_node *next;
	struct hint *hint;
	int i;

	hash_for_each_safe(hints, i, next, hint, node) {
		if (!strcmp(hint->name, PCI_LINK))
			drop_hint(hint);
	}
}

/* Other IOMMUs */

/* These cover added devices only, whose links were removed before */
static bool is_ours(struct device *iommu)
{
	return strstarts(dev_name(iommu), KBUILD_MODNAME "-");
}

static int iommu_appears(NOIOMMU_CLASS_ARGS)
{
	if (is_ours(dev))
		return 0;

	mutex_lock(&hint_lock);
	foreign_iommus++;
	hint_active = false;
	drop_pci_hints();
	mutex_unlock(&hint_lock);
	return 0;
}

static void iommu_goes(NOIOMMU_CLASS_ARGS)
{
	if (is_ours(dev))
		return;

	mutex_lock(&hint_lock);
	foreign_iommus--;
	mutex_unlock(&hint_lock);
}

static struct class_interface watcher = {
	.add_dev	= iommu_appears,
	.remove_dev	= iommu_goes,
};

/**
 * noiommu_hint_watch() - begin to watch for other IOMMUs
 * @iommu: a node of this module in the class of all IOMMUs; the class itself is
 *	not exported
 *
 * The caller holds noiommu_lock. There are no hints before the first call.
 *
 * Return: 0 or an error.
 */
int noiommu_hint_watch(struct device *iommu)
{
	int ret;

	if (watcher.class)
		return 0;
	watcher.class = iommu->class;
	ret = class_interface_register(&watcher);
	if (ret)
		watcher.class = NULL;
	return ret;
}

/* Giving and removing hints */

/**
 * noiommu_hint_on() - give the hint to all PCI devices that no IOMMU covers
 *
 * No device may come or go meanwhile. Devices that come later get theirs from
 * noiommu_hint_give().
 */
void noiommu_hint_on(void)
{
	struct pci_dev *pdev = NULL;

	mutex_lock(&hint_lock);
	if (IS_ENABLED(CONFIG_X86) && !hint_active && !foreign_iommus) {
		hint_active = true;
		for_each_pci_dev(pdev)
			make_pci_hint(pdev);
	}
	mutex_unlock(&hint_lock);
}

/**
 * noiommu_hint_off() - remove all hints
 */
void noiommu_hint_off(void)
{
	struct hlist_node *next;
	struct hint *hint;
	int i;

	mutex_lock(&hint_lock);
	hint_active = false;
	hash_for_each_safe(hints, i, next, hint, node)
		drop_hint(hint);
	mutex_unlock(&hint_lock);
}

/**
 * noiommu_hint_give() - give the hint to a PCI device, if hints are on
 * @pdev: the device, which the core has looked at already
 */
void noiommu_hint_give(struct pci_dev *pdev)
{
	mutex_lock(&hint_lock);
	if (hint_active)
		make_pci_hint(pdev);
	mutex_unlock(&hint_lock);
}

/**
 * noiommu_hint_mark() - give the hint to an added device
 * @iommu: the node of its IOMMU
 */
void noiommu_hint_mark(struct device *iommu)
{
	mutex_lock(&hint_lock);
	make_hint(iommu, NODE_LINK, capabilities);
	mutex_unlock(&hint_lock);
}

/**
 * noiommu_hint_drop() - remove the hint of one device
 * @dev: a PCI device that the core is about to look at, or that goes; or the node
 *	of an IOMMU that goes
 */
void noiommu_hint_drop(struct device *dev)
{
	struct hint *hint;

	mutex_lock(&hint_lock);
	hint = find_hint(&dev->kobj);
	if (hint)
		drop_hint(hint);
	mutex_unlock(&hint_lock);
}

int noiommu_hint_init(void)
{
	int ret = -ENOMEM;

	no_iommu = kobject_create_and_add("no_iommu", &THIS_MODULE->mkobj.kobj);
	if (!no_iommu)
		return ret;

	capabilities = kobject_create_and_add(NODE_LINK, no_iommu);
	if (capabilities)
		ret = sysfs_create_file(capabilities, &cap_attr.attr);
	if (ret) {
		kobject_put(capabilities);
		kobject_put(no_iommu);
	}
	return ret;
}

/* No device is added any more, so there are no hints */
void noiommu_hint_exit(void)
{
	if (watcher.class)
		class_interface_unregister(&watcher);
	kobject_put(capabilities);
	kobject_put(no_iommu);
}
