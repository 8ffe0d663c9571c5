/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The interfaces between the parts of the module.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 *
 * The dummy IOMMU and /dev/noiommu do not know each other: noiommu_main.c passes
 * each of them the functions of others that it calls.
 */
#ifndef NOIOMMU_H
#define NOIOMMU_H

#include <linux/list.h>
#include <linux/types.h>

struct dentry;
struct device;
struct mm_struct;
struct pci_dev;
struct seq_file;

/* The dummy IOMMU, noiommu_iommu.c */
int noiommu_iommu_init(struct dentry *debug);
void noiommu_iommu_exit(void);
int noiommu_iommu_add(struct pci_dev *pdev);
void noiommu_iommu_add_list(struct pci_dev **pdevs, unsigned int n);
int noiommu_iommu_remove(struct pci_dev *pdev);
void noiommu_iommu_set_hint(bool on);
int noiommu_iommu_reach(int segment, u8 bus, u8 devfn, u64 *limit, u32 *id);

/* Pin and translate, noiommu_pin.c */
int noiommu_pin_init(int (*reach)(int segment, u8 bus, u8 devfn, u64 *limit, u32 *id),
		     struct dentry *debug);
void noiommu_pin_exit(void);
void noiommu_pin_settle(struct list_head *waiters);
u64 noiommu_pin_held(void);
u64 noiommu_pin_held_max(void);
void noiommu_pin_set_held_max(u64 bytes);

/* Uses of devices, noiommu_use.c */

/**
 * struct noiommu_waiter - somebody who waits for uses to end
 * @entry: in the list of those that need not wait any more
 * @uses: how many uses it still waits for
 */
struct noiommu_waiter {
	struct list_head entry;
	unsigned int uses;
};

struct noiommu_use;

void noiommu_use_init(void (*settled)(struct list_head *waiters));
struct noiommu_use *noiommu_use_begin(struct device *dev, u32 device, bool first);
void noiommu_use_end(struct noiommu_use *use);
bool noiommu_use_wait(struct noiommu_waiter *waiter,
		      bool (*concerns)(struct noiommu_waiter *waiter, u32 device,
				       const struct mm_struct *user));
void noiommu_use_show(struct seq_file *m, u32 device);

/* The hint for DPDK, noiommu_hint.c */
int noiommu_hint_init(void);
void noiommu_hint_exit(void);
int noiommu_hint_watch(struct device *iommu);
void noiommu_hint_on(void);
void noiommu_hint_off(void);
void noiommu_hint_give(struct pci_dev *pdev);
void noiommu_hint_mark(struct device *iommu);
void noiommu_hint_drop(struct device *dev);

/* Write combining, noiommu_wc.c */
int noiommu_wc_init(void);
void noiommu_wc_exit(void);
int noiommu_wc_set(struct pci_dev *pdev, int bar, bool on);
int noiommu_wc_show(char *buffer);

#endif /* NOIOMMU_H */
