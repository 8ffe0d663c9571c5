// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The dummy IOMMU: IOMMU groups for devices that no IOMMU covers.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 *
 * Each added PCI device gets a struct iommu_device and an IOMMU group of its
 * own, which is what VFIO asks for before it hands a device to userspace. There
 * is no hardware behind it. A device reaches every bus address at all times,
 * whichever domain is attached, so the domains promise nothing:
 *
 *  - identity, the default, is the plain truth;
 *  - blocked blocks nothing. VFIO wants one to park a group that is claimed but
 *    has no container yet;
 *  - a paging domain accepts exactly those mappings that are true anyway, with
 *    an IOVA that is the bus address of the page. VFIO pins the memory and
 *    accounts for it; a user that expects translation gets -EINVAL instead of
 *    corrupted memory. Every address leads to itself before, during and after a
 *    mapping, and read-only cannot be enforced. What is mapped is recorded only
 *    as far as VFIO asks for it, see noiommu_iova_to_phys().
 *
 * Locking: device lock of the PCI device, then noiommu_lock, then whatever the
 * IOMMU core takes. The core calls probe_device() and attach_dev() under locks of
 * its own, also from inside iommu_device_register(), so that these callbacks may
 * take nothing but the spinlocks of this file.
 *
 * iommu_device_register() and iommu_device_unregister() look at every device of
 * every bus, and are made for boot: they take no lock against the core's own bus
 * notifier, which sets up and frees the same data when a device is plugged or
 * unplugged. So they are called only while no device comes or goes: notifiers of
 * this file count those that do, and wait meanwhile for noiommu_lock.
 */

#define dev_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/cc_platform.h>
#include <linux/device.h>
#include <linux/dma-direct.h>
#include <linux/dma-map-ops.h>
#include <linux/iommu.h>
#include <linux/jiffies.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/pci.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/security.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/swiotlb.h>
#include <linux/wait.h>
#include <xen/xen.h>

#include "compat.h"
#include "noiommu.h"

/**
 * struct noiommu_device - an added PCI device
 * @iommu: its IOMMU, as the core knows it
 * @pdev: the device; a reference is held
 * @entry: in noiommu_devices
 * @id: not used again for a long time, unlike its address
 * @use: who has the device, or NULL; under the group's mutex, as all attaching is
 * @had_user: somebody has had it
 */
struct noiommu_device {
	struct iommu_device iommu;
	struct pci_dev *pdev;
	struct list_head entry;
	u32 id;
	struct noiommu_use *use;
	bool had_user;
};

/**
 * struct noiommu_domain - a paging domain
 * @domain: what the core sees
 * @lock: protects what follows it
 * @limit: the last bus address that all devices of the domain reach
 * @top: where the highest mapping ends
 * @gap_start: start of the range that was unmapped last, as far as its parts
 *	followed each other
 * @gap_end: its end; 0 if something was mapped since
 */
struct noiommu_domain {
	struct iommu_domain domain;
	spinlock_t lock; /* see above */
	u64 limit;
	u64 top;
	u64 gap_start;
	u64 gap_end;
};

/* Serialises adding, removing and hot-plug; protects what follows it */
static DEFINE_MUTEX(noiommu_lock);
/* Devices that are coming or going */
static unsigned int moving;
static DECLARE_WAIT_QUEUE_HEAD(moving_wait);
/* Unplugged devices, whose IOMMUs go when nothing moves any more */
static LIST_HEAD(unplugged_devices);
static bool noiommu_exiting;
static bool hint_wanted;

/* Protects the list, together with noiommu_lock for writers */
static DEFINE_SPINLOCK(list_lock);
static LIST_HEAD(noiommu_devices);

static atomic_t last_device_id;

static const struct iommu_ops noiommu_ops;

static struct noiommu_device *find_added(struct device *dev)
{
	struct noiommu_device *nd, *found = NULL;

	spin_lock(&list_lock);
	list_for_each_entry(nd, &noiommu_devices, entry) {
		if (&nd->pdev->dev == dev) {
			found = nd;
			break;
		}
	}
	spin_unlock(&list_lock);
	return found;
}

/* What memory a device reaches */

#define NOT_DIRECT \
	"bus addresses differ from physical addresses, or all DMA is bounced (swiotlb=force)"

