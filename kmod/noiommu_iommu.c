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
#include <linux/capability.h>
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
#include <linux/panic.h>
#include <linux/pci.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/security.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/swiotlb.h>
#include <linux/sysfs.h>
#include <linux/wait.h>
#include <xen/xen.h>

#include "compat.h"
#include "noiommu.h"

/**
 * struct noiommu_device - an added PCI device
 * @iommu: its IOMMU, as the core knows it
 * @pdev: the device; a reference is held
 * @entry: in noiommu_devices
 * @use: number of the use that goes on, 0 while nobody has the device; under
 *	list_lock
 * @id: not used again for a long time, unlike its address
 * @user: address space of who has it, of which the structure is held, or NULL;
 *	under list_lock
 * @vetted: id of the paging domain that a capable process attached last in this
 *	use; under the group's mutex, as all attaching is
 * @announced: the kernel log has been told who uses the device
 */
struct noiommu_device {
	struct iommu_device iommu;
	struct pci_dev *pdev;
	struct list_head entry;
	u64 use;
	u32 id;
	struct mm_struct *user;
	u64 vetted;
	bool announced;
};

/**
 * struct noiommu_domain - a paging domain
 * @domain: what the core sees
 * @id: never used twice, unlike the address of a domain
 * @lock: protects what follows it
 * @limit: the last bus address that all devices of the domain reach; 0 before
 *	the first one is attached
 * @top: where the highest mapping ends
 * @gap_start: start of the range that was unmapped last, as far as its parts
 *	followed each other
 * @gap_end: its end; 0 if something was mapped since
 */
