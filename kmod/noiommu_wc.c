// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Write combining for the memory of devices that vfio-pci hands out.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 *
 * The rule: while vfio-pci is bound to a device, the BARs that the administrator
 * has named are mapped write-combined, whoever maps them.
 *
 * vfio-pci maps all BARs uncached. But x86 tracks the memory types of all device
 * memory and does not let two mappings differ: whoever maps a range for which
 * another type is reserved gets that type. So each BAR is reserved as
 * write-combined before vfio-pci probes the device, and freed after vfio-pci has
 * released it. Other architectures track no memory types.
 *
 * If a mapping exists already, the reservation silently adopts its type. So BARs
 * are reserved only while no driver is bound, and a test mapping shows which type
 * they got.
 *
 * A BAR that is named must hold data only. If it holds registers that must be
 * written in order or one by one, write combining breaks the device. The kernel
 * only knows whether a BAR is prefetchable, and where the MSI-X table is; the rest
 * is up to the administrator.
 *
 * This is independent of the dummy IOMMU and works beside a real one, too.
 *
 * Locking: device lock of the PCI device, which the callers of the notifiers hold,
 * then wc_lock.
 */

#define dev_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/device.h>
#include <linux/io.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/sysfs.h>

#include "noiommu.h"
#include "noiommu_trace.h"

/**
 * struct wc_bar - a BAR that was named
 * @entry: in wc_bars
 * @pdev: its device; a reference is held
 * @bar: its number
 * @start: its address, while it is reserved
 * @size: its size; 0 while it is not reserved
 */
struct wc_bar {
	struct list_head entry;
	struct pci_dev *pdev;
	int bar;
	resource_size_t start;
	resource_size_t size;
};

/* Protects the list and its entries */
static DEFINE_MUTEX(wc_lock);
static LIST_HEAD(wc_bars);

#ifdef CONFIG_X86
#include <asm/memtype.h>

static bool wc_possible(void)
{
	return pat_enabled();
}

/* Does a mapping that asks for no particular type become write-combined? */
static bool maps_write_combined(resource_size_t start)
{
	void __iomem *p = ioremap(start, PAGE_SIZE);
	unsigned int level;
	bool wc = false;
	pte_t *pte;

	if (!p)
		return false;
	pte = lookup_address((unsigned long)p, &level);
	if (pte && level == PG_LEVEL_4K)
		wc = (pte_val(*pte) & _PAGE_CACHE_MASK) ==
		     cachemode2protval(_PAGE_CACHE_MODE_WC);
	iounmap(p);
	return wc;
}
#else
static bool wc_possible(void)
{
	return false;
}

static bool maps_write_combined(resource_size_t start)
{
	return false;
}
#endif

static bool is_vfio_pci(struct device *dev)
{
	return dev->driver && !strcmp(dev->driver->name, "vfio-pci");
}

/* Is the MSI-X table, or its array of pending bits, in this BAR? */
static bool has_msix(struct pci_dev *pdev, int bar)
{
	u32 table, pba;

	if (!pdev->msix_cap)
		return false;
	if (pci_read_config_dword(pdev, pdev->msix_cap + PCI_MSIX_TABLE, &table) ||
	    pci_read_config_dword(pdev, pdev->msix_cap + PCI_MSIX_PBA, &pba) ||
	    PCI_POSSIBLE_ERROR(table) || PCI_POSSIBLE_ERROR(pba))
		return true;
	return (table & PCI_MSIX_TABLE_BIR) == bar || (pba & PCI_MSIX_PBA_BIR) == bar;
}

/* Return why a whole BAR cannot be write-combined, or NULL if it can */
static const char *find_objection(struct pci_dev *pdev, int bar)
{
	const struct resource *res = &pdev->resource[bar];

	if (!(res->flags & IORESOURCE_MEM) || res->flags & IORESOURCE_UNSET ||
	    !resource_size(res))
		return "it is no memory, or has no address";
	if (!(res->flags & IORESOURCE_PREFETCH))
		return "it is not prefetchable, so that it holds registers";
	if (!PAGE_ALIGNED(res->start | resource_size(res)))
		return "it is not made of whole pages";
	if (has_msix(pdev, bar))
		return "the MSI-X table is in it";
	return NULL;
}

static void reserve_bar(struct wc_bar *wc)
{
	struct pci_dev *pdev = wc->pdev;
	const char *objection = find_objection(pdev, wc->bar);
	resource_size_t start = pci_resource_start(pdev, wc->bar);
	resource_size_t size = pci_resource_len(pdev, wc->bar);

	if (!objection && arch_io_reserve_memtype_wc(start, size))
		objection = "another type is reserved for it";
	if (objection) {
		pci_err(pdev, "BAR %d is not write-combined: %s\n", wc->bar, objection);
		return;
	}
	if (!maps_write_combined(start)) {
		arch_io_free_memtype_wc(start, size);
		pci_err(pdev, "BAR %d is not write-combined: it is mapped already\n", wc->bar);
		return;
	}
	/* The reservation must outlast every mapping, so the module stays */
	__module_get(THIS_MODULE);
	wc->start = start;
	wc->size = size;
	trace_noiommu_write_combining(&pdev->dev, wc->bar, true);
	pci_info(pdev, "BAR %d is write-combined\n", wc->bar);
}

static void free_bar(struct wc_bar *wc)
{
	if (!wc->size)
		return;
	arch_io_free_memtype_wc(wc->start, wc->size);
	trace_noiommu_write_combining(&wc->pdev->dev, wc->bar, false);
	wc->size = 0;
	module_put(THIS_MODULE);
}