/* The last bus address that the device reaches */
static u64 device_limit(struct device *dev)
{
	return dev->bus_dma_limit ?: U64_MAX;
}

/*
 * Is every bus address of the device the physical address of the same value, and
 * does it reach memory in place, without bounce buffers? Some platforms know only
 * when the device has a driver.
 */
static bool device_is_direct(struct device *dev)
{
	const struct bus_dma_region *map = dev->dma_range_map;

	if (is_swiotlb_force_bounce(dev))
		return false;

	for (; map && map->size; map++) {
		if (map->cpu_start != map->dma_start)
			return false;
	}
	return true;
}

/*
 * Uses. VFIO claims a group, which attaches the blocked domain, before anybody
 * can open the device, and gives it back, which attaches the identity domain,
 * after the last one has closed it and it has been stopped. Who attaches a paging
 * domain without a claim (vhost-vdpa does) has the device, too.
 */

static int begin_use(struct device *dev, struct noiommu_device *nd)
{
	struct noiommu_use *use;

	if (nd->use)
		return 0;
	if (!device_is_direct(dev)) {
		dev_err(dev, "%s\n", NOT_DIRECT);
		return -EINVAL;
	}

	use = noiommu_use_begin(dev, nd->id, !nd->had_user);
	if (IS_ERR(use))
		return PTR_ERR(use);
	WRITE_ONCE(nd->use, use);
	nd->had_user = true;
	return 0;
}

static void end_use(struct noiommu_device *nd)
{
	if (nd->use)
		noiommu_use_end(nd->use);
	WRITE_ONCE(nd->use, NULL);
}

/*
 * Only a driver that leaves DMA to its users lets somebody claim a device. Where
 * there is another driver or none, it is a reset, which newer kernels enclose in
 * the blocked domain.
 */
static bool can_be_claimed(struct device *dev)
{
	struct device_driver *driver = READ_ONCE(dev->driver);

	return driver && to_pci_driver(driver)->driver_managed_dma;
}

/* Domains */

static struct noiommu_domain *to_noiommu_domain(struct iommu_domain *domain)
{
	return container_of(domain, struct noiommu_domain, domain);
}

static int noiommu_attach_paging(NOIOMMU_ATTACH_ARGS)
{
	struct noiommu_device *nd = dev_iommu_priv_get(dev);
	struct noiommu_domain *d = to_noiommu_domain(domain);
	u64 limit = device_limit(dev);
	int ret = 0;

	/*
	 * One that reaches less than the others could not honour the mappings
	 * that exist. VFIO gives it a domain of its own on -EINVAL.
	 */
	spin_lock(&d->lock);
	if (limit < d->limit) {
		if (d->top) {
			ret = -EINVAL;
		} else {
			d->limit = limit;
			domain->geometry.aperture_end = limit;
		}
	}
	spin_unlock(&d->lock);
	if (ret)
		return ret;

	return begin_use(dev, nd);
}

static int noiommu_map_pages(struct iommu_domain *domain, unsigned long iova,
			     phys_addr_t paddr, size_t pgsize, size_t pgcount,
			     int prot, gfp_t gfp, size_t *mapped)
{
	struct noiommu_domain *d = to_noiommu_domain(domain);
	size_t size = pgsize * pgcount;
	bool reached;

	/*
	 * Physical page 0 is refused because callers take an address of 0 from
	 * iova_to_phys() for "not mapped". Device memory is let through: on a
	 * bus where iova and paddr are the same, peers reach it or do not,
	 * whatever is said here.
	 */
	if (iova != paddr || !paddr)
		return -EINVAL;

	spin_lock(&d->lock);
	reached = paddr + (size - 1) <= d->limit;
	if (reached) {
		d->top = max_t(u64, d->top, iova + size);
		d->gap_end = 0;
	}
	spin_unlock(&d->lock);
	if (!reached)
		return -EINVAL;

	*mapped = size;
	return 0;
}

static size_t noiommu_unmap_pages(struct iommu_domain *domain,
				  unsigned long iova, size_t pgsize,
				  size_t pgcount,
				  struct iommu_iotlb_gather *gather)
{
	struct noiommu_domain *d = to_noiommu_domain(domain);
	size_t size = pgsize * pgcount;

