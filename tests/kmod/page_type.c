// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the page tables say: write an address of the caller's to the parameter
 * "at", and read from it the memory type of the page there.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 */

#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/pgtable.h>
#include <linux/sched.h>
#include <linux/sysfs.h>

static const char *type = "none";

static int at_set(const char *val, const struct kernel_param *kp)
{
	unsigned long at;
	pgd_t *pgd;
	p4d_t *p4d;
	pud_t *pud;
	pmd_t *pmd;
	pte_t *pte;

	if (kstrtoul(val, 0, &at))
		return -EINVAL;
	pgd = pgd_offset(current->mm, at);
	if (pgd_none(*pgd))
		return -EFAULT;
	p4d = p4d_offset(pgd, at);
	if (p4d_none(*p4d))
		return -EFAULT;
	pud = pud_offset(p4d, at);
	if (pud_none(*pud) || pud_val(*pud) & _PAGE_PSE)
		return -EFAULT;
	pmd = pmd_offset(pud, at);
	if (pmd_none(*pmd) || pmd_val(*pmd) & _PAGE_PSE)
		return -EFAULT;
	pte = pte_offset_kernel(pmd, at);
	if (!(pte_val(*pte) & _PAGE_PRESENT))
		return -EFAULT;

	switch (pte_val(*pte) & (_PAGE_PWT | _PAGE_PCD | _PAGE_PAT)) {
	case 0:
		type = "write-back";
		break;
	case _PAGE_PWT:
		type = "write-combining";
		break;
	case _PAGE_PCD:
		type = "uncached-minus";
		break;
	case _PAGE_PCD | _PAGE_PWT:
		type = "uncached";
		break;
	default:
		type = "another";
	}
	return 0;
}

static int at_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%s\n", type);
}

static const struct kernel_param_ops at_ops = { .set = at_set, .get = at_get };
module_param_cb(at, &at_ops, NULL, 0600);

MODULE_DESCRIPTION("What the page tables say, for tests");
MODULE_LICENSE("GPL");
