/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the parts of the module know of each other.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 */
#ifndef NOIOMMU_H
#define NOIOMMU_H

#include <linux/types.h>

struct pci_dev;

/* The dummy IOMMU, noiommu_iommu.c */
int noiommu_iommu_init(void);
void noiommu_iommu_exit(void);
int noiommu_iommu_add(struct pci_dev *pdev, bool pa_hint);
int noiommu_iommu_remove(struct pci_dev *pdev);

#endif /* NOIOMMU_H */