	/* The core unmaps a range from its start, in parts */
	spin_lock(&d->lock);
	if (iova != d->gap_end)
		d->gap_start = iova;
	d->gap_end = iova + size;
	if (d->gap_end == d->top)
		d->top = d->gap_start;
	spin_unlock(&d->lock);

	return size;
}

/*
 * VFIO replays the mappings of a container into the domain of a group that joins
 * it, in ascending order. If one is refused, it unpins what it finds mapped in
 * that domain, and nothing but the answer given here keeps it from unpinning
 * pages that it never pinned. Everything that is mapped lies below @top, so what
 * does not was never mapped, or is no more.
 */
static phys_addr_t noiommu_iova_to_phys(struct iommu_domain *domain,
					dma_addr_t iova)
{
	return iova < READ_ONCE(to_noiommu_domain(domain)->top) ? iova : 0;
}

static void noiommu_free_paging(struct iommu_domain *domain)
{
	kfree(to_noiommu_domain(domain));
	module_put(THIS_MODULE);
}

static const struct iommu_domain_ops noiommu_paging_ops = {
	.attach_dev	= noiommu_attach_paging,
	.map_pages	= noiommu_map_pages,
	.unmap_pages	= noiommu_unmap_pages,
	.iova_to_phys	= noiommu_iova_to_phys,
	.free		= noiommu_free_paging,
};

static struct iommu_domain *noiommu_domain_alloc_paging(struct device *dev)
{
	struct noiommu_domain *d;

	/* A domain may outlive the devices that were attached to it */
	if (!try_module_get(THIS_MODULE))
		return NULL;

	d = kzalloc(sizeof(*d), GFP_KERNEL_ACCOUNT);
	if (!d) {
		module_put(THIS_MODULE);
		return NULL;
	}

	spin_lock_init(&d->lock);
	d->domain.ops = &noiommu_paging_ops;
	d->domain.pgsize_bitmap = PAGE_MASK;
	/* Older kernels do not say who it is for: then the first one attached counts */
	d->limit = dev ? device_limit(dev) : U64_MAX;
	d->domain.geometry.aperture_end = d->limit;
	d->domain.geometry.force_aperture = true;
	return &d->domain;
}

static int noiommu_attach_identity(NOIOMMU_ATTACH_ARGS)
{
	end_use(dev_iommu_priv_get(dev));
	return 0;
}

static int noiommu_attach_blocked(NOIOMMU_ATTACH_ARGS)
{
	struct noiommu_device *nd = dev_iommu_priv_get(dev);

	return can_be_claimed(dev) ? begin_use(dev, nd) : 0;
}

static void noiommu_free_static(struct iommu_domain *domain)
{
}

static const struct iommu_domain_ops noiommu_identity_ops = {
	.attach_dev	= noiommu_attach_identity,
	.free		= noiommu_free_static,
};

static const struct iommu_domain_ops noiommu_blocked_ops = {
	.attach_dev	= noiommu_attach_blocked,
	.free		= noiommu_free_static,
};

static struct iommu_domain noiommu_identity = {
	.type	= IOMMU_DOMAIN_IDENTITY,
	.ops	= &noiommu_identity_ops,
};

static struct iommu_domain noiommu_blocked = {
	.type	= IOMMU_DOMAIN_BLOCKED,
	.ops	= &noiommu_blocked_ops,
};

#ifndef NOIOMMU_STATIC_DOMAINS
static struct iommu_domain *noiommu_domain_alloc(unsigned int type)
{
	switch (type) {
	case IOMMU_DOMAIN_IDENTITY:
		return &noiommu_identity;
	case IOMMU_DOMAIN_BLOCKED:
		return &noiommu_blocked;
	case IOMMU_DOMAIN_UNMANAGED:
		return noiommu_domain_alloc_paging(NULL);
	default:
		return NULL;
	}
}
#endif

/* Devices, as the core asks for them */

static bool noiommu_capable(struct device *dev, enum iommu_cap cap)
{
	/*
	 * Nothing that takes hardware, and above all no interrupt remapping:
	 * without it, whoever has a device can raise any interrupt, and VFIO
	 * must be told by its administrator that this is accepted.
	 */
	if (cap != IOMMU_CAP_CACHE_COHERENCY)
		return false;
	if (!dev_is_dma_coherent(dev)) {
		/* VFIO's whole answer is -EINVAL */
		dev_err_ratelimited(dev, "not for VFIO: its DMA is not coherent with the caches of this platform\n");
		return false;
	}
	return true;
}