static struct wc_bar *find_bar(struct pci_dev *pdev, int bar)
{
	struct wc_bar *wc;

	list_for_each_entry(wc, &wc_bars, entry) {
		if (wc->pdev == pdev && wc->bar == bar)
			return wc;
	}
	return NULL;
}

static void forget_bar(struct wc_bar *wc)
{
	free_bar(wc);
	list_del(&wc->entry);
	pci_dev_put(wc->pdev);
	kfree(wc);
}

static int wc_event(struct notifier_block *nb, unsigned long action, void *data)
{
	struct wc_bar *wc, *next;
	struct device *dev = data;

	mutex_lock(&wc_lock);
	list_for_each_entry_safe(wc, next, &wc_bars, entry) {
		if (&wc->pdev->dev != dev)
			continue;
		switch (action) {
		case BUS_NOTIFY_BIND_DRIVER:
			if (is_vfio_pci(dev))
				reserve_bar(wc);
			break;
		case BUS_NOTIFY_UNBOUND_DRIVER:
		case BUS_NOTIFY_DRIVER_NOT_BOUND:
			free_bar(wc);
			break;
		case BUS_NOTIFY_REMOVED_DEVICE:
			forget_bar(wc);
			break;
		}
	}
	mutex_unlock(&wc_lock);
	return NOTIFY_DONE;
}

static struct notifier_block wc_notifier = {
	.notifier_call	= wc_event,
};

/* Is the device still on its bus, so that wc_event() will see its removal? */
static bool is_on_bus(struct pci_dev *pdev)
{
	struct pci_dev *found;

	found = pci_get_domain_bus_and_slot(pci_domain_nr(pdev->bus),
					    pdev->bus->number, pdev->devfn);
	pci_dev_put(found);
	return found == pdev;
}

/* The caller holds the device lock, so that no driver comes or goes */
static int name_bar(struct pci_dev *pdev, int bar)
{
	const char *objection;
	struct wc_bar *wc;

	if (!wc_possible()) {
		pci_err(pdev, "BAR %d will not be write-combined: this platform has no list of memory types (PAT)\n",
			bar);
		return -EOPNOTSUPP;
	}
	if (pdev->dev.driver) {
		pci_err(pdev, "BAR %d will not be write-combined: driver %s is bound, unbind it first\n",
			bar, pdev->dev.driver->name);
		return -EBUSY;
	}
	objection = find_objection(pdev, bar);
	if (objection) {
		pci_err(pdev, "BAR %d will not be write-combined: %s\n", bar, objection);
		return -EINVAL;
	}
	if (find_bar(pdev, bar))
		return -EEXIST;

	wc = kzalloc(sizeof(*wc), GFP_KERNEL);
	if (!wc)
		return -ENOMEM;
	wc->pdev = pci_dev_get(pdev);
	wc->bar = bar;
	list_add_tail(&wc->entry, &wc_bars);
	return 0;
}

static int unname_bar(struct pci_dev *pdev, int bar)
{
	struct wc_bar *wc = find_bar(pdev, bar);

	if (!wc)
		return -ENODEV;
	/* An existing mapping keeps its type, and later ones must not differ */
	if (wc->size) {
		pci_err(pdev, "BAR %d stays write-combined: vfio-pci is bound, unbind it first\n",
			bar);
		return -EBUSY;
	}
	forget_bar(wc);
	return 0;
}

/**
 * noiommu_wc_set() - name a BAR for write combining, or remove it from the list
 * @pdev: the device; no driver may be bound
 * @bar: number of the BAR, 0 to 5
 * @on: whether to name it
 *
 * Return: 0; an error whose reason is in the log; -EEXIST if the BAR was named
 * already; -ENODEV if it was not, or if the device is being unplugged.
 */
int noiommu_wc_set(struct pci_dev *pdev, int bar, bool on)
{
	int ret;

	/* Do not wait for a driver that is being unbound: its user may never end */
	if (!device_trylock(&pdev->dev)) {
		pci_err(pdev, "BAR %d: the device is coming or going, or its driver is\n", bar);
		return -EBUSY;
	}
	mutex_lock(&wc_lock);
	if (!on)
		ret = unname_bar(pdev, bar);
	else
		ret = is_on_bus(pdev) ? name_bar(pdev, bar) : -ENODEV;
	mutex_unlock(&wc_lock);
	device_unlock(&pdev->dev);
	return ret;
}

/**
 * noiommu_wc_show() - list the BARs that were named, and which are write-combined
 * @buffer: a page
 *
 * Return: the number of bytes written.
 */
int noiommu_wc_show(char *buffer)
{
	struct wc_bar *wc;
	int len = 0;

	mutex_lock(&wc_lock);
	list_for_each_entry(wc, &wc_bars, entry)
		len += sysfs_emit_at(buffer, len, "%s %d %s\n", pci_name(wc->pdev),
				     wc->bar, wc->size ? "on" : "off");
	mutex_unlock(&wc_lock);
	return len;
}

int noiommu_wc_init(void)
{
	return bus_register_notifier(&pci_bus_type, &wc_notifier);
}

void noiommu_wc_exit(void)
{
	struct wc_bar *wc, *next;

	bus_unregister_notifier(&pci_bus_type, &wc_notifier);
	list_for_each_entry_safe(wc, next, &wc_bars, entry)
		forget_bar(wc);
}
