// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The dummy IOMMU: IOMMU groups for devices that no IOMMU covers.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 *
 * The rule: a mapping succeeds if and only if it is true without any translation.
 *
 * Each added PCI device gets a struct iommu_device and an IOMMU group of its own,
 * which VFIO requires before it hands a device to userspace. There is no hardware
 * behind them. A device reaches every bus address at all times, whichever domain
 * is attached:
 *
 *  - identity, the default, is the plain truth;
 *  - blocked blocks nothing. VFIO attaches it to a group that is claimed but has
 *    no container yet;
 *  - a paging domain accepts exactly those mappings whose IOVA is the bus address
 *    of the page. VFIO pins the memory and accounts for it; a user that expects
 *    translation gets -EINVAL instead of corrupted memory. Every address leads to
 *    itself before, during and after a mapping, and read-only mappings cannot be
 *    enforced. Mappings are recorded only as far as VFIO asks for them, see
 *    noiommu_iova_to_phys().
 *
 * Locking: device lock of the PCI device, then noiommu_lock, then the locks of the
 * IOMMU core. The core calls probe_device() and attach_dev() under its own locks,
 * also from within iommu_device_register(), so these callbacks take nothing but
 * the spinlocks of this file and what noiommu_use.c takes.
 *
 * iommu_device_register() and iommu_device_unregister() walk over every device of
 * every bus. They are made for boot: nothing protects them from the core's own bus
 * notifier, which sets up and frees the same data when a device is plugged or
 * unplugged. So they are called only while no device comes or goes: the notifiers
 * of this file count the devices that do, and wait for noiommu_lock meanwhile.
 */

#define dev_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/cc_platform.h>
#include <linux/debugfs.h>
#include <linux/device.h>
#include <linux/dma-direct.h>
#include <linux/dma-map-ops.h>
#include <linux/iommu.h>
#include <linux/jiffies.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/msi.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/pci.h>
#include <linux/pm_runtime.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/security.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/swiotlb.h>
#include <linux/wait.h>
#include <xen/xen.h>

#include "compat.h"
#include "noiommu.h"
#include "noiommu_trace.h"

/**
 * struct noiommu_device - an added PCI device
 * @iommu: its IOMMU, as the core knows it
 * @pdev: the device; a reference is held
 * @entry: in noiommu_devices
 * @id: its number. Unlike its address, it is not reused for a long time
 * @doorbell: the page that its MSIs are written to, where the core wants to map
 *	it; else 0
 * @use: the current use, or NULL; under the group's mutex, as all attaching is
 * @was_used: there has been a use since the device was added
 */
struct noiommu_device {
	struct iommu_device iommu;
	struct pci_dev *pdev;
	struct list_head entry;
	u32 id;
	u64 doorbell;
	struct noiommu_use *use;
	bool was_used;
};

/**
 * struct noiommu_domain - a paging domain
 * @domain: what the core sees
 * @doorbell: the page that the MSIs of its devices are written to; under the mutex
 *	of the group that is being attached, and VFIO attaches one at a time
 * @lock: protects everything below
 * @limit: the last bus address that all devices of the domain reach
 * @top: where the highest mapping ends
 * @gap_start: start of the range that was unmapped last, including adjacent ranges
 *	that were unmapped directly before
 * @gap_end: end of that range; 0 if there was a mapping since
 */
struct noiommu_domain {
	struct iommu_domain domain;
	u64 doorbell;
	spinlock_t lock; /* for limit, top and the gap */
	u64 limit;
	u64 top;
	u64 gap_start;
	u64 gap_end;
};

/* Serialises adding, removing and hot-plug; protects the variables below */
static DEFINE_MUTEX(noiommu_lock);
/* Number of devices that are coming or going */
static unsigned int moving;
static DECLARE_WAIT_QUEUE_HEAD(moving_wait);
/* Unplugged devices, whose IOMMUs are unregistered once no device is moving */
static LIST_HEAD(unplugged_devices);
static bool noiommu_exiting;
static bool hint_wanted;
/* How often the core was made to look at all devices */
static u32 registrations;

/* Protects the list, whose writers also hold noiommu_lock */
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

/* The memory that a device reaches */