/* Called for every device without an IOMMU: only those added are taken */
static struct iommu_device *noiommu_probe_device(struct device *dev)
{
	struct noiommu_device *nd = dev_is_pci(dev) ? find_added(dev) : NULL;

	if (!nd)
		return ERR_PTR(-ENODEV);

	dev_iommu_priv_set(dev, nd);
	return &nd->iommu;
}

static void noiommu_release_device(struct device *dev)
{
	end_use(dev_iommu_priv_get(dev));
}

static struct iommu_group *noiommu_device_group(struct device *dev)
{
	struct iommu_group *group = generic_device_group(dev);
	int ret;

	if (IS_ERR(group))
		return group;

	/* What tells our groups from those of a real IOMMU */
	ret = iommu_group_set_name(group, KBUILD_MODNAME);
	if (ret) {
		iommu_group_put(group);
		return ERR_PTR(ret);
	}
	return group;
}

static int noiommu_def_domain_type(struct device *dev)
{
	return IOMMU_DOMAIN_IDENTITY;
}

static const struct iommu_ops noiommu_ops = {
	.capable		= noiommu_capable,
#ifdef NOIOMMU_STATIC_DOMAINS
	.identity_domain	= &noiommu_identity,
	.blocked_domain		= &noiommu_blocked,
	.domain_alloc_paging	= noiommu_domain_alloc_paging,
#else
	.domain_alloc		= noiommu_domain_alloc,
#endif
	.probe_device		= noiommu_probe_device,
	.release_device		= noiommu_release_device,
	.device_group		= noiommu_device_group,
	.def_domain_type	= noiommu_def_domain_type,
	.default_domain_ops	= &noiommu_paging_ops,
	.owner			= THIS_MODULE,
};

/* Adding and removing */

/* Longer than a driver takes to let go of a device that nobody uses */
#define LOCK_TIMEOUT	(2 * HZ)

/*
 * A hardware IOMMU puts the PCI devices it covers into groups, which is all or
 * nearly all of them. dev->iommu tells these from the groups that VFIO's own
 * no-IOMMU mode makes.
 */
static struct pci_dev *find_hardware_iommu(void)
{
	struct pci_dev *pdev = NULL;

	for_each_pci_dev(pdev) {
		struct device *dev = &pdev->dev;

		if (device_iommu_mapped(dev) && READ_ONCE(dev->iommu) &&
		    !find_added(dev))
			return pdev;
	}
	return NULL;
}

/*
 * A new device can be found before the core's notifier has been told about it.
 * On 6.1 that would probe a device that was added in between a second time, and
 * leave a module reference behind. The uevent is what comes next.
 */
static bool is_plugged(struct pci_dev *pdev)
{
	struct pci_dev *there;

	there = pci_get_domain_bus_and_slot(pci_domain_nr(pdev->bus),
					    pdev->bus->number, pdev->devfn);
	pci_dev_put(there);
	return there == pdev && pdev->dev.kobj.state_add_uevent_sent;
}

static int check_host(struct pci_dev *pdev)
{
	struct pci_dev *covered;
	int ret;

	ret = security_locked_down(LOCKDOWN_PCI_ACCESS);
	if (ret) {
		pci_err(pdev, "not added: the kernel is locked down, which forbids userspace direct access to PCI devices\n");
		return ret;
	}

	if (noiommu_bus_is_foreign(&noiommu_ops)) {
		pci_err(pdev, "not added: a hardware IOMMU is active on this host, use vfio-pci with that\n");
		return -EOPNOTSUPP;
	}
	covered = find_hardware_iommu();
	if (covered) {
		pci_err(pdev, "not added: a hardware IOMMU is active on this host (it covers %s), use vfio-pci with that\n",
			pci_name(covered));
		pci_dev_put(covered);
		return -EOPNOTSUPP;
	}

	if (cc_platform_has(CC_ATTR_MEM_ENCRYPT)) {
		pci_err(pdev, "not added: memory is encrypted, a device would not see what the CPU sees at the same address\n");
		return -EOPNOTSUPP;
	}
	if (xen_pv_domain()) {
		pci_err(pdev, "not added: in a Xen PV domain, bus addresses differ from physical addresses\n");
		return -EOPNOTSUPP;
	}
	return 0;
}

