/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the parts of the module know of each other.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 */
#ifndef NOIOMMU_H
#define NOIOMMU_H

#include <linux/types.h>

struct mm_struct;
struct pci_dev;

/* The dummy IOMMU, noiommu_iommu.c */
int noiommu_iommu_init(void);
void noiommu_iommu_exit(void);
int noiommu_iommu_add(struct pci_dev *pdev, bool pa_hint);
int noiommu_iommu_remove(struct pci_dev *pdev);
int noiommu_iommu_reach(int segment, u8 bus, u8 devfn, u64 *limit, u32 *id);
u64 noiommu_iommu_last_use(void);
bool noiommu_iommu_is_used(u32 id, const struct mm_struct *mm, u64 until);

/* Pin and translate, noiommu_pin.c */
int noiommu_pin_init(void);
void noiommu_pin_exit(void);
void noiommu_pin_settle(void);

#endif /* NOIOMMU_H */