#define NOT_DIRECT \
	"bus addresses differ from physical addresses, or all DMA is bounced (swiotlb=force)"

/* The last bus address that the device reaches */
static u64 device_limit(struct device *dev)
{
	return dev->bus_dma_limit ?: U64_MAX;
}

/*
 * Does every bus address of the device equal the physical address, and does it
 * reach memory without bounce buffers? Some platforms know only once the device
 * has a driver.
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
 * Uses. VFIO claims a group before anyone can open the device, which attaches the
 * blocked domain. It releases the group after the device has been closed and
 * stopped, which attaches the identity domain. Whoever attaches a paging domain
 * without a claim, as vhost-vdpa does, also uses the device.
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

	use = noiommu_use_begin(dev, nd->id, !nd->was_used);
	if (IS_ERR(use))
		return PTR_ERR(use);
	WRITE_ONCE(nd->use, use);
	nd->was_used = true;
	trace_noiommu_use_begin(dev);
	return 0;
}

static void end_use(struct noiommu_device *nd)
{
	struct noiommu_use *use = nd->use;

	if (!use)
		return;
	WRITE_ONCE(nd->use, NULL);
	trace_noiommu_use_end(&nd->pdev->dev);
	noiommu_use_end(use);
}

/*
 * A device can only be claimed from a driver that leaves DMA to its users. With
 * another driver or none, the blocked domain means a reset: newer kernels attach
 * it for as long as a reset takes.
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

/*
 * Where the core maps the doorbell of MSIs into the domain (arm64, see compat.h), it
 * gives out one IOVA after the other, from the one in the domain's MSI cookie. If
 * that is the doorbell's own address, the mapping is true; for any other doorbell
 * it is not, noiommu_map_pages() refuses it, and the device gets no MSIs. Devices
 * with different doorbells need different domains, which VFIO makes on -EINVAL.
 */
static int set_doorbell(struct noiommu_domain *d, struct noiommu_device *nd)
{
	int ret;

	if (!nd->doorbell || noiommu_has_foreign_cookie(&d->domain))
		return 0;
	if (d->doorbell)
		return d->doorbell == nd->doorbell ? 0 : -EINVAL;

	ret = noiommu_set_msi_base(&d->domain, nd->doorbell);
	if (!ret)
		d->doorbell = nd->doorbell;
	return ret;
}

static int noiommu_attach_paging(NOIOMMU_ATTACH_ARGS)
{
	struct noiommu_device *nd = dev_iommu_priv_get(dev);
	struct noiommu_domain *d = to_noiommu_domain(domain);
	u64 limit = device_limit(dev);
	int ret;

	ret = set_doorbell(d, nd);
	if (ret)
		return ret;

	/*
	 * A device that reaches less than the others could not honour existing
	 * mappings. On -EINVAL, VFIO gives it a domain of its own.
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
	 * Refuse physical page 0, because callers of iova_to_phys() take the
	 * address 0 for "not mapped". Accept device memory: whether peers reach it
	 * at its own address is up to the bus.
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

	/* The core unmaps a range in parts, in ascending order */
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
 * When a group joins a container, VFIO replays the container's mappings into the
 * group's domain, in ascending order. If one is refused, VFIO unpins what it finds
 * mapped in that domain, and only the answer given here keeps it from unpinning
 * pages that it never pinned. All mappings are below @top, so anything at or above
 * @top was never mapped or has been unmapped.
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
	/* Older kernels do not pass the device: attaching the first one sets the limit */
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
	 * Claim nothing that takes hardware, above all no interrupt remapping:
	 * without it, the user of a device can raise any interrupt, and the
	 * administrator must tell VFIO to accept that.
	 */
	if (cap != IOMMU_CAP_CACHE_COHERENCY)
		return false;
	if (!dev_is_dma_coherent(dev)) {
		/* VFIO itself only returns -EINVAL */
		dev_err_ratelimited(dev, "not for VFIO: its DMA is not coherent with the caches of this platform\n");
		return false;
	}
	return true;
}

/* Called for every device without an IOMMU; accept added ones only */
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

	/* Tells these groups from those of a real IOMMU */
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

/* More than a driver needs to release a device that nobody uses */
#define LOCK_TIMEOUT	(2 * HZ)