static int check_device(struct pci_dev *pdev)
{
	struct device *dev = &pdev->dev;

	if (noiommu_exiting || !is_plugged(pdev)) {
		pci_err(pdev, "not added: %s\n", noiommu_exiting ?
			"the module is being unloaded" :
			"it is being plugged or unplugged");
		return -ENODEV;
	}
	if (find_added(dev)) {
		pci_err(pdev, "not added: it already is\n");
		return -EEXIST;
	}
	if (pdev->hdr_type != PCI_HEADER_TYPE_NORMAL) {
		pci_err(pdev, "not added: it is a bridge\n");
		return -EINVAL;
	}
	if (dev->driver) {
		pci_err(pdev, "not added: driver %s is bound, unbind it first\n",
			dev->driver->name);
		return -EBUSY;
	}
	if (device_iommu_mapped(dev)) {
		pci_err(pdev, "not added: it already has an IOMMU group\n");
		return -EEXIST;
	}
	if (pdev->untrusted) {
		pci_err(pdev, "not added: firmware says that its port is open to untrusted devices\n");
		return -EPERM;
	}
	if (!device_is_direct(dev)) {
		pci_err(pdev, "not added: %s\n", NOT_DIRECT);
		return -EOPNOTSUPP;
	}
	return 0;
}

static void free_device(struct noiommu_device *nd)
{
	noiommu_hint_drop(nd->iommu.dev);
	iommu_device_sysfs_remove(&nd->iommu);
	pci_dev_put(nd->pdev);
	kfree(nd);
}

/* Take the device off the list, so that the core cannot probe it again */
static void unlist_device(struct noiommu_device *nd)
{
	spin_lock(&list_lock);
	list_del(&nd->entry);
	spin_unlock(&list_lock);
}

/*
 * Lock the device, so that no driver can be bound or unbound, and noiommu_lock,
 * at a time when no device comes or goes. A device in use does not go before
 * its user is done with it, and that user may be the caller: so not forever.
 */
static int lock_still(struct pci_dev *pdev, const char *verb)
{
	struct device *dev = &pdev->dev;
	unsigned long end = jiffies + LOCK_TIMEOUT;
	long ret;

	do {
		ret = wait_event_killable_timeout(moving_wait,
						  !READ_ONCE(moving),
						  LOCK_TIMEOUT);
		if (ret < 0)
			return ret;
		if (!ret)
			break;

		if (device_trylock(dev)) {
			mutex_lock(&noiommu_lock);
			if (!moving)
				return 0;
			mutex_unlock(&noiommu_lock);
			device_unlock(dev);
		}
		schedule_timeout_killable(1);
		if (fatal_signal_pending(current))
			return -EINTR;
	} while (time_before(jiffies, end));

	pci_err(pdev, "not %s: it or another device is coming or going, which may wait for a user of it\n",
		verb);
	return -EBUSY;
}

static void unlock_still(struct device *dev)
{
	mutex_unlock(&noiommu_lock);
	device_unlock(dev);
}

/*
 * Do what the rule of noiommu_hint.c says, now that something has changed. While
 * a device is on its way, hints are only taken away: stops_moving() calls again.
 */
static void refresh_hints(void)
{
	struct noiommu_device *nd;

	if (!hint_wanted || list_empty(&noiommu_devices)) {
		noiommu_hint_off();
	} else if (!moving) {
		list_for_each_entry(nd, &noiommu_devices, entry)
			noiommu_hint_mark(nd->iommu.dev);
		noiommu_hint_on();
	}
}

/**
 * noiommu_iommu_set_hint() - switch the hint for DPDK on or off
 * @on: which of them
 */
void noiommu_iommu_set_hint(bool on)
{
	mutex_lock(&noiommu_lock);
	hint_wanted = on;
	refresh_hints();
	mutex_unlock(&noiommu_lock);
}