struct noiommu_domain {
	struct iommu_domain domain;
	u64 id;
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

/* Protects the list, together with noiommu_lock for writers, and the uses */
static DEFINE_SPINLOCK(list_lock);
static LIST_HEAD(noiommu_devices);
/* Protected by list_lock alone */
static u64 last_use;

static atomic_t last_device_id;
static atomic64_t last_domain_id;

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

/*
 * Uses. VFIO claims a group, which attaches the blocked domain, before anybody
 * can open the device, and gives it back, which attaches the identity domain,
 * after the last one has closed it and it has been stopped. What happens in
 * between is one use.
 */

/* The caller has the device from now on */
static void note_user(struct noiommu_device *nd)
{
	struct mm_struct *user = current->mm, *former;

	if (user)
		mmgrab(user);
	spin_lock(&list_lock);
	if (!nd->use)
		nd->use = ++last_use;
	former = nd->user;
	nd->user = user;
	spin_unlock(&list_lock);
	if (former)
		mmdrop(former);
}

static void end_use(struct noiommu_device *nd)
{
	struct mm_struct *user;
	u64 use;

	nd->vetted = 0;
	spin_lock(&list_lock);
	use = nd->use;
	nd->use = 0;
	user = nd->user;
	nd->user = NULL;
	spin_unlock(&list_lock);
	if (user)
		mmdrop(user);
	if (use)
		noiommu_pin_settle();
}

/**
 * noiommu_iommu_last_use() - which use of any device began last
 *
 * Return: its number; those that begin later have higher ones.
 */
u64 noiommu_iommu_last_use(void)
{
	u64 use;

	spin_lock(&list_lock);
	use = last_use;
	spin_unlock(&list_lock);
	return use;
}

/**
 * noiommu_iommu_is_used() - may a device still be writing to some memory
 * @id: the device that the memory was meant for, from noiommu_iommu_reach()
 * @mm: the address space that the memory belongs to; whoever has several devices
 *	may have told each of them of it
 * @until: the last use that is asked about, from noiommu_iommu_last_use()
 *
 * When the answer becomes no, noiommu_pin_settle() is called.
 *
 * Return: whether such a use still goes on.
 */
bool noiommu_iommu_is_used(u32 id, const struct mm_struct *mm, u64 until)
{
	struct noiommu_device *nd;
	bool used = false;

	spin_lock(&list_lock);
	list_for_each_entry(nd, &noiommu_devices, entry) {
		used = nd->use && nd->use <= until &&
		       (nd->id == id || nd->user == mm);
		if (used)
			break;
	}
	spin_unlock(&list_lock);
	return used;
}

/* Domains */

static struct noiommu_domain *to_noiommu_domain(struct iommu_domain *domain)
{
	return container_of(domain, struct noiommu_domain, domain);
}

/* The last bus address that the device reaches */
static u64 device_limit(struct device *dev)
{
	return dev->bus_dma_limit ?: U64_MAX;
}

/* Is every bus address of the device the physical address of the same value? */
static bool device_is_direct(struct device *dev)
{
	const struct bus_dma_region *map = dev->dma_range_map;

	for (; map && map->size; map++) {
		if (map->cpu_start != map->dma_start)
			return false;
	}
	return true;
}

/*
 * VFIO leaves the question of who may have a device to the permissions of its
 * group's file, because an IOMMU keeps that user in its place. Nothing does
 * here: whoever gets a paging domain attached can make the device write to any
 * memory, so this is where the right to do that is asked for.
 */
static int vet_user(struct device *dev)
{
	if (!capable(CAP_SYS_RAWIO)) {
		dev_warn_ratelimited(dev, "refused to %s[%d], which lacks CAP_SYS_RAWIO in the initial user namespace\n",
				     current->comm, task_pid_nr(current));
		return -EPERM;
	}

	/* Says in the log who was refused, and what */
	return security_locked_down(LOCKDOWN_PCI_ACCESS);
}

static int noiommu_attach_paging(NOIOMMU_ATTACH_ARGS)
{
	struct noiommu_device *nd = dev_iommu_priv_get(dev);
	struct noiommu_domain *d = to_noiommu_domain(domain);
	u64 limit = device_limit(dev);
	int ret = 0;

	/*
	 * The core goes back to a domain on its own account, for instance after
	 * a device reset, in the context of whoever caused that, and may not be
	 * refused then.
	 */
	if (nd->vetted != d->id) {
		ret = vet_user(dev);
		if (ret)
			return ret;
	}

	/* On some platforms known only now that the device has a driver */
	if (!device_is_direct(dev)) {
		dev_err(dev, "bus addresses differ from physical addresses\n");
		return -EINVAL;
	}

	/*
	 * One that reaches less than the others could not honour the mappings
	 * that exist. VFIO gives it a domain of its own on -EINVAL.
	 */
	spin_lock(&d->lock);
	if (!d->limit) {
		d->limit = limit;
		domain->geometry.aperture_end = limit;
	} else if (limit < d->limit) {
		ret = -EINVAL;
	}
	spin_unlock(&d->lock);
	if (ret)
		return ret;

	if (nd->vetted != d->id)
		note_user(nd);
	nd->vetted = d->id;
	if (!nd->announced) {
		nd->announced = true;
		add_taint(TAINT_USER, LOCKDEP_STILL_OK);
		dev_warn(dev, "handed to %s[%d] without an IOMMU: it can read and write all memory; the kernel is tainted\n",
			 current->comm, task_pid_nr(current));
	}
	return 0;
}

static int noiommu_map_pages(struct iommu_domain *domain, unsigned long iova,
			     phys_addr_t paddr, size_t pgsize, size_t pgcount,
			     int prot, gfp_t gfp, size_t *mapped)
{
	struct noiommu_domain *d = to_noiommu_domain(domain);
	size_t size = pgsize * pgcount;

	/*
	 * Physical page 0 is refused because callers take an address of 0 from
	 * iova_to_phys() for "not mapped". Device memory is let through: on a
	 * bus where iova and paddr are the same, peers reach it or do not,
	 * whatever is said here.
	 */
	if (iova != paddr || !paddr || paddr + (size - 1) > d->limit)
		return -EINVAL;

	spin_lock(&d->lock);
	d->top = max_t(u64, d->top, iova + size);
	d->gap_end = 0;
	spin_unlock(&d->lock);

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
	d->id = atomic64_inc_return(&last_domain_id);
	d->domain.ops = &noiommu_paging_ops;
	d->domain.pgsize_bitmap = PAGE_MASK;
	d->domain.geometry.aperture_end = U64_MAX;
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

	/* Within a use it is a reset, by whomever, or a container that goes */
	if (!READ_ONCE(nd->use))
		note_user(nd);
	return 0;
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
	return cap == IOMMU_CAP_CACHE_COHERENCY && dev_is_dma_coherent(dev);
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

/*
 * DPDK on x86 reads the capabilities of an Intel IOMMU from this attribute. If
 * it is there but does not parse as a hexadecimal number, DPDK takes it that
 * the IOMMU cannot do virtual addresses and uses physical ones by itself, which
 * is the only thing that works here.
 */
static ssize_t cap_show(struct device *dev, struct device_attribute *attr,
			char *buf)
{
	return sysfs_emit(buf, "noiommu: no translation, use physical addresses\n");
}
static DEVICE_ATTR_RO(cap);

static struct attribute *pa_hint_attrs[] = {
	&dev_attr_cap.attr,
	NULL,
};

static const struct attribute_group pa_hint_group = {
	.name	= "intel-iommu",
	.attrs	= pa_hint_attrs,
};

static const struct attribute_group *pa_hint_groups[] = {
	&pa_hint_group,
	NULL,
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
		pci_err(pdev, "not added: bus addresses differ from physical addresses\n");
		return -EOPNOTSUPP;
	}
	return 0;
}

static void free_device(struct noiommu_device *nd)
{
	WARN_ON(nd->use);
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

static int add_locked(struct pci_dev *pdev, bool pa_hint)
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
	ret = iommu_device_sysfs_add(&nd->iommu, NULL,
				     pa_hint ? pa_hint_groups : NULL,
				     KBUILD_MODNAME "-%s", pci_name(pdev));
	if (ret) {
		pci_dev_put(pdev);
		kfree(nd);
		goto err;
	}

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

	pci_info(pdev, "added, without any isolation\n");
	return 0;

err_unlist:
	unlist_device(nd);
	free_device(nd);
err:
	pci_err(pdev, "not added: the IOMMU core refused it (error %d)\n", ret);
	return ret;
}

/**
 * noiommu_iommu_add() - give a PCI device an IOMMU group
 * @pdev: the device; nothing may drive it
 * @pa_hint: whether DPDK shall be told to use physical addresses
 *
 * Return: 0, or an error whose reason is in the log.
 */
int noiommu_iommu_add(struct pci_dev *pdev, bool pa_hint)
{
	int ret = lock_still(pdev, "added");

	if (ret)
		return ret;

	ret = add_locked(pdev, pa_hint);
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
 * @id: set to the number of the device, which noiommu_iommu_is_used() takes
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
		 * The map goes with the driver of the device, whose lock is not
		 * for users to wait for: so any map will do to refuse.
		 */
		ret = is_swiotlb_force_bounce(&pdev->dev) ||
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

static void starts_moving(void)
{
	mutex_lock(&noiommu_lock);
	moving++;
	mutex_unlock(&noiommu_lock);
}

static void stops_moving(struct device *gone)
{
	struct noiommu_device *nd;

	mutex_lock(&noiommu_lock);
	nd = gone ? find_added(gone) : NULL;
	if (nd) {
		unlist_device(nd);
		list_add(&nd->entry, &unplugged_devices);
		dev_info(gone, "unplugged, no longer added\n");
	}
	/* One that was on its way when the module came has not been counted */
	if (moving)
		moving--;
	if (!moving) {
		reap_unplugged();
		wake_up_all(&moving_wait);
	}
	mutex_unlock(&noiommu_lock);
}

/* Called before the core's notifier, which probes a new device for its IOMMU */
static int noiommu_before(struct notifier_block *nb, unsigned long action,
			  void *data)
{
	if (action == BUS_NOTIFY_ADD_DEVICE || action == BUS_NOTIFY_DEL_DEVICE)
		starts_moving();
	return NOTIFY_DONE;
}

/* Called after the core's notifier, which takes an old one out of its group */
static int noiommu_after(struct notifier_block *nb, unsigned long action,
			 void *data)
{
	if (action == BUS_NOTIFY_ADD_DEVICE)
		stops_moving(NULL);
	else if (action == BUS_NOTIFY_REMOVED_DEVICE)
		stops_moving(data);
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