/*
 * A hardware IOMMU puts the PCI devices that it covers into groups, and it covers
 * nearly all of them. dev->iommu tells these groups from those of VFIO's own
 * no-IOMMU mode.
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
 * A new device can be found before the core's notifier has seen it. If it is added
 * before that, 6.1 probes it a second time and leaks a reference to the module. The
 * uevent is sent after the notifier was called.
 */
static bool is_plugged(struct pci_dev *pdev)
{
	struct pci_dev *found;

	found = pci_get_domain_bus_and_slot(pci_domain_nr(pdev->bus),
					    pdev->bus->number, pdev->devfn);
	pci_dev_put(found);
	return found == pdev && pdev->dev.kobj.state_add_uevent_sent;
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

static void log_refusal(struct pci_dev *pdev, int error)
{
	noiommu_hint_give(pdev);
	pci_err(pdev, "not added: the IOMMU core refused it (error %d)\n", error);
}

static void free_device(struct noiommu_device *nd)
{
	noiommu_hint_drop(nd->iommu.dev);
	iommu_device_sysfs_remove(&nd->iommu);
	pci_dev_put(nd->pdev);
	kfree(nd);
}

/* Remove the device from the list, so that the core cannot probe it again */
static void unlist_device(struct noiommu_device *nd)
{
	spin_lock(&list_lock);
	list_del(&nd->entry);
	spin_unlock(&list_lock);
}

/*
 * Lock the device, so that no driver can be bound or unbound, and noiommu_lock,
 * while no device comes or goes. A device in use does not go before its user has
 * closed it, and that user may be the caller, so do not wait forever.
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
 * Apply the rule of noiommu_hint.c after something has changed. While a device is
 * moving, hints are only removed: stops_moving() calls this again.
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
 * @on: whether to switch it on
 */
void noiommu_iommu_set_hint(bool on)
{
	mutex_lock(&noiommu_lock);
	hint_wanted = on;
	refresh_hints();
	mutex_unlock(&noiommu_lock);
}

/*
 * Learn where the device writes its MSIs, see set_doorbell(). An interrupt that
 * nobody requests must be set up for that, as long as the device is in no group.
 */
static int find_doorbell(struct noiommu_device *nd)
{
	struct pci_dev *pdev = nd->pdev;
	struct msi_msg msg = {};
	void *group;

	if (!NOIOMMU_MAPS_MSI || (!pdev->msi_cap && !pdev->msix_cap))
		return 0;

	/* The driver core binds no driver to a device that has managed resources */
	group = devres_open_group(&pdev->dev, NULL, GFP_KERNEL);
	if (!group)
		return -ENOMEM;
	pm_runtime_get_sync(&pdev->dev);
	if (!pci_enable_device_mem(pdev)) {
		if (pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_MSI | PCI_IRQ_MSIX) == 1) {
			get_cached_msi_msg(pci_irq_vector(pdev, 0), &msg);
			pci_free_irq_vectors(pdev);
		}
		pci_disable_device(pdev);
	}
	pm_runtime_put(&pdev->dev);
	devres_release_group(&pdev->dev, group);

	nd->doorbell = ((u64)msg.address_hi << 32 | msg.address_lo) & PAGE_MASK;
	if (!nd->doorbell)
		pci_warn(pdev, "will have no MSIs: the address that they go to is not known\n");
	return 0;
}

/* Make a device known to noiommu_probe_device() */
static struct noiommu_device *prepare_device(struct pci_dev *pdev)
{
	struct noiommu_device *nd;
	int ret;

	ret = check_host(pdev);
	if (!ret)
		ret = check_device(pdev);
	if (ret)
		return ERR_PTR(ret);

	nd = kzalloc(sizeof(*nd), GFP_KERNEL);
	if (!nd)
		return ERR_PTR(-ENOMEM);
	nd->id = atomic_inc_return(&last_device_id);
	nd->pdev = pci_dev_get(pdev);
	nd->iommu.ops = &noiommu_ops;
	INIT_LIST_HEAD(&nd->iommu.list);

	/* No parent: its class directory would take the name of the iommu link */
	ret = iommu_device_sysfs_add(&nd->iommu, NULL, NULL,
				     KBUILD_MODNAME "-%s", pci_name(pdev));
	if (ret) {
		pci_dev_put(pdev);
		kfree(nd);
		goto err;
	}