static int add_locked(struct pci_dev *pdev)
{
	struct device *dev = &pdev->dev;
	struct noiommu_device *nd;
	int ret;

	ret = check_host(pdev);
	if (!ret)
		ret = check_device(pdev);
	if (ret)
		return ret;

	nd = kzalloc(sizeof(*nd), GFP_KERNEL);
	if (!nd)
		return -ENOMEM;
	nd->id = atomic_inc_return(&last_device_id);
	nd->pdev = pci_dev_get(pdev);

	/* No parent: its class directory would take the name of the iommu link */
	ret = iommu_device_sysfs_add(&nd->iommu, NULL, NULL,
				     KBUILD_MODNAME "-%s", pci_name(pdev));
	if (ret) {
		pci_dev_put(pdev);
		kfree(nd);
		goto err;
	}

	ret = noiommu_hint_watch(nd->iommu.dev);
	if (ret) {
		free_device(nd);
		goto err;
	}
	noiommu_hint_drop(dev);

	spin_lock(&list_lock);
	list_add_tail(&nd->entry, &noiommu_devices);
	spin_unlock(&list_lock);

	ret = iommu_device_register(&nd->iommu, &noiommu_ops, NULL);
	if (ret)
		goto err_unlist;

	/* The core may have asked somebody else, who did not want it either */
	if (!device_iommu_mapped(dev) || dev_iommu_priv_get(dev) != nd) {
		ret = -EOPNOTSUPP;
		unlist_device(nd);
		iommu_device_unregister(&nd->iommu);
		free_device(nd);
		goto err;
	}

	refresh_hints();
	pci_info(pdev, "added, without any isolation\n");
	return 0;

err_unlist:
	unlist_device(nd);
	free_device(nd);
err:
	noiommu_hint_give(pdev);
	pci_err(pdev, "not added: the IOMMU core refused it (error %d)\n", ret);
	return ret;
}

/**
 * noiommu_iommu_add() - give a PCI device an IOMMU group
 * @pdev: the device; nothing may drive it
 *
 * Return: 0, or an error whose reason is in the log.
 */
int noiommu_iommu_add(struct pci_dev *pdev)
{
	int ret = lock_still(pdev, "added");

	if (ret)
		return ret;

	ret = add_locked(pdev);
	unlock_still(&pdev->dev);
	return ret;
}

static int remove_locked(struct pci_dev *pdev)
{
	struct device *dev = &pdev->dev;
	struct noiommu_device *nd = find_added(dev);

	if (!nd) {
		pci_err(pdev, "not removed: it was not added\n");
		return -ENODEV;
	}

	/*
	 * A driver that lets go of its device has waited for its users, and
	 * VFIO has detached the group by then, so this covers all of them.
	 */
	if (dev->driver) {
		pci_err(pdev, "not removed: driver %s is bound, unbind it first\n",
			dev->driver->name);
		return -EBUSY;
	}

	unlist_device(nd);
	iommu_device_unregister(&nd->iommu);
	free_device(nd);
	noiommu_hint_give(pdev);
	refresh_hints();
	pci_info(pdev, "removed\n");
	return 0;
}

/**
 * noiommu_iommu_remove() - take the IOMMU group away again
 * @pdev: the device; nothing may drive it
 *
 * Return: 0, or an error whose reason is in the log.
 */
int noiommu_iommu_remove(struct pci_dev *pdev)
{
	int ret = lock_still(pdev, "removed");

	if (ret)
		return ret;

	ret = remove_locked(pdev);
	unlock_still(&pdev->dev);
	return ret;
}

/**
 * noiommu_iommu_reach() - what memory an added device reaches
 * @segment: PCI segment of the device
 * @bus: its bus
 * @devfn: its device and function number
 * @limit: set to the last bus address that the platform lets through
 * @id: set to the number of the device, which uses have, too
 *
 * The device's own limit is not asked for: its DMA mask is the 32 bits that all
 * start with until a driver in the kernel knows better.
 *
 * Return: 0, -ENODEV if it was not added, or -ERANGE if the kernel would not let
 * a device there reach any memory in place.
 */
int noiommu_iommu_reach(int segment, u8 bus, u8 devfn, u64 *limit, u32 *id)
{
	struct noiommu_device *nd;
	int ret = -ENODEV;

	spin_lock(&list_lock);
	list_for_each_entry(nd, &noiommu_devices, entry) {
		struct pci_dev *pdev = nd->pdev;

		if (pci_domain_nr(pdev->bus) != segment ||
		    pdev->bus->number != bus || pdev->devfn != devfn)
			continue;
		/*
		 * Who has the device has been asked device_is_direct(). The map
		 * that it looks at goes with the driver, whose lock is not for
		 * users to wait for: so before, any map will do to refuse.
		 */
		ret = !READ_ONCE(nd->use) &&
		      READ_ONCE(pdev->dev.dma_range_map) ? -ERANGE : 0;
		*limit = device_limit(&pdev->dev);
		*id = nd->id;
		break;
	}
	spin_unlock(&list_lock);
	return ret;
}

