/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The differences between the supported kernels, all in one place.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 *
 * The NOIOMMU_* feature macros come from Kbuild, which searches the headers of the
 * kernel that the module is built for.
 */
#ifndef NOIOMMU_COMPAT_H
#define NOIOMMU_COMPAT_H

#include <linux/iommu.h>
#include <linux/notifier.h>
#include <linux/pci.h>
#include <linux/platform_device.h>

/*
 * On other architectures, more than a device's dma_range_map can make its bus
 * addresses differ from physical ones.
 */
#if !defined(CONFIG_X86_64) && !defined(CONFIG_ARM64)
#error "noiommu is for x86_64 and arm64"
#endif

/* The parameters of iommu_domain_ops::attach_dev */
#ifdef NOIOMMU_ATTACH_DEV_OLD
#define NOIOMMU_ATTACH_ARGS \
	struct iommu_domain *domain, struct device *dev, \
	struct iommu_domain *old
#else
#define NOIOMMU_ATTACH_ARGS \
	struct iommu_domain *domain, struct device *dev
#endif

/* The parameters of class_interface::add_dev and ::remove_dev */
#ifdef NOIOMMU_CLASS_INTERFACE_ARG
#define NOIOMMU_CLASS_ARGS \
	struct device *dev, struct class_interface *interface
#else
#define NOIOMMU_CLASS_ARGS \
	struct device *dev
#endif

#ifdef CONFIG_ARM_AMBA
#include <linux/amba/bus.h>
#endif
#ifdef CONFIG_CDX_BUS
#include <linux/cdx/cdx_bus.h>
#endif
#ifdef CONFIG_FSL_MC_BUS
#include <linux/fsl/mc.h>
#endif
#ifdef CONFIG_TEGRA_HOST1X_CONTEXT_BUS
#include <linux/host1x_context_bus.h>
#endif

/* The buses that the IOMMU core looks at; their type is const on newer kernels */
static typeof(pci_bus_type) * const noiommu_buses[] __maybe_unused = {
	&platform_bus_type,
	&pci_bus_type,
#ifdef CONFIG_ARM_AMBA
	&amba_bustype,
#endif
#ifdef CONFIG_FSL_MC_BUS
	&fsl_mc_bus_type,
#endif
#ifdef CONFIG_TEGRA_HOST1X_CONTEXT_BUS
	&host1x_context_device_bus_type,
#endif
#ifdef CONFIG_CDX_BUS
	&cdx_bus_type,
#endif
};

#ifdef NOIOMMU_BUS_OPS
/* Does an IOMMU driver other than @ops own the PCI bus? */
static inline bool noiommu_bus_is_foreign(const struct iommu_ops *ops)
{
	return pci_bus_type.iommu_ops && pci_bus_type.iommu_ops != ops;
}

static inline int noiommu_bus_no_event(struct notifier_block *nb,
				       unsigned long action, void *data)
{
	return NOTIFY_DONE;
}

/*
 * iommu_device_register() points every bus at the driver's operations, and nothing
 * ever resets that: once this module is gone, the kernel would follow the pointer
 * when the next device is plugged in. The core reads it in the buses' ADD notifiers;
 * registering a notifier waits for those that are running.
 */
static inline void noiommu_bus_release(const struct iommu_ops *ops)
{
	static struct notifier_block nb = {
		.notifier_call = noiommu_bus_no_event,
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(noiommu_buses); i++) {
		struct bus_type *bus = noiommu_buses[i];

		if (bus->iommu_ops != ops)
			continue;
		WRITE_ONCE(bus->iommu_ops, NULL);
		if (!bus_register_notifier(bus, &nb))
			bus_unregister_notifier(bus, &nb);
	}
}
#else
static inline bool noiommu_bus_is_foreign(const struct iommu_ops *ops)
{
	return false;
}

static inline void noiommu_bus_release(const struct iommu_ops *ops)
{
}
#endif /* NOIOMMU_BUS_OPS */

/*
 * With MSI cookies came a refusal: a device in a paging domain that has no cookie
 * gets no MSIs, if its interrupt controller asks iommu_dma_prepare_msi(). Those of
 * arm64 do.
 */
#if defined(NOIOMMU_MSI_COOKIES) && defined(CONFIG_ARM64) && \
	defined(CONFIG_IRQ_MSI_IOMMU)
#define NOIOMMU_MAPS_MSI	1

/* iommufd brings its own cookie, and leaves MSIs alone without a reserved region */
static inline bool noiommu_has_foreign_cookie(const struct iommu_domain *domain)
{
	return domain->cookie_type != IOMMU_COOKIE_NONE &&
	       domain->cookie_type != IOMMU_COOKIE_DMA_MSI;
}

static inline int noiommu_set_msi_base(struct iommu_domain *domain, u64 base)
{
	return iommu_get_msi_cookie(domain, base);
}
#else
#define NOIOMMU_MAPS_MSI	0

static inline bool noiommu_has_foreign_cookie(const struct iommu_domain *domain)
{
	return false;
}

static inline int noiommu_set_msi_base(struct iommu_domain *domain, u64 base)
{
	return 0;
}
#endif

#endif /* NOIOMMU_COMPAT_H */