	ret = noiommu_hint_watch(nd->iommu.dev);
	if (!ret)
		ret = find_doorbell(nd);
	if (ret) {
		free_device(nd);
		goto err;
	}
	noiommu_hint_drop(&pdev->dev);

	spin_lock(&list_lock);
	list_add_tail(&nd->entry, &noiommu_devices);
	spin_unlock(&list_lock);
	return nd;

err:
	log_refusal(pdev, ret);
	return ERR_PTR(ret);
}

static void undo_device(struct noiommu_device *nd)
{
	unlist_device(nd);
	iommu_device_unregister(&nd->iommu);
	free_device(nd);
}

/*
 * Have the core set up devices that were prepared. It offers nothing for this but
 * iommu_device_register(), which looks at every device of the host that has no
 * IOMMU, so a list of devices shares one registration: the core accepts any IOMMU
 * that noiommu_probe_device() returns. The IOMMUs of the others are never on the
 * core's list, for which unregistering makes no difference.
 *
 * Those of @nds that it does not set up become NULL. Some may be NULL before.
 */
static int register_devices(struct noiommu_device **nds, unsigned int n)
{
	unsigned int i, first = 0;
	int ret;

	while (first < n && !nds[first])
		first++;
	if (first == n)
		return 0;

	registrations++;
	ret = iommu_device_register(&nds[first]->iommu, &noiommu_ops, NULL);
	if (ret) /* the core has unregistered it already */
		INIT_LIST_HEAD(&nds[first]->iommu.list);

	for (i = first; i < n; i++) {
		struct device *dev;

		if (!nds[i])
			continue;
		/* The core may have asked another driver, which refused it, too */
		dev = &nds[i]->pdev->dev;
		if (!ret && device_iommu_mapped(dev) && dev_iommu_priv_get(dev) == nds[i])
			continue;
		undo_device(nds[i]);
		nds[i] = NULL;
	}
	return ret;
}

static void log_added(struct pci_dev *pdev)
{
	pci_info(pdev, "added, without any isolation\n");
	trace_noiommu_add(&pdev->dev);
}

static int add_locked(struct pci_dev *pdev)
{
	struct noiommu_device *nd;
	int ret;

	nd = prepare_device(pdev);
	if (IS_ERR(nd))
		return PTR_ERR(nd);

	ret = register_devices(&nd, 1);
	if (!nd) {
		ret = ret ?: -EOPNOTSUPP;
		log_refusal(pdev, ret);
		return ret;
	}
	refresh_hints();
	log_added(pdev);
	return 0;
}

/**
 * noiommu_iommu_add() - give a PCI device an IOMMU group
 * @pdev: the device; no driver may be bound
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

/* A task may hold 48 locks while lockdep watches, and these are most of them */
#define BATCH	32

static void add_batch(struct pci_dev **pdevs, unsigned int n)
{
	struct noiommu_device *nds[BATCH] = {}, *nd;
	DECLARE_BITMAP(locked, BATCH) = {};
	DECLARE_BITMAP(refused, BATCH) = {};
	unsigned int i;

	for (i = 0; i < n; i++) {
		if (device_trylock(&pdevs[i]->dev))
			__set_bit(i, locked);
	}

	mutex_lock(&noiommu_lock);
	for_each_set_bit(i, locked, n) {
		if (moving)
			break;
		nd = prepare_device(pdevs[i]);
		if (IS_ERR(nd))
			__set_bit(i, refused);
		else
			nds[i] = nd;
	}
	register_devices(nds, n);
	for (i = 0; i < n; i++) {
		if (nds[i])
			log_added(pdevs[i]);
	}
	refresh_hints();
	mutex_unlock(&noiommu_lock);

	for_each_set_bit(i, locked, n)
		device_unlock(&pdevs[i]->dev);

	/* One by one, with the time that takes, and with the reason in the log */
	for (i = 0; i < n; i++) {
		if (!nds[i] && !test_bit(i, refused))
			noiommu_iommu_add(pdevs[i]);
	}
}