/* Hot-plug */

static void reap_unplugged(void)
{
	struct noiommu_device *nd, *next;

	list_for_each_entry_safe(nd, next, &unplugged_devices, entry) {
		list_del(&nd->entry);
		iommu_device_unregister(&nd->iommu);
		free_device(nd);
	}
}

static void starts_moving(struct device *dev)
{
	mutex_lock(&noiommu_lock);
	moving++;
	/* What the core does next may need the link's place, or end its directory */
	noiommu_hint_drop(dev);
	mutex_unlock(&noiommu_lock);
}

static void stops_moving(struct device *dev, bool gone)
{
	struct noiommu_device *nd;

	mutex_lock(&noiommu_lock);
	nd = gone ? find_added(dev) : NULL;
	if (nd) {
		unlist_device(nd);
		list_add(&nd->entry, &unplugged_devices);
		dev_info(dev, "unplugged, no longer added\n");
	}
	if (!gone && dev_is_pci(dev))
		noiommu_hint_give(to_pci_dev(dev));
	/* One that was on its way when the module came has not been counted */
	if (moving)
		moving--;
	if (!moving) {
		reap_unplugged();
		wake_up_all(&moving_wait);
	}
	refresh_hints();
	mutex_unlock(&noiommu_lock);
}

/* Called before the core's notifier, which probes a new device for its IOMMU */
static int noiommu_before(struct notifier_block *nb, unsigned long action,
			  void *data)
{
	if (action == BUS_NOTIFY_ADD_DEVICE || action == BUS_NOTIFY_DEL_DEVICE)
		starts_moving(data);
	return NOTIFY_DONE;
}

/* Called after the core's notifier, which takes an old one out of its group */
static int noiommu_after(struct notifier_block *nb, unsigned long action,
			 void *data)
{
	if (action == BUS_NOTIFY_ADD_DEVICE)
		stops_moving(data, false);
	else if (action == BUS_NOTIFY_REMOVED_DEVICE)
		stops_moving(data, true);
	return NOTIFY_DONE;
}

static struct notifier_block before[ARRAY_SIZE(noiommu_buses)];
static struct notifier_block after[ARRAY_SIZE(noiommu_buses)];

static void unwatch(unsigned int n)
{
	while (n--) {
		bus_unregister_notifier(noiommu_buses[n], &before[n]);
		bus_unregister_notifier(noiommu_buses[n], &after[n]);
	}
}

int noiommu_iommu_init(void)
{
	unsigned int n;
	int ret;

	for (n = 0; n < ARRAY_SIZE(noiommu_buses); n++) {
		/*
		 * A device that moves between the two must not be counted as
		 * one that starts and never stops.
		 */
		after[n].notifier_call = noiommu_after;
		after[n].priority = INT_MIN;
		ret = bus_register_notifier(noiommu_buses[n], &after[n]);
		if (ret)
			break;
		before[n].notifier_call = noiommu_before;
		before[n].priority = INT_MAX;
		ret = bus_register_notifier(noiommu_buses[n], &before[n]);
		if (ret) {
			bus_unregister_notifier(noiommu_buses[n], &after[n]);
			break;
		}
	}
	if (ret)
		unwatch(n);
	return ret;
}

/* Nothing is left in a group: each device in one holds a module reference */
void noiommu_iommu_exit(void)
{
	/* sysfs is torn down only after this: writers must find the door shut */
	mutex_lock(&noiommu_lock);
	noiommu_exiting = true;
	mutex_unlock(&noiommu_lock);

	/* Waits for an unplugging that has come as far as these notifiers */
	unwatch(ARRAY_SIZE(noiommu_buses));
	noiommu_bus_release(&noiommu_ops);

	/* From here on nobody says any more when a device stops moving */
	mutex_lock(&noiommu_lock);
	moving = 0;
	reap_unplugged();
	wake_up_all(&moving_wait);
	mutex_unlock(&noiommu_lock);
}
