/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tracepoints: what the module does to devices and memory.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 *
 * Documentation/ABI/testing/debugfs-noiommu describes them for users.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM noiommu

#if !defined(NOIOMMU_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define NOIOMMU_TRACE_H

#include <linux/device.h>
#include <linux/pci.h>
#include <linux/string.h>
#include <linux/tracepoint.h>

/* Fits "ffffffff:ff:1f.7"; the helpers for longer strings differ between kernels */
#define NOIOMMU_TRACE_NAME	20

DECLARE_EVENT_CLASS(noiommu_device,
		    TP_PROTO(const struct device *dev),
		    TP_ARGS(dev),
		    TP_STRUCT__entry(__array(char, name, NOIOMMU_TRACE_NAME)),
		    TP_fast_assign(strscpy(__entry->name, dev_name(dev), NOIOMMU_TRACE_NAME);),
		    TP_printk("%s", __entry->name)
);

DEFINE_EVENT(noiommu_device, noiommu_add,
	     TP_PROTO(const struct device *dev),
	     TP_ARGS(dev)
);

DEFINE_EVENT(noiommu_device, noiommu_remove,
	     TP_PROTO(const struct device *dev),
	     TP_ARGS(dev)
);

DEFINE_EVENT(noiommu_device, noiommu_use_begin,
	     TP_PROTO(const struct device *dev),
	     TP_ARGS(dev)
);

DEFINE_EVENT(noiommu_device, noiommu_use_end,
	     TP_PROTO(const struct device *dev),
	     TP_ARGS(dev)
);

TRACE_EVENT(noiommu_map,
	    TP_PROTO(int segment, u8 bus, u8 devfn, unsigned long npages,
		     unsigned long extents),
	    TP_ARGS(segment, bus, devfn, npages, extents),
	    TP_STRUCT__entry(__field(int, segment)
			     __field(u8, bus)
			     __field(u8, devfn)
			     __field(unsigned long, npages)
			     __field(unsigned long, extents)),
	    TP_fast_assign(__entry->segment = segment;
			   __entry->bus = bus;
			   __entry->devfn = devfn;
			   __entry->npages = npages;
			   __entry->extents = extents;),
	    TP_printk("%04x:%02x:%02x.%x pages=%lu extents=%lu", __entry->segment,
		      __entry->bus, PCI_SLOT(__entry->devfn), PCI_FUNC(__entry->devfn),
		      __entry->npages, __entry->extents)
);

DECLARE_EVENT_CLASS(noiommu_pages,
		    TP_PROTO(unsigned long npages),
		    TP_ARGS(npages),
		    TP_STRUCT__entry(__field(unsigned long, npages)),
		    TP_fast_assign(__entry->npages = npages;),
		    TP_printk("pages=%lu", __entry->npages)
);

DEFINE_EVENT(noiommu_pages, noiommu_unmap,
	     TP_PROTO(unsigned long npages),
	     TP_ARGS(npages)
);

DEFINE_EVENT(noiommu_pages, noiommu_hold,
	     TP_PROTO(unsigned long npages),
	     TP_ARGS(npages)
);

DEFINE_EVENT(noiommu_pages, noiommu_release,
	     TP_PROTO(unsigned long npages),
	     TP_ARGS(npages)
);

TRACE_EVENT(noiommu_write_combining,
	    TP_PROTO(const struct device *dev, int bar, bool on),
	    TP_ARGS(dev, bar, on),
	    TP_STRUCT__entry(__array(char, name, NOIOMMU_TRACE_NAME)
			     __field(int, bar)
			     __field(bool, on)),
	    TP_fast_assign(strscpy(__entry->name, dev_name(dev), NOIOMMU_TRACE_NAME);
			   __entry->bar = bar;
			   __entry->on = on;),
	    TP_printk("%s bar=%d %s", __entry->name, __entry->bar,
		      __entry->on ? "on" : "off")
);

#endif /* NOIOMMU_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE noiommu_trace
#include <trace/define_trace.h>