/**
 * noiommu_iommu_add_list() - give PCI devices an IOMMU group each
 * @pdevs: the devices; no driver may be bound to any
 * @n: how many
 *
 * Takes as little time as possible. The reason why a device is refused is in the
 * log.
 */
void noiommu_iommu_add_list(struct pci_dev **pdevs, unsigned int n)
{
	while (n) {
		unsigned int batch = min_t(unsigned int, n, BATCH);

		add_batch(pdevs, batch);
		pdevs += batch;
		n -= batch;
	}
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
	 * A driver is unbound only once its users are done, and VFIO has released
	 * the group by then. So without a driver there is no user.
	 */
	if (dev->driver) {
		pci_err(pdev, "not removed: driver %s is bound, unbind it first\n",
			dev->driver->name);
		return -EBUSY;
	}

	undo_device(nd);
	noiommu_hint_give(pdev);
	refresh_hints();
	pci_info(pdev, "removed\n");
	trace_noiommu_remove(dev);
	return 0;
}

/**
 * noiommu_iommu_remove() - remove the IOMMU group of a PCI device
 * @pdev: the device; no driver may be bound
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
 * @id: set to the number of the device, by which uses name it
 *
 * The DMA mask of the device is ignored: it is the initial one of 32 bits, unless
 * a driver of the kernel has changed it.
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
		 * If the device is in use, device_is_direct() was checked. If not,
		 * the map that it reads may be freed with the driver, and users
		 * must not wait for the lock of that. So refuse any map.
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

/* debugfs: noiommu/devices */
static int devices_show(struct seq_file *m, void *unused)
{
	struct noiommu_device *nd;

	mutex_lock(&noiommu_lock);
	list_for_each_entry(nd, &noiommu_devices, entry) {
		seq_printf(m, "%s id %u limit %#llx", pci_name(nd->pdev), nd->id,
			   device_limit(&nd->pdev->dev));
		if (nd->doorbell)
			seq_printf(m, " doorbell %#llx", nd->doorbell);
		noiommu_use_show(m, nd->id);
		seq_putc(m, '\n');
	}
	mutex_unlock(&noiommu_lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(devices);

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
	/* The core may need the place of the link next, or remove its directory */
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
		trace_noiommu_remove(dev);
	}
	if (!gone && dev_is_pci(dev))
		noiommu_hint_give(to_pci_dev(dev));
	/* A device that was moving when the module was loaded was not counted */
	if (moving)
		moving--;
	if (!moving) {
		reap_unplugged();
		wake_up_all(&moving_wait);
	}
	refresh_hints();
	mutex_unlock(&noiommu_lock);
}

/* Called before the core's notifier, which looks for the IOMMU of a new device */
static int noiommu_before(struct notifier_block *nb, unsigned long action,
			  void *data)
{
	if (action == BUS_NOTIFY_ADD_DEVICE || action == BUS_NOTIFY_DEL_DEVICE)
		starts_moving(data);
	return NOTIFY_DONE;
}

/* Called after the core's notifier, which removes an old device from its group */
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

/**
 * noiommu_iommu_init() - begin to watch devices come and go
 * @debug: directory of the module in debugfs
 *
 * Return: 0 or an error.
 */
int noiommu_iommu_init(struct dentry *debug)
{
	unsigned int n;
	int ret;

	debugfs_create_file("devices", 0400, debug, NULL, &devices_fops);
	debugfs_create_u32("registrations", 0400, debug, &registrations);
	for (n = 0; n < ARRAY_SIZE(noiommu_buses); n++) {
		/*
		 * In this order, a device that moves between the two calls is not
		 * counted as one that starts and never stops.
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

/* No device is in a group: each of those holds a reference to the module */
void noiommu_iommu_exit(void)
{
	/* The parameters are in sysfs until later: have writes to them refused */
	mutex_lock(&noiommu_lock);
	noiommu_exiting = true;
	mutex_unlock(&noiommu_lock);

	/* Waits for an unplugging that has reached these notifiers */
	unwatch(ARRAY_SIZE(noiommu_buses));
	noiommu_bus_release(&noiommu_ops);

	/* From here on, nothing tells when a device stops moving */
	mutex_lock(&noiommu_lock);
	moving = 0;
	reap_unplugged();
	wake_up_all(&moving_wait);
	mutex_unlock(&noiommu_lock);
}
